"""Write docs/reference.md (every option of the YAML) and docs/cli.md (every command and flag).

    make docs                        writes both
    python scripts/write_docs.py -n  writes nothing; exit 1 if one is not what it would write

What they say stands once, in runner/settings.py, runner/protocols/block.py, runner/cli/parser.py and
runner/cli/texts.py. The text does not depend on the machine, the terminal or the version of Python.
"""

from __future__ import annotations

import json
import re
import sys
from argparse import SUPPRESS, Action, ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from runner import config
from runner.cli import texts
from runner.cli.parser import abouts, arguments_of, build_parser, commands_of
from runner.mistakes import bounds, field_at

DOCS = Path(__file__).parents[1] / "docs"

REFERENCE = """\
# Every option of the YAML

*Written by `make docs` from the code; edit that.* Search this page for an option's full name, such as
`retry.backoff_s`. `runner schema` prints the same as a JSON schema, `runner init` a config to start from;
[config.md](config.md) says what the options can't say for themselves. On the command line each is `--set NAME=VALUE`
(lists and mappings too, as YAML). Seconds may have decimals. An empty default means none.
"""

CLI = """\
# Every command

*Written by `make docs` from the code; edit that.* `runner COMMAND --help` says the same. `python -m runner` is the
same as `runner`. stdout holds what the command is for (of `run` and `generate` one line of JSON), stderr progress,
log and errors.
"""

Schema = dict[str, Any]


def reference() -> str:
    """Return docs/reference.md."""
    schema = json.loads(config.json_schema())
    sections = list(_sections("", schema, schema["$defs"]))
    links = " · ".join(f"[{_title(place)}](#{anchor(_title(place))})" for place, _ in sections)
    written = [REFERENCE, f"Sections: {links}", *(_section(place, one, schema) for place, one in sections)]
    return "\n".join(written) + "\n"


def cli() -> str:
    """Return docs/cli.md."""
    parser = build_parser()
    commands = commands_of(parser)
    rows = [f"| [`{name}`](#{anchor(f'runner {name}')}) | {abouts()[name]} |" for name in commands]
    head = [
        CLI,
        "| command | does |",
        "|---|---|",
        *rows,
        "",
        "Every command takes `-h`, `--help`; without a command there is:",
        "",
    ]
    head += [*(_flag(one) for one in arguments_of(parser) if one.option_strings and one.dest != "help"), ""]
    head += ["## Exit status of run and generate", "", _block("text", texts.EXIT_STATUS)]
    return "\n".join([*head, *(_command(name, one) for name, one in commands.items())]).rstrip() + "\n"


def anchor(title: str) -> str:
    """Return what a heading is linked by.

    >>> anchor("protocol.fail_when[]"), anchor("runner run")
    ('protocolfail_when', 'runner-run')
    """
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def _sections(place: str, section: Schema, known: Schema) -> Iterator[tuple[str, Schema]]:
    """Yield a section with its place, and then those within."""
    yield place, section
    for name, option in section["properties"].items():
        if inner := _section_in(option, known):
            many = "[]" if any(one.get("type") == "array" for one in _shapes(option)) else ""
            yield from _sections(f"{place}{'.' if place else ''}{name}{many}", known[inner], known)


def _section_in(option: Schema, known: Schema) -> str | None:
    """Return the name of the section that an option is, or is a list of."""
    for shape in _shapes(option):
        for one in _shapes(shape.get("items", shape)):
            name = one.get("$ref", "").rpartition("/")[2]
            if name and "properties" in known[name]:
                return str(name)
    return None


def _shapes(option: Schema) -> list[Schema]:
    """Return what an option may be, each alone."""
    alone = option.get("anyOf") or option.get("allOf")
    return [inner for one in alone for inner in _shapes(one)] if alone else [option]


def _title(place: str) -> str:
    return place or "The top level"


def _section(place: str, section: Schema, schema: Schema) -> str:
    known = schema["$defs"]
    lines = [f"\n## {_title(place)}", "", _said(section.get("description", "")), ""]
    lines += ["| option | what it may be | default | meaning |", "|---|---|---|---|"]
    for name, option in section["properties"].items():
        full = f"{place}.{name}" if place else name
        inner = _section_in(option, known)
        meaning = option.get("description") or (known[inner].get("description", "") if inner else "")
        cells = [f"`{full}`", _kind(option, full, known), _default(option, full, known), _said(meaning)]
        lines.append(f"| {' | '.join(cells)} |".replace("|  |", "| |"))
    return "\n".join(lines)


def _field(full: str) -> Any:
    """Return what the models declare of an option."""
    return field_at(tuple(full.replace("[]", "").split(".")))


def _is_section(option: Schema, known: Schema) -> bool:
    return bool(_section_in(option, known)) and isinstance(option.get("default"), dict)


