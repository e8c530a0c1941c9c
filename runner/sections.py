"""What every mapping of the YAML is made of: sections in which each key is known, and numbers that are numbers."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue

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


class Also:
    """Lets the JSON schema say what a validator takes besides.

    ``shapes``: those too; ``one``: of a list, an entry alone; ``partial``: a section without its keys, for these may
    come from a preset.
    """

    def __init__(self, *shapes: JsonSchemaValue, one: bool = False, partial: bool = False) -> None:
        self._shapes = shapes
        self._one = one
        self._partial = partial

    def __get_pydantic_json_schema__(self, schema: Any, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        known = handler(schema)
        if self._partial:
            handler.resolve_ref_schema(known).pop("required", None)
        others = [*self._shapes, *([known["items"]] if self._one else [])]
        return {"anyOf": [*others, known]} if others else known
