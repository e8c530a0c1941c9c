import io
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import responses
import trustme
from server import IMAGE, Answer, ScriptedServer, splat_ply

from runner.client import Client, WebClient
from runner.errors import BusyError, ImageError, ResultError, TransportError
from runner.protocols import Values, preset
from runner.records import Endpoint, Image, Prompt, Request
from runner.settings import Timeouts
from runner.stop import Fence


def generation_request(image: Image) -> Request:
    return preset("404-splat").generation(Values(Prompt(0, "chair"), 7, image))


REQUEST = generation_request(Image("chair.png", IMAGE, "0"))


def client_of(url: str, *, headers: dict[str, str] | None = None, **timeouts: float) -> Client:
    endpoint = Endpoint(0, url, "one", "port 1", headers=headers or {})
    return Client(endpoint, Timeouts(**timeouts), connections=2)


def body_of(client: Client, max_bytes: int = 10**9) -> tuple[bytes, str]:
    file = io.BytesIO()
    with client.send(client.prepare(REQUEST)) as answer:
        reply = answer.receive(file, max_bytes)
    assert reply.size_bytes == len(file.getvalue())
    return file.getvalue(), reply.sha256


def test_the_request_is_the_ancestors_multipart(server: ScriptedServer) -> None:
    body_of(client_of(server.url, headers={"Authorization": "Bearer x"}))
    (received,) = server.received
    assert received.fields == {"seed": "7", "file:prompt_image_file": "chair.png"}
    assert received.image == IMAGE
    assert received.headers["Authorization"] == "Bearer x"
    assert received.headers["User-Agent"].startswith("multiport-runner/")


@pytest.mark.parametrize("length", ["exact", "none", "chunked"])
def test_a_whole_body_arrives_whatever_tells_its_end(server: ScriptedServer, length: str) -> None:
    server.script["chair"] = [Answer(body=splat_ply(5000), length=length)]
    body, sha256 = body_of(client_of(server.url))
    assert body == splat_ply(5000)
    assert len(sha256) == 64


@pytest.mark.parametrize("length", ["exact", "chunked"])
def test_a_body_cut_short_of_its_announced_length_is_a_transport_error(server: ScriptedServer, length: str) -> None:
    server.script["chair"] = [Answer(body=splat_ply(5000), length=length, cut=100_001)]
    with pytest.raises(TransportError, match="the body was cut"):
        body_of(client_of(server.url))


def test_one_connection_serves_many_requests(server: ScriptedServer) -> None:
    client = client_of(server.url)
    for _ in range(5):
        body_of(client)
    assert server.connections == 1


def test_a_body_over_max_bytes_is_refused_while_it_arrives(server: ScriptedServer) -> None:
    with pytest.raises(ResultError, match=r"longer than output.max_bytes \(100\)"):
        body_of(client_of(server.url), max_bytes=100)


def test_a_refused_connection_says_so_and_may_be_tried_again() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    with pytest.raises(TransportError, match=f"http://127.0.0.1:{port}: Connection refused") as refused:
        body_of(client_of(f"http://127.0.0.1:{port}"))
    assert refused.value.again
    assert refused.value.blame == "endpoint"


def test_a_server_that_never_answers_is_left_after_first_byte_s(server: ScriptedServer) -> None:
    hold = threading.Event()
    server.script["chair"] = [Answer(hold=hold)]
    try:
        with pytest.raises(TransportError, match=r"no answer within first_byte_s \(0\.1 s\)"):
            body_of(client_of(server.url, first_byte_s=0.1))
    finally:
        hold.set()


@responses.activate
def test_a_redirect_is_an_answer_and_is_not_followed() -> None:
    responses.post("http://h:1/generate", status=302, headers={"Location": "http://elsewhere/"})
    client = client_of("http://h:1")
    with client.send(client.prepare(REQUEST)) as answer:
        assert answer.status == 302
    assert len(responses.calls) == 1


@responses.activate
def test_the_head_of_an_error_answer_is_short() -> None:
    responses.post("http://h:1/generate", status=500, body="x" * 100_000)
    client = client_of("http://h:1")
    with client.send(client.prepare(REQUEST)) as answer:
        assert answer.status == 500
        assert 0 < len(answer.head()) <= 4096


def test_a_hostile_image_name_injects_no_header(server: ScriptedServer) -> None:
    client = client_of(server.url)
    request = generation_request(Image('a"\r\nX-Evil: 1\r\n\r\n.png', IMAGE, "0"))
    with client.send(client.prepare(request)) as answer:
        assert answer.status == 200
    (received,) = server.received
    assert received.image == IMAGE
    assert "X-Evil" not in received.headers


def fetch(url: str, **timeouts: float) -> Image:
    return WebClient(Timeouts(**timeouts), connections=1).fetch(url)


def test_an_image_is_downloaded_through_redirects_and_named_by_its_url(server: ScriptedServer) -> None:
    server.script["images/old"] = [Answer(status=302, body=b"", headers={"Location": "/images/new.png"})]
    image = fetch(server.image("old"))
    assert image.content == IMAGE
    assert image.name == "old.png"
    assert server.images_asked == ["old", "new"]


