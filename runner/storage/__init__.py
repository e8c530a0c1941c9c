"""Where a result lives, and how it gets there: temp file, flush, rename. A result appears whole or not at all.

::

    output_folder/KEY.EXT                 a verified result
    output_folder/.KEY.01234567.part      a body on its way; swept by the next run if this one dies
    output_folder/.runner/                ledger.jsonl lists.jsonl runs.jsonl summary.json config.yaml run.log lock
    output_folder/.runner/shards/3-of-8/  the same of the third shard of eight, and its bodies on their way
"""

from runner.storage.folder import OutputFolder
from runner.storage.opening import content_of, is_file, no_pipe
from runner.storage.places import NO_STAMP, PART, REPORT, SHARDS, STATE, Stamp, states_of
from runner.storage.temps import Part, Parts, Scratch, Temp, new_mark
from runner.storage.writing import FILE_MODE, not_for_all, opened, refusals, seen_as, sha256_of, write_whole

__all__ = [
    "FILE_MODE",
    "NO_STAMP",
    "PART",
    "REPORT",
    "SHARDS",
    "STATE",
    "OutputFolder",
    "Part",
    "Parts",
    "Scratch",
    "Stamp",
    "Temp",
    "content_of",
    "is_file",
    "new_mark",
    "no_pipe",
    "not_for_all",
    "opened",
    "refusals",
    "seen_as",
    "sha256_of",
    "states_of",
    "write_whole",
]
