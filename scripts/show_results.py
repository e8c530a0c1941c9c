"""Print a table of what an output folder's ledger says was saved.

python scripts/show_results.py FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from runner.report import table


def rows(folder: Path) -> list[list[object]]:
    """Return name, endpoint, attempts, seconds of generation, splats or bytes of every saved result, by name."""
    saved = {}
    for line in (folder / ".runner" / "ledger.jsonl").read_text(encoding="utf-8").splitlines():
        outcome = json.loads(line)
        if outcome["outcome"] == "saved":
            saved[outcome["key"]] = outcome
    return [
        [
            one["file"],
            one["endpoint"],
            len(one["attempts"]),
            round(one["attempts"][-1]["generate_s"], 2),
            vertices(folder / one["file"]),
            round(one["size_bytes"] / 1e6, 1),
        ]
        for _, one in sorted(saved.items())
    ]


def vertices(file: Path) -> int:
    """Return the vertex count in a PLY's header; 0 for another format."""
    with open(file, "rb") as stream:
        head = stream.read(1000)
    for line in head.splitlines():
        if line.startswith(b"element vertex"):
            return int(line.split()[2])
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    print(table(["result", "endpoint", "attempts", "seconds", "splats", "MB"], rows(Path(sys.argv[1]))))