def _said(docstring: str) -> str:
    return " ".join(docstring.split()).replace("``", "`").replace("|", "\\|")


def _default(option: Schema, full: str, known: Schema) -> str:
    value = option.get("default")
    if _field(full).is_required():
        return "**required**" + (", or the preset's" if full.startswith("protocol.") else "")
    if value in (None, "", [], {}) or _is_section(option, known):
        return ""
    return f"`{value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}`"


def _kind(option: Schema, full: str, known: Schema) -> str:
    """Say in words what an option may be."""
    shapes = [shape for shape in _shapes(option) if shape.get("type") != "null"]
    names = [name for shape in reversed(shapes) for name in shape.get("enum", ())]
    kinds = [_names(names)] if names else []
    for shape in shapes:
        items = _kind(shape["items"], full, known) if shape.get("items") else ""
        if items and items == ", or ".join(kinds):
            kinds.append("a list of these")
        elif "enum" not in shape:
            kinds.append(f"a list of: {items}" if items else _shape(shape, full, known))
    return ", or ".join(dict.fromkeys(kinds))


def _shape(shape: Schema, full: str, known: Schema) -> str:
    kind = str(shape.get("type"))
    if "$ref" in shape:
        name = shape["$ref"].rpartition("/")[2]
        return f"[a section](#{anchor(full)})" if "properties" in known[name] else _kind(known[name], full, known)
    if "const" in shape:
        return f"`{shape['const']}`"
    if kind in ("integer", "number"):
        return _number(kind, full) + (_bounds(shape) or bounds(_field(full)))
    return {"string": "text", "boolean": "`true`, `false`", "object": "a mapping", "array": "a list"}.get(
        kind, "anything"
    )


def _names(names: list[Any]) -> str:
    many = 14
    return "a name" if len(names) > many else ", ".join(f"`{name}`" for name in names)


def _number(kind: str, full: str) -> str:
    return "an integer" if kind == "integer" else "seconds" if full.endswith("_s") else "a number"


def _bounds(shape: Schema) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    return " and".join(f" {sign} {shape[name]}" for name, sign in signs.items() if name in shape)


def _command(name: str, parser: ArgumentParser) -> str:
    about, epilog = parser.description or "", parser.epilog or ""
    lines = [f"## runner {name}", "", _block("text", (parser.usage or "").strip()), " ".join(about.split()), ""]
    for group in parser._action_groups:
        actions = [one for one in group._group_actions if one.dest != "help" and one.help != SUPPRESS]
        if actions:
            plain = group.title in ("options", "positional arguments")
            lines += [] if plain else [f"{str(group.title).capitalize()}:", ""]
            lines += [*map(_flag, actions), ""]
    for title, text in re.findall(r"^([a-z ]+):\n((?:  .*\n|\n)+)", epilog, re.MULTILINE):
        plain_text = re.sub(r"^  ", "", text.strip("\n"), flags=re.MULTILINE)
        if title == "see also":
            lines += [f"See also: {_linked(plain_text)}", ""]
        elif plain_text == texts.EXIT_STATUS.rstrip():
            lines += ["Exit status: [above](#exit-status-of-run-and-generate).", ""]
        else:
            lines += [f"{title.capitalize()}:", "", _block(_language(title), plain_text)]
    return "\n".join(lines)


def _language(title: str) -> str:
    return "console" if title == "examples" else "text"


def _linked(text: str) -> str:
    return re.sub(r"docs/([\w-]+\.md)", r"[\1](\1)", " ".join(text.split()))


def _flag(action: Action) -> str:
    names = [f"`{name}{_value(action)}`" for name in action.option_strings] or [f"`{_metavar(action)}`"]
    said = (action.help or "").replace("%%", "%")
    return f"- {', '.join(names)}: {said}"


def _value(action: Action) -> str:
    return "" if action.nargs == 0 else f" {_metavar(action)}"


def _metavar(action: Action) -> str:
    if action.metavar:
        return str(action.metavar)
    return "|".join(map(str, action.choices)) if action.choices else action.dest.upper()


def _block(language: str, text: str) -> str:
    return f"```{language}\n{text.rstrip()}\n```\n"


PAGES = {"reference.md": reference, "cli.md": cli}


def main() -> int:
    """Write the pages that changed; with -n only say which these are."""
    only_look = sys.argv[1:] == ["-n"]
    changed = []
    for name, write in PAGES.items():
        page = DOCS / name
        if not page.exists() or page.read_text(encoding="utf-8") != write():
            changed.append(name)
            if not only_look:
                page.write_text(write(), encoding="utf-8")
    for name in changed:
        print(f"docs/{name}: {'not up to date; run make docs' if only_look else 'written'}")
    return 1 if changed and only_look else 0


if __name__ == "__main__":
    sys.exit(main())
