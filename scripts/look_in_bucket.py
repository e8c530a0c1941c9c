"""Look from outside, with boto3 alone, at what a run has left in a bucket.

python scripts/look_in_bucket.py make URL            make the bucket
python scripts/look_in_bucket.py check URL FOLDER    compare every object with the ledger; copy the report into FOLDER
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3

STATE = ".runner/"
REPORT = "report.html"


def objects(client: Any, bucket: str, prefix: str) -> dict[str, bytes]:
    """Return every object below a prefix with its content, by its name without the prefix."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    keys = [one["Key"] for page in pages for one in page.get("Contents", ())]
    return {key[len(prefix) :]: client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}


def problems(found: dict[str, bytes]) -> list[str]:
    """Say where objects and ledger differ, and what of a run's state is not there."""
    missing = [f"no {STATE}{name}" for name in ("ledger.jsonl", "summary.json") if STATE + name not in found]
    missing += [] if REPORT in found else [f"no {REPORT}"]
    lines = [json.loads(line) for line in found.get(STATE + "ledger.jsonl", b"").splitlines()]
    saved = {one["file"]: one for one in lines if one["outcome"] == "saved"}
    results = {name for name in found if "/" not in name and not name.startswith(".") and name != REPORT}
    missing += [f"{name} is in the ledger only" for name in sorted(saved.keys() - results)]
    missing += [f"{name} is in the bucket only" for name in sorted(results - saved.keys())]
    for name in sorted(saved.keys() & results):
        if len(found[name]) != saved[name]["size_bytes"]:
            missing.append(f"{name} has {len(found[name])} bytes, the ledger says {saved[name]['size_bytes']}")
        elif hashlib.sha256(found[name]).hexdigest() != saved[name]["sha256"]:
            missing.append(f"{name} has another SHA-256 than the ledger says")
    return missing


def main(what: str, url: str, folder: str | None = None) -> int:
    client = boto3.client("s3")
    parts = urlsplit(url)
    bucket, prefix = parts.netloc, parts.path.strip("/") + "/"
    if what == "make":
        client.create_bucket(Bucket=bucket)
        return 0
    found = objects(client, bucket, prefix)
    wrong = problems(found)
    for one in wrong:
        print(f"{url}: {one}", file=sys.stderr)
    results = sorted(name for name in found if name.endswith(".ply"))
    if not wrong:
        size_mb = sum(len(found[name]) for name in results) / 1e6
        print(f"{url}: {len(results)} results ({size_mb:.1f} MB), each with size and SHA-256 as its ledger line says")
    if folder and REPORT in found:
        copy = Path(folder) / REPORT
        copy.write_bytes(found[REPORT])
        print(f"open {copy}")
    return 1 if wrong else 0


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4) or sys.argv[1] not in ("make", "check"):
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
