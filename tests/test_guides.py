"""The guides in docs/: what they tell people to type works, what they name exists, what they quote is said."""

import ast
import contextlib
import importlib.util
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from conftest import REPOSITORY
from server import IMAGE, ScriptedServer

from runner import load_config
from runner.cli import main
from runner.cli.parser import build_parser, commands_of

DOCS = REPOSITORY / "docs"
PAGES = {page.name: page.read_text() for page in sorted(DOCS.glob("*.md"))}

OF_OTHERS = [
    "Connection refused", "certificate verify failed", "No space left on device", "Permission denied",
    ".bin", "nvidia-smi",
]  # fmt: skip
"""What stands in headings of the page on troubles and is not said by our code."""


def blocks(page: str, *languages: str) -> list[str]:
    """Return the code blocks of a page in these languages."""
    found = re.findall(r"^```(\w+)\n(.*?)^```", PAGES[page], re.MULTILINE | re.DOTALL)
    return [text for language, text in found if language in languages]


def lines_of(block: str) -> list[str]:
    """Return the commands of a block, those over several lines as one."""
    return [line for line in block.replace("\\\n", " ").splitlines() if line and not line.startswith("#")]


def commands_in(line: str) -> list[list[str]]:
    """Return the ``runner`` commands in a line of shell, as words without redirections.

    >>> commands_in("0 3 * * * cd x && /opt/bin/runner run a.yaml >a.json 2>>b | cat")
    [['run', 'a.yaml']]
    """
    found = []
    for part in re.split(r"&&|\|\||[;|()]", line):
        words = shlex.split(re.sub(r"\d?>>?\s*\S+", "", part), comments=True)
        words = words[1:] if words[:1] == ["while"] else words
        if words and os.path.basename(words[0]) == "runner":
            found.append(words[1:])
    return found


def anchors(page: str) -> set[str]:
    """Return what the headings of a page are linked by."""
    found: dict[str, int] = {}
    names = set()
    for title in re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", page, flags=re.MULTILINE | re.DOTALL), re.M):
        name = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        count = found[name] = found.get(name, -1) + 1
        names.add(f"{name}-{count}" if count else name)
    return names


