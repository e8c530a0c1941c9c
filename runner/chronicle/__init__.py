"""What happened in an output folder, run by run: the one source of every report."""

from runner.chronicle.records import (
    CHANGES,
    ENDS,
    NO_PROMPT,
    NONE,
    REASONS,
    STATES,
    Attempts,
    Changes,
    Chronicle,
    Idle,
    Outage,
    Rows,
    Run,
    Server,
    Turn,
)
from runner.chronicle.saying import markdown_lines, of_shards, text_lines, verdict
from runner.chronicle.telling import chronicle_of

__all__ = [
    "CHANGES",
    "ENDS",
    "NONE",
    "NO_PROMPT",
    "REASONS",
    "STATES",
    "Attempts",
    "Changes",
    "Chronicle",
    "Idle",
    "Outage",
    "Rows",
    "Run",
    "Server",
    "Turn",
    "chronicle_of",
    "markdown_lines",
    "of_shards",
    "text_lines",
    "verdict",
]