@responses.activate
def test_a_redirect_to_a_local_file_is_refused() -> None:
    responses.get("http://h/a.png", status=302, headers={"Location": "file:///etc/passwd"})
    with pytest.raises(ImageError, match="image: "):
        fetch("http://h/a.png")


@pytest.mark.parametrize(("status", "again"), [(404, False), (403, False), (410, False), (429, True), (503, True)])
def test_an_image_that_is_not_there_is_the_prompts_fault(server: ScriptedServer, status: int, again: bool) -> None:
    server.script["images/a"] = [Answer(status=status, body=b"")]
    with pytest.raises(ImageError, match=f"answers {status}") as refused:
        fetch(server.image("a") + "?token=secret1")
    assert refused.value.again is again
    assert refused.value.blame == "prompt"
    assert "secret1" not in str(refused.value)


def test_an_empty_or_cut_image_may_be_asked_for_again(server: ScriptedServer) -> None:
    server.script["images/a"] = [Answer(body=b""), Answer(cut=20)]
    for said in ("is empty", "the body was cut"):
        with pytest.raises(ImageError, match=said) as refused:
            fetch(server.image("a"))
        assert refused.value.again


def test_the_environments_proxy_and_netrc_are_not_asked_for_an_endpoint(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert body_of(client_of(server.url))[0] == splat_ply()


def test_headers_that_drip_are_left_after_first_byte_s(server: ScriptedServer) -> None:
    server.script["chair"] = [Answer(drip_head_s=0.02)]
    with pytest.raises(TransportError, match=r"no answer within first_byte_s \(0\.2 s\)"):
        body_of(client_of(server.url, first_byte_s=0.2))


def test_a_body_that_stalls_is_left_after_stall_s(server: ScriptedServer) -> None:
    hold = threading.Event()
    server.script["chair"] = [Answer(hold_body=hold)]
    try:
        with pytest.raises(TransportError, match=r"no byte within stall_s \(0\.1 s\)"):
            body_of(client_of(server.url, stall_s=0.1))
    finally:
        hold.set()


@pytest.mark.parametrize("length", ["exact", "none"])
def test_a_body_that_drips_is_left_after_total_s_even_if_its_end_is_the_connections(
    server: ScriptedServer, length: str
) -> None:
    server.script["chair"] = [Answer(drip_s=0.02, length=length)]
    with pytest.raises(TransportError, match=r"no whole answer within total_s \(0\.3 s\)"):
        body_of(client_of(server.url, total_s=0.3, stall_s=10))


def test_what_was_left_is_closed_and_not_used_again(server: ScriptedServer) -> None:
    hold = threading.Event()
    server.script["chair"] = [Answer(hold=hold)]
    client = client_of(server.url, first_byte_s=0.1)
    with pytest.raises(TransportError):
        body_of(client)
    hold.set()
    assert body_of(client)[0] == splat_ply()
    assert server.connections == 2


def test_what_reached_nobody_says_so() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(TransportError) as refused:
            body_of(client_of(f"http://127.0.0.1:{closed.getsockname()[1]}"))
    assert not refused.value.reached


def test_a_reset_may_have_reached_the_endpoint(server: ScriptedServer) -> None:
    server.script["chair"] = [Answer(reset=True)]
    with pytest.raises(TransportError) as reset:
        body_of(client_of(server.url))
    assert reset.value.reached


def test_an_old_connection_that_was_closed_is_nobodys_fault(server: ScriptedServer) -> None:
    client = client_of(server.url)
    body_of(client)
    server.script["chair"] = [Answer(reset=True)]
    with pytest.raises(BusyError) as stale:
        body_of(client)
    assert stale.value.wait_s == 0
    assert body_of(client)[0] == splat_ply()


def test_abandoning_ends_what_another_thread_waits_for_and_begins_nothing_new(server: ScriptedServer) -> None:
    hold, errors = threading.Event(), []
    server.script["chair"] = [Answer(hold=hold)]
    client = client_of(server.url)

    def ask() -> None:
        try:
            body_of(client)
        except TransportError as error:
            errors.append(str(error))

    thread = threading.Thread(target=ask)
    thread.start()
    server.wait_for(requests=1)
    client.abandon()
    thread.join(10)
    hold.set()
    ask()
    assert [error.endswith("abandoned") for error in errors] == [True, True]
    assert len(server.received) == 1


@pytest.mark.parametrize(
    ("said", "wait_s"),
    [("7", 7.0), ("0", 0.0), ("99999999999", 60.0), ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0), ("soon", None),
     ("", None), ("-5", None), ("²", None), ("Fri, 31 Dec 9999 23:59:59 GMT", 60.0)],
)  # fmt: skip
@responses.activate
def test_retry_after_is_seconds_or_a_date_and_capped(said: str, wait_s: float | None) -> None:
    responses.post("http://h:1/generate", status=503, headers={"Retry-After": said})
    client = client_of("http://h:1")
    with client.send(client.prepare(REQUEST)) as answer:
        assert answer.retry_after_s == wait_s