def script() -> ModuleType:
    """Return scripts/write_docs.py as a module."""
    spec = importlib.util.spec_from_file_location("write_docs", REPOSITORY / "scripts" / "write_docs.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def four() -> Iterator[list[ScriptedServer]]:
    """Four servers that stay for all guides."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(ScriptedServer()) for _ in range(4)]


class Reader:
    """Does what a guide says, in a folder with a config, a list and images."""

    def __init__(self, servers: list[ScriptedServer], folder: Path) -> None:
        self._replaced = {f":{10006 + number}": f":{server.port}" for number, server in enumerate(servers)}
        self._replaced["https://example.com/"] = f"{servers[0].url}/images/"
        self._replaced["s3://bucket/"] = f"file://{folder}/bucket/"
        urls = "".join(f"  - {server.url}\n" for server in servers)
        (folder / "run.yaml").write_text(f"endpoints:\n{urls}prompts: prompts.txt\noutput_folder: results\n")
        shutil.copy(folder / "run.yaml", folder / "runner.yaml")
        (folder / "prompts.txt").write_text("".join(f"{servers[0].image(name)}\n" for name in "abcdef"))
        (folder / "images").mkdir()
        (folder / "images" / "chair.png").write_bytes(IMAGE)
        (folder / "bin").mkdir()
        shim = folder / "bin" / "runner"
        shim.write_text(f'#!/bin/sh\nexec {sys.executable} -m runner "$@"\n')
        shim.chmod(0o755)

    def adapted(self, text: str) -> str:
        for old, new in self._replaced.items():
            text = text.replace(old, new)
        return text

    def do(self, line: str) -> None:
        """Run a line of shell; it must end with 0, or as its comment says: ``# exit 1``."""
        line = self.adapted(line)
        expected = int((re.search(r"# exit (\d+)", line) or [0, 0])[1])
        plain = re.fullmatch(r"runner ([^|&;<>()#]*)(?:> (\S+))?\s*(?:#.*)?", line)
        if plain:
            said = io.StringIO()
            with contextlib.redirect_stdout(said):
                code = main(shlex.split(plain[1]))
            if plain[2]:
                Path(plain[2]).expanduser().write_text(said.getvalue())
        else:
            code = subprocess.run(["bash", "-c", line], timeout=60).returncode
        assert code == expected, line


@pytest.fixture
def reader(four: list[ScriptedServer], here: Path, monkeypatch: pytest.MonkeyPatch) -> Reader:
    monkeypatch.setenv("HOME", str(here))
    monkeypatch.setenv("PATH", f"{here / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    return Reader(four, here)


@pytest.mark.parametrize(
    ("page", "block"), [(page, block) for page in PAGES for block in blocks(page, "sh")], ids=lambda text: text[:40]
)
def test_the_commands_of_the_guides_work(page: str, block: str, reader: Reader) -> None:
    for line in lines_of(block):
        reader.do(line)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")])
def test_the_python_of_the_guides_works(
    page: str, reader: Reader, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names: dict[str, object] = {}
    for block in blocks(page, "python"):
        exec(compile(reader.adapted(block), page, "exec"), names)
    if page == "python.md":
        said = capsys.readouterr().out
        assert "6 0 True" in said and "enough" in said and "retry.attempts: expected an integer ≥ 1, got 0" in said
        assert sorted(file.name for file in (here / "chairs").glob("*.ply")) == [
            "chair.ply",
            "stool.ply",
            "table.ply",
        ]


def test_the_configs_of_the_guides_are_valid(here: Path) -> None:
    (here / "prompts.txt").write_text("http://127.0.0.1/a.png\n")
    found = [
        block
        for page in ("multi-port.md", "migrating.md", "troubleshooting.md", "scaling.md")
        for block in blocks(page, "yaml")
    ]
    for block in found:
        (here / "run.yaml").write_text(block)
        load_config("run.yaml")
    assert len(found) >= 2


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze here")
def test_the_systemd_unit_of_a_server_is_valid(here: Path) -> None:
    (unit,) = blocks("multi-port.md", "ini")
    (here / "generation@10008.service").write_text(unit)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "./generation@10008.service"], capture_output=True, text=True
    )
    assert done.returncode == 0 and "generation@" not in done.stderr, done.stderr


def test_the_variables_of_the_start_script_are_its_own() -> None:
    named = re.findall(r"^\| `([A-Z_]+)` \|", PAGES["multi-port.md"], re.MULTILINE)
    read = re.findall(r"\$\{([A-Z_]+):-", (REPOSITORY / "scripts" / "start_multi_port.sh").read_text())
    assert sorted(named) == sorted({*read} - {"PYTHON"})


@pytest.mark.parametrize("page", PAGES)
def test_every_command_that_is_named_is_one_that_the_parser_takes(
    page: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = [line for block in blocks(page, "sh", "console") for line in lines_of(block)]
    inline = re.findall(r"`(runner [^`]+)`", re.sub(r"^```.*?^```", "", PAGES[page], flags=re.MULTILINE | re.DOTALL))
    named = [words for line in inline for words in commands_in(line)]
    bare = {words[0] for words in named if len(words) == 1} - {"COMMAND", "--version", "--help"}
    assert all(word in commands_of(build_parser()) for word in bare), bare
    whole = [words for words in named if len(words) > 1 and words[0] != "COMMAND"]
    for words in [*whole, *(words for line in shown for words in commands_in(line))]:
        try:
            build_parser().parse_args(words)
        except SystemExit as end:
            assert end.code == 0, f"{' '.join(words)}: {capsys.readouterr().err}"


@pytest.mark.parametrize("page", PAGES)
def test_every_target_and_script_that_is_named_exists(page: str) -> None:
    targets = re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    code = [*blocks(page, "sh", "console"), *re.findall(r"`([^`\n]+)`", PAGES[page])]
    for target in re.findall(r"\bmake ([a-z][a-z-]+)", "\n".join(code)):
        assert target in targets, target
    for path in re.findall(r"\b((?:scripts|configs|tests|benchmarks)/[\w./-]*\w)", "\n".join(code)):
        assert (REPOSITORY / path).exists() or path == "benchmarks/out", path


@pytest.mark.parametrize("page", [*PAGES, "../README.md"])
def test_every_link_leads_somewhere(page: str) -> None:
    text = (DOCS / page).read_text()
    for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)):
        if link.startswith("http"):
            continue
        path, _, anchor = link.partition("#")
        target = (DOCS / page).parent / path if path else DOCS / page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text()), link


def test_the_symptoms_are_what_the_code_says() -> None:
    said = "\n".join(text for file in (REPOSITORY / "runner").rglob("*.py") for text in texts_of(file))
    symptoms = re.findall(r"^### (.*)$", PAGES["troubleshooting.md"], re.MULTILINE)
    assert len(symptoms) >= 15
    for quoted in [quoted for symptom in symptoms for quoted in re.findall(r"`([^`]+)`", symptom)]:
        for piece in re.split(r"…|\d+|; |: ", quoted):
            assert piece.strip() in said or piece in OF_OTHERS, quoted


def texts_of(file: Path) -> Iterator[str]:
    """Yield the texts in a module; what is filled in is a line end."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "\n" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield re.sub(r"%(\.\d)?[sdf]", "\n", node.value)


def test_the_references_are_what_the_code_says_now() -> None:
    for name, write in script().PAGES.items():
        assert PAGES[name] == write(), f"docs/{name} is out of date: run make docs"


def test_the_reference_names_every_option_and_says_what_it_does() -> None:
    rows = re.findall(r"^\| `([\w.\[\]]+)` \| (.*) \| (.*?) ?\| (.*) \|$", PAGES["reference.md"], re.MULTILINE)
    found = {name: (kind, default, meaning) for name, kind, default, meaning in rows}
    assert found["retry.backoff_s"] == (
        "seconds ≥ 0", "`1.5`", "Wait before the second attempt; doubles each time."
    )  # fmt: skip
    assert found["endpoints[].slots"][:2] == ("an integer ≥ 1 and ≤ 1024", "`1`")
    assert found["max_failures"][0] == "an integer ≥ 1" and found["endpoints"][1] == "**required**"
    assert len(found) > 100
    for name, (kind, _, meaning) in found.items():
        assert kind and meaning, name


def test_the_quick_reference_is_one_page() -> None:
    assert len(PAGES["quick-reference.md"].splitlines()) <= 70
