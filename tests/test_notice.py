"""How a run ended is told to real commands and a real webhook on loopback."""

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme
from proxy import ForwardProxy

from runner import client, notice, report
from runner.notice import command, notify, webhook
from runner.records import Failure, Summary
from runner.redact import Redactor
from runner.settings import Notify

GOOD = Summary(10, 8, 2, 0, 0, 61.5, "results")
BAD = Summary(
    10, 6, 2, 2, 0, 61.5, "results",
    failures=tuple(Failure(f"chair-{number}", number, "p", "gpu-0", 3, "status 500") for number in range(2)),
)  # fmt: skip
WINDOW = Summary(10, 6, 2, 0, 2, 61.5, "results", stopped="window")
DOWN = Summary(10, 6, 2, 0, 2, 61.5, "results", stopped="down")


class Webhook:
    """Notes what is POSTed, and answers by ``statuses``, then 200; a status of None hangs."""

    def __init__(self, certificate: trustme.LeafCert | None = None) -> None:
        self.statuses: list[int | None] = []
        self.bodies: list[Any] = []
        self.headers: list[dict[str, str]] = []
        self.over = threading.Event()
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                hook.headers.append(dict(self.headers.items()))
                hook.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                status = hook.statuses.pop(0) if hook.statuses else 200
                if status is None:
                    hook.over.wait(30)
                    return
                self.send_response(status)
                if 300 <= status < 400:
                    self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                pass  # a client that does not trust us

        self._http = Server(("127.0.0.1", 0), Handler)
        if certificate:
            import ssl

            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            certificate.configure_cert(context)
            self._http.socket = context.wrap_socket(self._http.socket, server_side=True)
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        scheme = "https" if certificate else "http"
        self.url = f"{scheme}://127.0.0.1:{self._http.server_port}/hooks/T0/verysecretpath"

    def close(self) -> None:
        self.over.set()
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture
def hook() -> Iterator[Webhook]:
    one = Webhook()
    yield one
    one.close()


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "PAUSES_S", (0.0, 0.0))


def tell(summary: Summary, exit_code: int | None = None, *, redact=str, folder: Path | None = None, **settings: Any):
    code = summary.exit_code if exit_code is None else exit_code
    return notify(Notify(**settings), summary, exit_code=code, name="run.yaml", redact=redact, folder=folder)


@pytest.mark.parametrize(
    ("summary", "exit_code", "due"),
    [
        (GOOD, 0, False),
        (BAD, 1, True),
        (WINDOW, 75, False),
        (DOWN, 75, True),
        (Summary(0, 0, 0, 0, 0, 0.0, "", error="another run holds results"), 75, True),
        (Summary(0, 0, 0, 0, 0, 0.0, "", error="no such file"), 2, True),
        (Summary(2, 0, 0, 1, 1, 0.0, "", stopped="window"), 1, True),
    ],
)
def test_a_failure_is_told_and_neither_success_nor_a_window_that_is_over(
    hook: Webhook, summary: Summary, exit_code: int, due: bool
) -> None:
    assert tell(summary, exit_code, url=hook.url) == []
    assert len(hook.bodies) == due
    assert tell(summary, exit_code, url=hook.url, when="always") == []
    assert len(hook.bodies) == due + 1


def test_the_message_is_the_answer_and_what_one_must_know_elsewhere(hook: Webhook) -> None:
    assert tell(BAD, url=hook.url) == []
    (told,) = hook.bodies
    answer = json.loads(report.answer_json(BAD))
    assert {name: told[name] for name in answer} == answer
    assert told["exit_code"] == 1 and told["config"] == "run.yaml" and told["host"] == socket.gethostname()
    assert told["text"] == f"run.yaml on {socket.gethostname()}: {report.verdict(BAD)}"
    assert told["failures"] == [
        {"key": f"chair-{number}", "endpoint": "gpu-0", "error": "status 500"} for number in range(2)
    ]
    assert hook.headers[0]["Content-Type"] == "application/json"


def test_the_message_names_at_most_twenty_failures_and_no_secret_and_is_utf_8() -> None:
    name = os.fsdecode(b"caf\xe9")
    failures = tuple(Failure(name, number, "p", "gpu-0", 1, "got hunter2hunter2") for number in range(30))
    many = Summary(30, 0, 0, 30, 0, 1.0, name, failures=failures)
    redact = Redactor({"TOKEN": "hunter2hunter2"}).text
    told = notice.message(many, exit_code=1, name="run.yaml", redact=redact)
    assert len(told["failures"]) == 20
    text = json.dumps(told, ensure_ascii=False).encode().decode()
    assert "hunter2" not in text and "got ${TOKEN}" in told["text"] and told["output_folder"] == "caf\\udce9"