@pytest.fixture
def authority() -> Iterator[trustme.CA]:
    yield trustme.CA()


def test_certificates_are_verified_unless_the_endpoint_says_otherwise(authority: trustme.CA, tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with ScriptedServer(certificate=context) as server:
        with pytest.raises(TransportError, match="certificate verify failed") as refused:
            body_of(client_of(server.url))
        assert not refused.value.reached
        for verify in (False, str(tmp_path / "ca.pem")):
            client = Client(Endpoint(0, server.url, "one", "port 1", verify=verify), Timeouts(), connections=1)
            assert body_of(client)[0] == splat_ply()


def test_a_tls_server_that_never_answers_is_left_as_well(authority: trustme.CA) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with ScriptedServer(certificate=context) as server:
        server.script["chair"] = [Answer(drip_s=0.02, length="none")]
        client = Client(Endpoint(0, server.url, "one", "port 1", verify=False), Timeouts(total_s=0.3), connections=1)
        with pytest.raises(TransportError, match="total_s"):
            body_of(client)


@pytest.mark.parametrize("status", [200, 500])
def test_a_chunk_of_a_negative_size_is_an_answer_that_is_no_http(server: ScriptedServer, status: int) -> None:
    head = f"HTTP/1.1 {status} X\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nxxxx".encode()
    server.script["chair"] = [Answer(raw=head)]
    client = client_of(server.url)
    with client.send(client.prepare(REQUEST)) as answer:
        if status == 500:
            assert answer.head() == b""
        else:
            with pytest.raises(TransportError):
                answer.receive(io.BytesIO(), 10**9)


def test_a_certificate_file_that_is_gone_is_an_attempt_that_reached_nobody(tmp_path: Path) -> None:
    endpoint = Endpoint(0, "https://127.0.0.1:1", "one", "port 1", verify=str(tmp_path / "gone.pem"))
    with pytest.raises(TransportError, match=r"gone\.pem") as refused:
        body_of(Client(endpoint, Timeouts(), connections=1))
    assert not refused.value.reached


def test_an_images_credentials_are_those_of_its_url_and_stay_with_its_host(
    servers: Callable[..., list[ScriptedServer]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked, other = servers(2)
    (tmp_path / "netrc").write_text("machine localhost login me password secretpw\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    asked.script["images/a"] = [
        Answer(status=302, body=b"x" * 10_000, headers={"Location": f"http://localhost:{other.port}/images/b.png"})
    ]
    url = asked.image("a").replace("//", "//user:p%40ss@")
    assert fetch(url).content == IMAGE
    assert asked.image_headers[-1]["Authorization"] == "Basic dXNlcjpwQHNz"
    assert "Authorization" not in other.image_headers[-1]


def test_redirects_without_end_are_final(server: ScriptedServer) -> None:
    server.script["images/a"] = [Answer(status=302, body=b"", headers={"Location": "/images/a.png"})] * 99
    with pytest.raises(ImageError, match="redirects") as refused:
        fetch(server.image("a"))
    assert not refused.value.again
    assert len(server.images_asked) == 11


def test_a_connection_that_was_given_back_is_cut_by_nobody(server: ScriptedServer) -> None:
    client = client_of(server.url, total_s=0.2)
    answer = client.send(client.prepare(REQUEST))
    answer.receive(io.BytesIO(), 10**9)
    threading.Event().wait(0.5)  # longer than the first one's time
    assert body_of(client)[0] == splat_ply()
    assert server.connections == 1


def test_a_short_redirect_keeps_its_connection_and_a_long_one_is_not_read(server: ScriptedServer) -> None:
    images = WebClient(Timeouts(), connections=1)
    to_a = {"Location": "/images/a.png"}
    for name in "uvwxyz":
        server.script[f"images/{name}"] = [Answer(status=302, body=b"moved", headers=to_a)]
        assert images.fetch(server.image(name)).content == IMAGE
    assert server.connections == 1
    server.script["images/long"] = [Answer(status=302, body=b"x" * 1000, drip_s=1, length="none", headers=to_a)]
    assert images.fetch(server.image("long")).content == IMAGE


def test_a_redirect_that_says_not_where_is_an_answer(server: ScriptedServer) -> None:
    server.script["images/a"] = [Answer(status=302, body=b"", headers={"Location": ""})] * 3
    with pytest.raises(ImageError, match="answers 302"):
        fetch(server.image("a"))
    assert len(server.images_asked) == 1


def test_nothing_goes_out_once_it_should_not_though_nobody_could_say_so(server: ScriptedServer) -> None:
    for stopped_after in range(3):  # a process goes on after a stop, at any of these places
        looks = iter([False] * stopped_after)
        fence = Fence(lambda looks=looks: next(looks, True))
        client = Client(Endpoint(0, server.url, "one", "port 1"), Timeouts(), connections=1, abandoned=fence)
        with pytest.raises(TransportError, match="abandoned"):
            client.send(client.prepare(REQUEST))
    assert not server.received
