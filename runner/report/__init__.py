"""Fold outcomes into the truth about a run, and say it. Knows neither pool nor run."""

from runner.report.paces import Slow
from runner.report.tally import Tally
from runner.report.text import answer_json, endpoint_table, summary_json, table, verdict, why

__all__ = ["Slow", "Tally", "answer_json", "endpoint_table", "summary_json", "table", "verdict", "why"]