def test_headers_of_the_config_are_sent_and_may_name_another_type(hook: Webhook) -> None:
    assert tell(BAD, url=hook.url, headers={"Authorization": "Bearer x", "content-type": "text/json"}) == []
    sent = {name.lower(): text for name, text in hook.headers[0].items()}
    assert sent["authorization"] == "Bearer x" and sent["content-type"] == "text/json"
    assert len(sent) == len(hook.headers[0])


@pytest.mark.parametrize(
    ("statuses", "asked", "said"),
    [
        ([204], 1, None),
        ([500, 503, 201], 3, None),
        ([500, 500, 500, 200], 3, "notify: 127.0.0.1 answers 500"),
        ([404, 200], 1, "notify: 127.0.0.1 answers 404"),
        ([302, 200], 1, "notify: 127.0.0.1 answers 302 (redirects are not followed)"),
    ],
)
def test_a_webhook_is_asked_again_only_if_that_may_help(
    hook: Webhook, statuses: list[int | None], asked: int, said: str | None
) -> None:
    hook.statuses = statuses
    assert tell(BAD, url=hook.url) == ([said] if said else [])
    assert len(hook.bodies) == asked


def test_a_webhook_that_refuses_connections_is_tried_three_times(hook: Webhook, monkeypatch) -> None:
    hook.close()
    tries = []
    monkeypatch.setattr(webhook, "post", lambda *all, **named: (tries.append(1), client.post(*all, **named))[1])
    assert tell(BAD, url=hook.url) == ["notify: 127.0.0.1: Connection refused"]
    assert len(tries) == 3


def test_a_webhook_that_hangs_costs_timeout_s_with_all_tries(hook: Webhook) -> None:
    hook.statuses = [500, None]
    begun = time.monotonic()
    (problem,) = tell(BAD, url=hook.url, timeout_s=0.4)
    assert problem.startswith("notify: 127.0.0.1: no answer within 0.") and len(hook.bodies) == 2
    assert time.monotonic() - begun < 2


def test_what_is_left_of_timeout_s_is_for_the_next_try(hook: Webhook, monkeypatch) -> None:
    given = []

    def refuse(*_: object, timeout_s: float) -> int:
        given.append(timeout_s)
        return 500

    monkeypatch.setattr(webhook, "PAUSES_S", (0.02, 0.02))
    monkeypatch.setattr(webhook, "post", refuse)
    tell(BAD, url=hook.url, timeout_s=9)
    assert 9 >= given[0] > given[1] + 0.01 > given[2] + 0.02


def test_there_is_no_pause_that_would_outlast_timeout_s(hook: Webhook, monkeypatch) -> None:
    monkeypatch.setattr(webhook, "PAUSES_S", (60.0, 60.0))
    hook.statuses = [500]
    assert tell(BAD, url=hook.url, timeout_s=5) == ["notify: 127.0.0.1 answers 500"]


def test_a_certificate_that_nobody_vouches_for_is_refused(monkeypatch, tmp_path: Path) -> None:
    authority = trustme.CA()
    hook = Webhook(authority.issue_cert("127.0.0.1"))
    try:
        (problem,) = tell(BAD, url=hook.url)
        assert problem.startswith("notify: 127.0.0.1: ") and "certificate verify failed" in problem
        authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
        assert tell(BAD, url=hook.url) == []
    finally:
        hook.close()


def test_a_webhook_is_reached_through_the_proxy_of_the_environment(hook: Webhook, monkeypatch) -> None:
    with ForwardProxy() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        assert tell(BAD, url=hook.url) == []
        assert len(proxy.asked) == 1 and len(hook.bodies) == 1


@pytest.mark.parametrize("host", ["127.0.0.1:1", "no-such-host.invalid", "127.0.0.1:1,2"])
def test_no_problem_shows_what_is_secret_in_a_webhook(host: str) -> None:
    url = f"http://me:passw0rd@{host}/hooks/verysecretpath?token=hunter2hunter2"
    (problem,) = tell(BAD, url=url, headers={"Authorization": "Bearer abcdefghi"}, timeout_s=5)
    assert problem.startswith("notify: ")
    for secret in ("passw0rd", "verysecret", "hunter2", "abcdefghi", "hooks"):
        assert secret not in problem


