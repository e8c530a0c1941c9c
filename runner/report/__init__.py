"""Fold outcomes into the truth about a run, and say it. Knows neither pool nor run."""

from runner.report.causes import Cause, Causes, causes_of
from runner.report.paces import Paces, Slow
from runner.report.tally import Tally
from runner.report.text import (
    alarm,
    and_more,
    answer_json,
    cause_text,
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
    "and_more",
    "answer_json",
    "cause_text",
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
