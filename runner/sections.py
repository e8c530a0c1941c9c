"""What every mapping of the YAML is made of: sections in which each key is known, and numbers that are numbers."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict

_YEAR_S = 31_536_000


def _not_a_bool(given: Any) -> Any:
    """Refuse YAML's ``yes`` and ``true`` where a number is meant: Python would read them as 1."""
    if isinstance(given, bool):
        raise ValueError(f"expected a number, got {str(given).lower()}")
    return given


def _at_most_a_year(seconds: float) -> float:
    if seconds > _YEAR_S:
        raise ValueError(f"expected at most {_YEAR_S} (a year), got {seconds:g}")
    return seconds


Int = Annotated[int, BeforeValidator(_not_a_bool)]
Seconds = Annotated[float, BeforeValidator(_not_a_bool), AfterValidator(_at_most_a_year)]


class Section(BaseModel):
    """A mapping of the YAML in which every key is known."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, allow_inf_nan=False)