def test_a_command_gets_the_message_on_stdin_and_the_gist_in_its_environment(tmp_path: Path) -> None:
    said = tell(BAD, command='cat > told.json; env | grep "^RUNNER_" > told.env; printf x >&2', folder=tmp_path)
    assert said == []
    told = json.loads((tmp_path / "told.json").read_text())
    assert told["failed"] == 2 and told["exit_code"] == 1
    assert set((tmp_path / "told.env").read_text().splitlines()) >= {
        "RUNNER_SUCCESS=false", "RUNNER_EXIT_CODE=1", f"RUNNER_TEXT={told['text']}", "RUNNER_SAVED=6",
        "RUNNER_FAILED=2", "RUNNER_PENDING=0", "RUNNER_OUTPUT_FOLDER=results",
    }  # fmt: skip


def test_a_list_of_words_is_run_as_it_is(tmp_path: Path) -> None:
    assert tell(BAD, command=["touch", "a b", "$HOME;x"], folder=tmp_path) == []
    assert sorted(os.listdir(tmp_path)) == ["$HOME;x", "a b"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["no-such-command"], "the command can't be started: No such file or directory"),
        (["/"], "the command can't be started: Permission denied"),
        ("echo one; echo 'it broke' >&2; echo; exit 3", "the command ended with exit code 3: it broke"),
        ("printf 'a\\033[31mb'; exit 1", "the command ended with exit code 1: a?[31mb"),
        ("exit 4", "the command ended with exit code 4"),
        ("kill -9 $$", "the command was killed by SIGKILL"),
        ("echo hunter2hunter2; exit 1", "the command ended with exit code 1: ${TOKEN}"),
    ],
)
def test_a_command_that_fails_is_a_problem_with_its_last_line(given: str | list[str], said: str) -> None:
    assert tell(BAD, command=given, redact=Redactor({"TOKEN": "hunter2hunter2"}).text) == [f"notify: {said}"]


def test_a_shell_that_finds_no_command_says_so() -> None:
    (problem,) = tell(BAD, command="no-such-command")
    assert problem.startswith("notify: the command ended with exit code 127: ") and "not found" in problem


def test_a_command_that_takes_too_long_is_killed_with_all_its_children(tmp_path: Path) -> None:
    begun = time.monotonic()
    said = tell(BAD, command="sleep 60 & echo $! > child; wait", folder=tmp_path, timeout_s=0.3)
    assert said == ["notify: the command took longer than timeout_s (0.3 s) and was killed"]
    assert time.monotonic() - begun < 5
    child = int((tmp_path / "child").read_text())
    until = time.monotonic() + 5
    while is_running(child) and time.monotonic() < until:
        time.sleep(0.01)
    assert not is_running(child)


def is_running(pid: int) -> bool:
    """Tell whether a process lives; a dead one may be listed until its new parent looks."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_command_that_reads_nothing_is_none_the_worse() -> None:
    failures = tuple(Failure("k" * 200, number, "p", "gpu-0", 1, "x" * 20_000) for number in range(20))
    large = Summary(20, 0, 0, 20, 0, 1.0, "results", failures=failures)
    assert len(json.dumps(notice.message(large, exit_code=1, name="", redact=str))) > 300_000
    assert tell(large, command="exec true") == []
    assert tell(large, command='test "$(wc -c)" -gt 300000') == []


def test_a_huge_output_fills_no_memory(monkeypatch) -> None:
    kept = []
    tail = command._Tail
    monkeypatch.setattr(command, "_Tail", lambda output: kept.append(tail(output)) or kept[-1])
    (problem,) = tell(BAD, command="head -c 30000000 /dev/zero; echo; echo the end; exit 1")
    assert problem == "notify: the command ended with exit code 1: the end"
    assert len(kept[0]._tail) <= 8192


def test_what_a_command_leaves_in_the_background_is_not_waited_for(tmp_path: Path) -> None:
    begun = time.monotonic()
    (problem,) = tell(BAD, command="sleep 3 & echo gone; exit 1", timeout_s=30)
    assert problem.endswith("exit code 1: gone")
    assert time.monotonic() - begun < 2.5


def test_nothing_of_a_command_gets_onto_our_streams(capfd) -> None:
    tell(BAD, command="echo out; echo err >&2; exit 1")
    assert capfd.readouterr() == ("", "")


def test_an_environment_holds_a_text_of_any_kind_and_length(tmp_path: Path) -> None:
    odd = Summary(1, 0, 0, 1, 0, 1.0, "results", error="a\0b\nc " + "x" * 500_000)
    assert tell(odd, command='printf %s "$RUNNER_TEXT" > text', folder=tmp_path) == []
    assert 3000 < len((tmp_path / "text").read_text()) < 5000


def test_both_are_told_even_if_one_fails_and_neither_is_no_problem(hook: Webhook) -> None:
    assert tell(BAD, command="exit 1", url=hook.url) == ["notify: the command ended with exit code 1"]
    assert len(hook.bodies) == 1
    assert tell(BAD) == []
