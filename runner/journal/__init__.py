"""The log of a run: its words, and where they go."""

from runner.journal.files import LOG_FORMAT, Held, JsonLines, LogFile, heard_by, log, together, written_to
from runner.journal.words import Words, announce, conclude, tell_stop

__all__ = [
    "LOG_FORMAT",
    "Held",
    "JsonLines",
    "LogFile",
    "Words",
    "announce",
    "conclude",
    "heard_by",
    "log",
    "tell_stop",
    "together",
    "written_to",
]
