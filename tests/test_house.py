"""The plan of the house: what imports what, and what appears in one room only."""

import ast
import functools
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

PACKAGE = REPOSITORY / "runner"
ORDER = (
    "version extras errors shards headers records clock deadline stop redact sections yamlfile formats protocols "
    "settings mistakes prompts lanes retry client health recognition storage ledger remote resume limits schedule "
    "engine report access watching config progress worker journal metrics notice lists trail mirror batch traces "
    "belongings verification pruning status chronicle pictures page reporting onlookers runs monitor generator cli"
).split()
"""From the ground up: a room imports only rooms before it."""


def room_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def modules() -> list[Path]:
    return [file for file in sorted(PACKAGE.rglob("*.py")) if room_of(file) not in ("__init__", "__main__")]


@functools.cache
def tree_of(file: Path) -> ast.Module:
    return ast.parse(file.read_text())


@functools.cache
def imports_of(file: Path) -> frozenset[str]:
    """Return every module a file imports, wherever the statement stands, as dotted names."""
    found = set()
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{name.name}" for name in node.names}
    return frozenset(found)


@pytest.mark.parametrize("file", modules(), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_point_one_way_downwards(file: Path) -> None:
    used = {name.split(".")[1] for name in imports_of(file) if name.startswith("runner.")}
    room = room_of(file)
    if room == "server":
        assert used <= {"server"}
        return
    allowed = {*ORDER[: ORDER.index(room)], room}
    assert used <= allowed | ({"server"} if room == "cli" else set())


@pytest.mark.parametrize(
    ("library", "rooms"),
    [("requests", "client"), ("urllib3", "client"), ("yaml", "yamlfile"), ("tqdm", "cli"), ("argparse", "cli"),
     ("fastapi", "server"), ("uvicorn", "server"), ("numpy", "server pictures"), ("PIL", "server pictures"),
     ("fcntl", "ledger"), ("resource", "limits"), ("multiprocessing", "engine"), ("zstandard", "formats"),
     ("prometheus_client", "metrics"), ("fsspec", "remote"), ("aiobotocore", "remote"),
     ("distributed", "engine"), ("dask", "engine")],
)  # fmt: skip
def test_a_library_lives_in_its_rooms(library: str, rooms: str) -> None:
    users = {room_of(file) for file in modules() for name in imports_of(file) if name.split(".")[0] == library}
    assert users == {*rooms.split()}


def test_only_the_command_line_and_the_server_print() -> None:
    calls = [(room_of(file), node) for file in modules() for node in ast.walk(tree_of(file))]
    printing = {
        room
        for room, node in calls
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    }
    assert printing == {"cli", "server"}


def test_every_room_says_what_it_is_for() -> None:
    for file in modules():
        docstring = ast.get_docstring(tree_of(file))
        assert docstring and docstring.splitlines()[0].endswith((".", "?", ")")), file


def test_help_imports_nothing_heavy(environment: dict[str, str]) -> None:
    code = "import sys; from runner.cli import main; main(['--help']); print(sorted(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.startswith("usage: runner")
    for heavy in ("pydantic", "requests", "yaml", "tqdm", "concurrent.futures", "zstandard"):
        assert f"'{heavy}'" not in done.stderr


def test_the_doctests_are_true() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--doctest-modules", "--ignore=runner/server", "runner"],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
    )
    assert done.returncode == 0, done.stdout
    assert int(re.search(r"(\d+) passed", done.stdout).group(1)) >= 10


def test_the_readme_names_only_what_is_there() -> None:
    readme = (REPOSITORY / "README.md").read_text()
    for link in re.findall(r"\]\(([^)#]+)\)", readme):
        assert (REPOSITORY / link).exists(), link
    targets = re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    for target in re.findall(r"make ([a-z-]+)", readme):
        assert target in targets or target in ("to",), target


def test_make_help_lists_every_target() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    phony = re.search(r"\.PHONY: (.*)", makefile).group(1).split()
    shown = subprocess.run(["make", "help"], capture_output=True, text=True, cwd=REPOSITORY).stdout
    for target in phony:
        assert re.search(rf"make {target}\s", shown), target
