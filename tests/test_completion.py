"""What TAB gives in real shells, and whether ``--help`` says all it should."""

import os
import pty
import re
import select
import shlex
import shutil
import subprocess
import sys
import time
from argparse import SUPPRESS, ArgumentParser
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import REPOSITORY

from runner.cli import main
from runner.cli.parser import arguments_of, build_parser, commands_of
from runner.protocols import presets

COMMANDS = sorted(commands_of(build_parser()))
ASKED = {
    "runner sta": "status",
    "runner protocols comf": "comfyui",
    "runner completion z": "zsh",
    "runner run --seed 4 --prompts": "--prompts-file",
    "runner run night": "nightly.yaml",
    "runner run nightly.yaml --log-file night": "nightly.yaml",
    "runner status res": "results",
    "runner status --missing-file night": "nightly.yaml",
}
"""What is typed before TAB → what must be there after it."""

Script = Callable[[str], Path]


@pytest.fixture
def script(here: Path, capsys: pytest.CaptureFixture[str]) -> Script:
    """Writes a shell's completion script, beside a file and a folder to complete; skips if there is no such shell."""

    def write(shell: str) -> Path:
        if not shutil.which(shell) and shell != "bash":
            pytest.skip(f"no {shell} here")
        (here / "nightly.yaml").touch()
        (here / "results").mkdir()
        (here / "results.json").touch()  # no folder
        assert main(["completion", shell]) == 0
        (here / "_runner").write_text(capsys.readouterr().out)
        return here / "_runner"

    return write


def test_bash_completes_commands_flags_choices_files_and_folders(script: Script) -> None:
    lines = [
        f"source {script('bash')}",
        "completer=$(complete -p runner | sed 's/.*-F \\([^ ]*\\).*/\\1/')",
        'ask() { COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=(); "$completer" runner "${@: -1}" "${@: -2:1}"',
        '        echo "${COMPREPLY[*]}"; }',
        *(f"ask {typed}" for typed in ASKED),
    ]
    done = subprocess.run(["bash", "-c", "\n".join(lines)], capture_output=True, text=True, timeout=20)
    assert done.stdout.split() == list(ASKED.values()), done.stderr


def test_fish_completes_commands_flags_choices_files_and_folders(script: Script) -> None:
    asking = [f"complete -C{shlex.quote(typed)}" for typed in ASKED]
    lines = [f"source {script('fish')}", *asking]
    done = subprocess.run(["fish", "--no-config", "-c", "\n".join(lines)], capture_output=True, text=True, timeout=20)
    found = [line.partition("\t")[0].rstrip("/") for line in done.stdout.splitlines()]
    assert found == list(ASKED.values()), done.stderr


def test_zsh_completes_commands_flags_choices_files_and_folders(script: Script) -> None:
    folder = script("zsh").parent
    begin = f"PS1='> '; fpath=({folder} $fpath); autoload -U compinit; compinit -u -D; echo rea''dy"
    with _Terminal(["zsh", "-f", "-i"]) as zsh:
        zsh.type(f"{begin}\n")
        zsh.wait_for("ready")
        for typed, expected in ASKED.items():
            zsh.type(f"{typed}\t")
            zsh.wait_for(f"{typed.rpartition(' ')[0]} {expected}")
            zsh.type("\x15")  # empties the line


def test_completion_starts_no_python_at_tab(capsys: pytest.CaptureFixture[str]) -> None:
    for shell in ("bash", "zsh", "fish"):
        assert main(["completion", shell]) == 0
        said = capsys.readouterr().out
        assert "python" not in said.lower() and str(REPOSITORY) not in said


def test_without_the_extra_completion_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "bash"]) == 2
    said = capsys.readouterr()
    assert said.out == "" and "pip install 'multiport-runner[completion]'" in said.err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_whole_page(command: str) -> None:
    parser = commands_of(build_parser())[command]
    assert parser.description and parser.description[0].isupper() and parser.description.endswith(".\n")
    titles = re.findall(r"^([a-z ]+):$", parser.epilog or "", re.MULTILINE)
    order = ["files", "exit status", "environment", "examples", "see also"]
    assert titles == [title for title in order if title in titles]
    assert {"exit status", "examples", "see also"} <= {*titles}
    for line in [*parser.description.splitlines(), *parser.epilog.splitlines(), f"usage: {parser.usage}"]:
        assert len(line) <= 80, line
    for page in re.findall(r"docs/[\w-]+\.md", parser.epilog):
        assert (REPOSITORY / page).exists(), page


@pytest.mark.parametrize("command", COMMANDS)
def test_every_flag_says_what_it_does_and_its_default(command: str) -> None:
    for argument in arguments_of(commands_of(build_parser())[command]):
        assert argument.help, argument
        takes_a_value = argument.option_strings and argument.nargs != 0
        if takes_a_value or argument.nargs == "?":
            assert "(default: " in argument.help or "(required)" in argument.help, argument
        if takes_a_value and isinstance(argument.default, int | float | str) and argument.default != SUPPRESS:
            shown = argument.default if isinstance(argument.default, str) else f"{argument.default:g}"
            assert f"(default: {shown}" in argument.help, argument


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_every_example_is_one_that_the_parser_takes(command: str) -> None:
    parser = commands_of(build_parser())[command] if command else build_parser()
    examples = examples_of(parser)
    assert examples
    for words in examples:
        assert words[0] == "runner" and (not command or words[1] == command)
        arguments = build_parser().parse_args(words[1:])
        assert arguments.command in COMMANDS


def test_a_wrong_preset_is_still_told_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bash"]) == 0
    assert f"protocols_pos_0_choices=({' '.join(presets.names())})" in capsys.readouterr().out
    assert main(["protocols", "comfy"]) == 2
    assert "did you mean 'comfyui'?" in capsys.readouterr().err


def examples_of(parser: ArgumentParser) -> list[list[str]]:
    """Return the commands under ``examples:``, without pipes and redirections."""
    block = (parser.epilog or "").partition("examples:\n")[2].partition("\n\n")[0].replace("\\\n", " ")
    found = []
    for line in block.splitlines():
        words = shlex.split(line)
        words = words[words.index("runner") :]
        found.append(words[: words.index(">")] if ">" in words else words)
    return found


class _Terminal:
    """A program on a terminal of its own."""

    def __init__(self, command: list[str]) -> None:
        ours, theirs = pty.openpty()
        self._screen = ours
        environment = {**os.environ, "TERM": "dumb", "HOME": os.getcwd()}
        self._process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, env=environment
        )
        os.close(theirs)

    def __enter__(self) -> "_Terminal":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._screen)

    def type(self, text: str) -> None:
        os.write(self._screen, text.encode())

    def wait_for(self, text: str, timeout_s: float = 15.0) -> None:
        """Read until the text stands there; what came before it is forgotten."""
        shown, deadline = "", time.monotonic() + timeout_s
        while text not in shown:
            ready, _, _ = select.select([self._screen], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"{text!r} never came, but {shown!r}"
            shown += os.read(self._screen, 4096).decode(errors="replace")
