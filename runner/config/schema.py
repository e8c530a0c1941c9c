"""The JSON schema of the config file."""

from __future__ import annotations

import json

from runner.config.parts import COMMON
from runner.settings import RunConfig


def json_schema() -> str:
    """Return the JSON schema of the config file, for editors."""
    schema = RunConfig.model_json_schema()
    own = {name: one for name, one in schema["properties"].items() if name not in (*COMMON, "runs")}
    entry = {"anyOf": [{"type": "string"}, {"type": "object", "properties": own, "additionalProperties": False}]}
    said = {name: schema["properties"]["runs"][name] for name in ("title", "description", "default")}
    several = {"type": "array", "items": entry, "minItems": 1}
    schema["properties"]["runs"] = said | {"anyOf": [*entry["anyOf"], several, {"type": "null"}]}
    schema["required"].remove("prompts")
    schema["anyOf"] = [{"required": ["prompts"]}, {"required": ["runs"]}]
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
