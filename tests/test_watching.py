"""The sections ``metrics`` and ``notify`` of a config: what is refused, and what is secret."""

import os
from pathlib import Path

import pytest
import yaml

from runner.config import Config, config_from, load_config
from runner.errors import UsageError

LEAST = "endpoints: [http://127.0.0.1:10006]\nprompts: prompts.txt\n"
NO_URL = (
    "notify.url: expected an http or https URL such as https://chat.example/hooks/1 (it may be secret: not shown)"
)
HOOK = "https://me:passw0rd@chat.example/hooks/T0/verysecretpath?token=hunter2hunter2"


@pytest.fixture
def load(tmp_path: Path) -> object:
    def write_and_load(text: str, **options: object) -> Config:
        (tmp_path / "run.yaml").write_text(LEAST + text)
        return load_config(tmp_path / "run.yaml", **options)

    return write_and_load


def problems(load, text: str, **options: object) -> list[str]:
    with pytest.raises(UsageError) as refused:
        load(text, **options)
    return [problem.partition("run.yaml: ")[2] for problem in refused.value.problems]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("metrics: {textfile: a.txt}", "metrics.textfile: expected a name that ends in .prom "
         "(node_exporter reads no others), got 'FOLDER/a.txt'"),
        ("metrics: {textfile: no/a.prom}", "metrics.textfile: expected a folder that exists, "
         "but FOLDER/no does not; make it, or name another"),
        ("metrics: {textfile: dir.prom}", "metrics.textfile: expected a file, but FOLDER/dir.prom is none"),
        ("metrics: {textfile: pipe.prom}", "metrics.textfile: expected a file, but FOLDER/pipe.prom is none"),
        ('metrics: {textfile: "a\\0b.prom"}', "metrics.textfile: expected a path, got 'FOLDER/a\\x00b.prom'"),
        ("metrics: {textfile: 5}", "metrics.textfile: expected a text, got 5"),
        ("metrics: {every_s: 0}", "metrics.every_s: expected a number > 0, got 0"),
        ("metrics: {file: a.prom}", "metrics.file: unknown key; did you mean 'textfile'?"),
        ("notify: {when: success}", "notify.when: expected 'failure' or 'always', got 'success'"),
        ("notify: {on: failure}", "notify: a key is no text (YAML reads on, off, yes and no as none); "
         "known are when, command, url, headers, timeout_s"),
        ("notify: {command: []}", "notify.command: expected a text for /bin/sh, or a list of words"),
        ("notify: {command: ''}", "notify.command: expected a text for /bin/sh, or a list of words"),
        ("notify: {command: {hunter2: 1}}", "notify.command: expected a text for /bin/sh, or a list of words"),
        ("notify: {command: [a, 5]}", "notify.command: expected a text for /bin/sh, or a list of words"),
        ("notify: {command: ' '}", "notify.command: expected a text for /bin/sh, or a list of words"),
        ('notify: {command: ["a\\0b"]}', "notify.command: it holds a NUL character, which no command can"),
        ("notify: {url: 'ftp://hunter2'}", NO_URL),
        ("notify: {url: 'http://h:hunter2'}", NO_URL),
        ("notify: {url: 'http://h/a b'}", NO_URL),
        ("notify: {url: [hunter2]}", "notify.url: expected a text, got a list"),
        ("notify: {url: http://h, headers: {'X Y': hunter2}}", "notify.headers: 'X Y' is no valid header (RFC 9110)"),
        ("notify: {url: http://h, headers: {X: [hunter2]}}", "notify.headers.X: expected a text, got a list"),
        ("notify: {timeout_s: -1}", "notify.timeout_s: expected a number > 0, got -1"),
        ("notify: hunter2", "notify: expected a mapping, got a text"),
    ],
)  # fmt: skip
def test_a_problem_is_said_with_its_place_and_without_what_may_be_secret(
    load, tmp_path: Path, text: str, said: str
) -> None:
    (tmp_path / "dir.prom").mkdir()
    os.mkfifo(tmp_path / "pipe.prom")
    assert problems(load, text) == [said.replace("FOLDER", str(tmp_path))]


def test_a_folder_that_may_not_be_written_is_said_before_anything_is_sent(load, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    said = f"metrics.textfile: expected a folder that this user may write to, but {tmp_path} is none"
    assert problems(load, "metrics: {textfile: a.prom}") == [said]


def test_metrics_without_their_library_name_the_extra(load, monkeypatch) -> None:
    monkeypatch.setattr("runner.extras.find_spec", lambda name: None)
    (said,) = problems(load, "metrics: {textfile: a.prom}")
    assert said == "metrics.textfile: it needs prometheus-client: pip install 'multiport-runner[metrics]'"


def test_the_textfile_is_relative_to_the_yaml(load, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir("/")
    config = load("metrics: {textfile: a.prom}")
    assert config.textfile == tmp_path / "a.prom"
    assert yaml.safe_load(config.resolved_yaml())["metrics"]["textfile"] == str(tmp_path / "a.prom")
    assert load("").textfile is None


@pytest.mark.parametrize("command", ["tell --token $SECRET", ["tell", "$SECRET"], "tell"])
def test_who_is_told_stands_in_no_resolved_config(load, command: str | list[str]) -> None:
    told = {"command": command, "url": HOOK, "headers": {"X-Any": "headervalue"}}
    resolved = load(yaml.safe_dump({"notify": told})).resolved_yaml()
    for secret in ("tell", "passw0rd", "verysecret", "hunter2", "headervalue", "chat.example"):
        assert secret not in resolved
    again = yaml.safe_load(resolved)["notify"]
    assert again == {"when": "failure", "command": None, "url": None, "headers": {}, "timeout_s": 30}


def test_what_a_variable_puts_there_and_all_of_a_webhook_is_kept_out_of_every_text(load) -> None:
    text = 'notify: {command: "tell ${ONE}", url: "https://${TWO}/x", headers: {X-Any: "${THREE} plainvalue"}}'
    values = {"ONE": "first-secret", "TWO": "second.secret", "THREE": "third-secret"}
    redact = load(text, environ=values).redactor.text
    assert redact("a first-secret second.secret third-secret plainvalue") == "a ${ONE} ${TWO} ${THREE} ***"
    redact = load(yaml.safe_dump({"notify": {"url": HOOK}})).redactor.text
    said = redact(f"{HOOK} | /hooks/T0/verysecretpath | passw0rd | hunter2hunter2 | verysecretpath")
    for secret in ("passw0rd", "verysecret", "hunter2"):
        assert secret not in said


def test_other_places_of_a_variable_are_no_secrets_for_all_that(load) -> None:
    text = 'output_folder: "${FOLDER}"\nnotify: {when: "${WHEN}", url: http://h/notify}\n'
    redact = load(text, environ={"FOLDER": "results-9", "WHEN": "always"}).redactor.text
    assert redact("results-9 always /notify http://h/notify") == "results-9 always /notify ***"


def test_a_flag_may_say_whom_to_tell() -> None:
    given = {"endpoints": ["http://h:1"], "prompts": ["p"], "notify": {"command": "true", "when": "always"}}
    assert config_from(given).settings.notify.command == "true"
