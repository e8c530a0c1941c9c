"""Fold outcomes into the truth about a run, and say it. Knows neither pool nor run."""

from runner.report.causes import Cause, Causes, causes_of
from runner.report.paces import Paces, Slow
from runner.report.tally import Tally
from runner.report.text import (
    alarm,
    answer_json,
    endpoint_table,
    in_words,
    plain,
    summary_json,
    table,
    verdict,
    why,
)
from runner.report.together import together

__all__ = [
    "Cause",
    "Causes",
    "Paces",
    "Slow",
    "Tally",
    "alarm",
    "answer_json",
    "causes_of",
    "endpoint_table",
    "in_words",
    "plain",
    "summary_json",
    "table",
    "together",
    "verdict",
    "why",
]
