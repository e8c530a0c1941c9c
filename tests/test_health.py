import json
import socket

import pytest
from server import Answer, ScriptedServer

from runner.client import Client
from runner.health import Breaker, probe
from runner.protocols import Block, Protocol, preset, presets
from runner.records import Endpoint
from runner.settings import Health, Timeouts


def breaker(**policy: float) -> Breaker:
    return Breaker(Health(**policy))


def test_an_endpoint_goes_out_with_so_many_failures_in_a_row() -> None:
    one = breaker(failures_to_open=3)
    assert [one.fail(0.0), one.fail(0.0)] == [False, False]
    one.succeed()
    assert [one.fail(1.0), one.fail(1.0), one.takes(1.0), one.fail(2.0)] == [False, False, True, True]
    assert one.state == "out" and not one.takes(1e9)


def test_a_failure_that_is_likely_the_prompts_does_not_count() -> None:
    one = breaker(failures_to_open=1)
    assert one.fail(0.0, counts=False) is False
    assert one.takes(0.0)


def test_probes_come_soon_at_first_and_never_rarer_than_probe_every_s() -> None:
    one = breaker(failures_to_open=1, probe_every_s=15)
    one.fail(100.0)
    now, waits = 100.0, []
    for _ in range(7):
        waits.append(one.probe_at - now)
        now = one.probe_at
        one.probed(now, alive=False)
    assert waits == [1, 2, 4, 8, 15, 15, 15]


def test_a_good_probe_is_a_trial_and_a_success_brings_it_back() -> None:
    one = breaker(failures_to_open=1)
    one.fail(0.0)
    one.probed(1.0, alive=True)
    assert one.state == "trial" and not one.takes(1.0)
    assert one.succeed() is True
    assert one.takes(1.0)
    assert one.succeed() is False


def test_a_failed_trial_takes_it_out_again_and_the_next_is_no_sooner_than_probe_every_s() -> None:
    one = breaker(failures_to_open=1, probe_every_s=15)
    one.fail(0.0)
    waits = []
    for _ in range(4):
        one.probed(one.probe_at, alive=True)
        began = one.probe_at
        one.fail(began)
        waits.append(one.probe_at - began)
    assert waits == [15, 30, 30, 30]


def test_a_busy_endpoint_cools_for_as_long_as_it_says_or_for_growing_pauses() -> None:
    one = breaker()
    one.cool(0.0, 7.0)
    assert (one.takes(6.9), one.takes(7.0)) == (False, True)
    one = breaker()
    pauses = []
    for _ in range(7):
        one.cool(0.0, None)
        pauses.append(one.cool_until)
    assert pauses == [0.25, 0.5, 1.0, 2.0, 5.0, 5.0, 5.0]
    assert one.state == "in", "being busy takes nobody out"
    one.succeed()
    assert not one.takes(4.9), "that may have been asked of it before"
    one.cool(5.0, None)
    assert one.cool_until == 5.25, "the pauses begin anew"


def test_a_trial_that_finds_it_busy_is_repeated_when_it_has_cooled() -> None:
    one = breaker(failures_to_open=1)
    one.fail(0.0)
    one.probed(1.0, alive=True)
    one.cool(1.0, 3.0)
    assert (one.state, one.probe_at) == ("out", 4.0)


@pytest.mark.parametrize(
    ("answer", "healthy", "alive", "refused"),
    [
        (Answer(body=b'{"status": "healthy"}'), True, True, False),
        (Answer(body=b'{"status": "loading"}'), False, False, True),
        (Answer(body=b'{"status": "Warming up"}'), False, False, True),
        (Answer(body=b'{"status": "idle"}'), False, True, False),
        (Answer(body=b""), True, True, False),
        (Answer(status=404, body=b""), False, True, False),
        (Answer(status=503, body=b""), False, False, True),
        (Answer(reset=True), False, False, False),
    ],
)
def test_a_probe_tells_who_is_healthy_who_may_get_prompts_and_who_certainly_not(
    server: ScriptedServer, answer: Answer, healthy: bool, alive: bool, refused: bool
) -> None:
    server.script["/health"] = [answer]
    endpoint = Endpoint(0, server.url, "one", "port 1")
    found = probe(endpoint, preset("404-splat"), Client(endpoint, Timeouts(), connections=1))
    assert (found.healthy, found.alive, found.refused) == (healthy, alive, refused)


def test_a_server_that_is_down_is_an_answer_too() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        endpoint = Endpoint(0, f"http://127.0.0.1:{closed.getsockname()[1]}", "one", "port 1")
    found = probe(endpoint, preset("404-splat"), Client(endpoint, Timeouts(), connections=1))
    assert (found.status, found.alive, found.refused) == ("Connection refused", False, True)


def test_a_health_page_that_drips_is_left_in_time(server: ScriptedServer) -> None:
    server.script["/health"] = [Answer(drip_head_s=0.02)]
    endpoint = Endpoint(0, server.url, "one", "port 1")
    found = probe(endpoint, preset("404-splat"), Client(endpoint, Timeouts(), connections=1), timeout_s=0.2)
    assert not found.alive and "no answer within 0.2 s" in found.status


@pytest.mark.parametrize(
    ("protocol", "page", "busy", "queue"),
    [
        ("404-splat", {"status": "healthy"}, None, None),
        ("404-splat", {"status": "healthy", "is_busy": False, "pending": 2}, 0, 2),
        ("404-splat", {"in_flight": 3, "waiting": ["a", "b"]}, 3, 2),
        ("404-splat", {"busy": "no", "queue": -1, "queued": 1e300, "queue_length": "7"}, None, None),
        ("404-splat", [{"busy": True}], None, None),
        ("trellis", {"status": "running", "busy": True}, 1, None),
        ("cog", {"status": "BUSY"}, 1, None),
        ("cog", {"status": "READY"}, 0, None),
        ("a1111", {"state": {"job_count": 1}}, 1, None),
        ("runpod", {"jobs": {"inProgress": 2, "inQueue": 5}, "workers": {"idle": 0, "running": 2}}, 2, 5),
    ],
)
def test_a_health_page_may_say_how_many_generations_go_on_and_wait(
    server: ScriptedServer, protocol: str, page: object, busy: int | None, queue: int | None
) -> None:
    asked = preset(protocol)
    server.script[asked.block.health.path.partition("?")[0]] = [Answer(body=json.dumps(page).encode())]
    endpoint = Endpoint(0, server.url, "one", "port 1")
    found = probe(endpoint, asked, Client(endpoint, Timeouts(), connections=1))
    assert (found.busy, found.queue) == (busy, queue)


def test_a_protocol_names_where_its_health_page_says_so(server: ScriptedServer) -> None:
    page = {"busy": False, "exec_info": {"queue_remaining": 4}}
    server.script["/prompt"] = [Answer(body=json.dumps(page).encode())]
    block = {"preset": "comfyui", "health": {"path": "/prompt", "queue": "exec_info.queue_remaining"}}
    endpoint = Endpoint(0, server.url, "one", "port 1")
    asked = Protocol(Block.model_validate(presets.expanded(block)))
    found = probe(endpoint, asked, Client(endpoint, Timeouts(), connections=1))
    assert (found.busy, found.queue) == (0, 4)
