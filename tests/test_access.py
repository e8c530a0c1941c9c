import base64
import io
import json
import logging
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest
import trustme
import yaml
from conftest import QUICK
from cryptography.hazmat.primitives import serialization
from proxy import ForwardProxy
from server import IMAGE, Answer, ScriptedServer, splat_ply

from runner import run
from runner.client import Client
from runner.config import config_from, load_config
from runner.errors import TransportError, UsageError
from runner.health import probe
from runner.protocols import Values, preset
from runner.records import Endpoint, Image, Prompt
from runner.settings import Timeouts

REQUEST = preset("404-splat").generation(Values(Prompt(0, "chair"), 7, Image("chair.png", IMAGE, "0")))


def client_of(settings: dict[str, object], **timeouts: float) -> Client:
    """A client of the endpoint that these settings describe."""
    (endpoint,) = config_from({"endpoints": [settings], "prompts": ["p.txt"]}).endpoints
    return Client(endpoint, Timeouts(**timeouts), connections=2)


def body_of(client: Client) -> bytes:
    file = io.BytesIO()
    with client.send(client.prepare(REQUEST)) as answer:
        assert answer.status == 200
        answer.receive(file, 10**9)
    return file.getvalue()


def failure_of(client: Client) -> TransportError:
    with pytest.raises(TransportError) as failed:
        body_of(client)
    client.close()
    return failed.value


def basic(text: str) -> str:
    return f"Basic {base64.b64encode(text.encode()).decode()}"


class Pki:
    """An authority, a server that asks for its certificates, and files of one for us."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = trustme.CA()
        self.authority.cert_pem.write_to_path(str(folder / "ca.pem"))
        ours = self.authority.issue_cert("us.example")
        self.both = self.write("both.pem", ours.private_key_and_cert_chain_pem.bytes())
        self.cert = self.write("cert.pem", b"".join(one.bytes() for one in ours.cert_chain_pems))
        self.key = self.write("key.pem", ours.private_key_pem.bytes())
        self.other_key = self.write("other.pem", self.authority.issue_cert("x.example").private_key_pem.bytes())
        stranger = trustme.CA().issue_cert("us.example")
        self.stranger = self.write("stranger.pem", stranger.private_key_and_cert_chain_pem.bytes())
        key = serialization.load_pem_private_key(ours.private_key_pem.bytes(), None)
        locked = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"a password"),
        )
        self.locked = self.write("locked.pem", locked)
        self.locked_both = self.write("locked-both.pem", locked + Path(self.cert).read_bytes())
        self.ca = str(folder / "ca.pem")

    def write(self, name: str, content: bytes) -> str:
        (self.folder / name).write_bytes(content)
        return str(self.folder / name)

    def context(self, *, asks: bool) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.authority.issue_cert("127.0.0.1").configure_cert(context)
        if asks:
            context.verify_mode = ssl.CERT_REQUIRED
            self.authority.configure_trust(context)
        return context


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def careful(pki: Pki) -> Iterator[ScriptedServer]:
    """A server that lets in who has a certificate."""
    with ScriptedServer(certificate=pki.context(asks=True)) as one:
        yield one


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"bearer": "a.b-c"}, "Bearer a.b-c"),
        ({"basic": {"user": "me", "password": "p:w é"}}, "Basic bWU6cDp3IOk="),
        ({"basic": {"user": "sk_live"}}, basic("sk_live:")),
    ],
)  # fmt: skip
def test_who_asks_is_said_with_every_request(server: ScriptedServer, settings: dict[str, object], said: str) -> None:
    client = client_of({"url": server.url, **settings})
    body_of(client)
    probe(Endpoint(0, server.url, "one", "port 1"), preset("404-splat"), client)
    assert [path for path, _ in server.heads] == ["/generate", "/health", "/version"]
    assert [headers.get_all("Authorization") for _, headers in server.heads] == [[said]] * 3


@pytest.mark.parametrize(("info", "said"), [("me:p%40w", "me:p@w"), ("key", "key:")])
def test_the_user_info_of_a_url_is_basic(server: ScriptedServer, info: str, said: str) -> None:
    client = client_of({"url": server.url.replace("//", f"//{info}@")})
    body_of(client)
    assert server.heads[0][1].get_all("Authorization") == [basic(said)]


def test_a_query_is_added_to_every_request(server: ScriptedServer) -> None:
    client = client_of({"url": server.url, "query": {"api_key": "a/b c&d", "v": "2"}})
    body_of(client)
    client.get("/health?full=1", timeout_s=5)
    query = "api_key=a%2Fb%20c%26d&v=2"
    assert [path for path, _ in server.heads] == [f"/generate?{query}", f"/health?full=1&{query}"]


def test_a_query_stands_in_no_request_that_an_error_may_quote(server: ScriptedServer) -> None:
    client = client_of({"url": server.url, "query": {"api_key": "hunter2hunter2"}})
    assert "hunter2" not in client.prepare(REQUEST).url


@pytest.mark.parametrize("proxied", [False, True])
def test_a_host_header_is_sent_as_given_and_once(server: ScriptedServer, proxied: bool) -> None:
    with ForwardProxy() as proxy:
        way = {"proxy": proxy.url} if proxied else {}
        client = client_of({"url": server.url, "headers": {"host": "gpu.example:8443"}, **way})
        body_of(client)
        client.get("/health", timeout_s=5)
        client.close()
    assert [headers.get_all("Host") for _, headers in server.heads] == [["gpu.example:8443"]] * 2


def test_without_a_host_header_the_address_is_the_host(server: ScriptedServer) -> None:
    body_of(client_of({"url": server.url}))
    assert server.heads[0][1].get_all("Host") == [f"127.0.0.1:{server.port}"]


def test_a_redirect_takes_no_credentials_along(servers: Callable[..., list[ScriptedServer]]) -> None:
    asked, other = servers(2)
    asked.script["chair"] = [Answer(status=307, body=b"", headers={"Location": f"{other.url}/generate"})]
    client = client_of({"url": asked.url, "bearer": "hunter2hunter2"})
    with client.send(client.prepare(REQUEST)) as answer:
        assert answer.status == 307
    assert other.heads == []


def test_a_client_certificate_opens_the_door(careful: ScriptedServer, pki: Pki) -> None:
    for files in ({"cert": pki.both}, {"cert": pki.cert, "key": pki.key}):
        client = client_of({"url": careful.url, "verify": pki.ca, **files})
        assert [body_of(client), body_of(client)] == [splat_ply()] * 2
        client.close()
    assert careful.connections == 2


def test_a_missing_client_certificate_is_one_sentence_and_the_endpoints_alone(
    careful: ScriptedServer, pki: Pki
) -> None:
    error = failure_of(client_of({"url": careful.url, "verify": pki.ca}))
    assert str(error) == f"{careful.url}: the server asks for a client certificate (cert)"
    assert (error.blame, error.reached) == ("endpoint", False)


def test_a_client_certificate_of_another_authority_is_one_sentence(careful: ScriptedServer, pki: Pki) -> None:
    error = failure_of(client_of({"url": careful.url, "verify": pki.ca, "cert": pki.stranger}))
    assert str(error).startswith(f"{careful.url}: the server does not take our certificate: ")
    assert (error.blame, error.reached) == ("endpoint", False)


def test_a_proxy_is_asked_with_its_password_and_keeps_its_connection(server: ScriptedServer) -> None:
    with ForwardProxy(password="me:p@w") as proxy:
        client = client_of({"url": server.url, "proxy": proxy.with_user("me:p%40w"), "query": {"k": "v"}})
        assert [body_of(client), body_of(client)] == [splat_ply()] * 2
        client.close()
        assert proxy.asked == [f"POST {server.url}/generate?k=v"] * 2
        assert proxy.connections == 1
    assert all("Proxy-Authorization" not in headers for _, headers in server.heads)


def test_https_goes_through_the_proxy_in_a_tunnel_with_our_certificate(careful: ScriptedServer, pki: Pki) -> None:
    with ForwardProxy(password="key:") as proxy:
        client = client_of(
            {"url": careful.url, "proxy": proxy.with_user("key"), "verify": pki.ca, "cert": pki.both, "bearer": "abc"}
        )
        assert [body_of(client), body_of(client)] == [splat_ply()] * 2
        client.close()
        assert proxy.asked == [f"CONNECT 127.0.0.1:{careful.port}"]
    assert careful.connections == 1
    assert all("Proxy-Authorization" not in headers for _, headers in careful.heads)
    assert careful.heads[0][1].get_all("Authorization") == ["Bearer abc"]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_wants_another_password_is_one_sentence(pki: Pki, scheme: str) -> None:
    with ForwardProxy(password="me:right") as proxy:
        url = f"{scheme}://127.0.0.1:1"
        error = failure_of(
            client_of({"url": url, "proxy": proxy.with_user("me:wrongwrong"), "query": {"k": "hunter2"}})
        )
        assert str(error).startswith(f"{url}: the proxy {proxy.url}: ")
        assert str(error).endswith("407 Proxy Authentication Required")
    assert (error.blame, error.again, error.reached) == ("endpoint", True, False)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_is_down_is_one_sentence(scheme: str) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        proxy = f"127.0.0.1:{closed.getsockname()[1]}"
        error = failure_of(client_of({"url": f"{scheme}://gpu.example", "proxy": f"http://me:hunter2@{proxy}"}))
    assert str(error) == f"{scheme}://gpu.example: the proxy http://{proxy}: Connection refused"
    assert (error.blame, error.reached) == ("endpoint", False)


def test_a_proxy_that_drips_is_left_after_connect_s() -> None:
    with ForwardProxy(drip=b"HTTP/1.1 200 OK\r\nX: " + b"x" * 10_000) as proxy:
        error = failure_of(client_of({"url": "https://127.0.0.1:1", "proxy": proxy.url}, connect_s=0.2))
    assert str(error) == "https://127.0.0.1:1: no connection within connect_s (0.2 s)"


@pytest.mark.parametrize("says", [b"", b"\x16\x03\x03\x3f\xff" + b"\x02" * 10_000])
def test_a_handshake_that_never_ends_is_left_after_connect_s(says: bytes) -> None:
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def drip() -> None:
            there, _ = listening.accept()
            with there:
                for start in range(len(says)):
                    if over.wait(0.02):
                        return
                    there.send(says[start : start + 1])
                over.wait(30)

        thread = threading.Thread(target=drip)
        thread.start()
        url = f"https://127.0.0.1:{listening.getsockname()[1]}"
        error = failure_of(client_of({"url": url, "verify": False}, connect_s=0.8))
        over.set()
        thread.join()
    assert "no connection within connect_s" in str(error)
    assert not error.reached


@pytest.mark.parametrize("fault", ["silent", "stalls", "drips"])
def test_the_clocks_go_on_in_a_tunnel(careful: ScriptedServer, pki: Pki, fault: str) -> None:
    hold = threading.Event()
    answer, clock = {
        "silent": (Answer(hold=hold), "first_byte_s"),
        "stalls": (Answer(hold_body=hold), "stall_s"),
        "drips": (Answer(drip_s=0.02), "total_s"),
    }[fault]
    careful.script["chair"] = [answer]
    with ForwardProxy() as proxy:
        way = {"url": careful.url, "proxy": proxy.url, "verify": pki.ca, "cert": pki.both}
        try:
            assert f"within {clock} (0.4 s)" in str(failure_of(client_of(way, **{clock: 0.4})))
        finally:
            hold.set()


def test_abandoning_cuts_what_waits_in_a_tunnel(careful: ScriptedServer, pki: Pki) -> None:
    hold, errors = threading.Event(), []
    careful.script["chair"] = [Answer(hold=hold)]
    with ForwardProxy() as proxy:
        client = client_of({"url": careful.url, "proxy": proxy.url, "verify": pki.ca, "cert": pki.both})
        thread = threading.Thread(target=lambda: errors.append(str(failure_of(client))))
        thread.start()
        careful.wait_for(requests=1)
        client.abandon()
        thread.join(10)
        hold.set()
    assert errors == [f"{careful.url}: abandoned"]


def test_the_environments_proxy_is_not_asked_beside_the_configs(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ForwardProxy() as proxy:
        client = client_of({"url": server.url, "proxy": proxy.url})
        assert body_of(client) == splat_ply()
        client.close()
        assert len(proxy.asked) == 1


SECRET = "hunter2+/ü-hunter2"
"""A secret that looks otherwise in every encoding."""


@pytest.mark.parametrize("written_as", ["variable", "literal"])
@pytest.mark.parametrize(
    "template",
    [
        {"query": {"key": "SECRET", "v": "2"}},
        {"bearer": "SECRET"},
        {"basic": {"user": "me", "password": "SECRET"}},
        {"basic": {"user": "SECRET"}},
        {"headers": {"X-Token": "SECRET"}},
        {"headers": {"Authorization": "Token SECRET"}},
        {"proxy": "http://me:SECRET@PROXY"},
    ],
    ids=json.dumps,
)
def test_nothing_that_a_run_leaves_or_says_holds_a_secret_in_any_form(
    server: ScriptedServer,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    template: dict[str, object],
    written_as: str,
) -> None:
    secret = quote(SECRET, safe="") if "proxy" in template else SECRET
    forms = [SECRET, quote(SECRET, safe=""), base64.b64encode(SECRET.encode()).decode().rstrip("=")]
    if "basic" in template or "proxy" in template:
        pair = f"{SECRET}:" if template == {"basic": {"user": "SECRET"}} else f"me:{SECRET}"
        forms += [basic(pair), "Basic " + base64.b64encode(pair.encode("latin-1")).decode()]
    for number, form in enumerate(forms):
        server.script[f"p{number}"] = [Answer(status=422, body=f"no {form} here".encode())]
        server.script[f"q{number}"] = [Answer(status=422, body=f"{'.' * 190}{form}".encode())]
    (tmp_path / "p.txt").write_text("".join(f"{server.image(name)}\n" for name in server.script))
    with ForwardProxy() as proxy:
        text = json.dumps(template).replace("PROXY", proxy.url.removeprefix("http://"))
        given = json.loads(text.replace("SECRET", "${PW}" if written_as == "variable" else secret))
        config = {"endpoints": [{"url": server.url, **given}], "prompts": "p.txt", "output_folder": "results"}
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(config | QUICK, allow_unicode=True))
        with caplog.at_level(logging.INFO, logger="runner"):
            summary = run(load_config(tmp_path / "run.yaml", environ={"PW": secret}))
    assert summary.failed == summary.total == 2 * len(forms)
    files = {file.name: file.read_text() for file in (tmp_path / "results" / ".runner").iterdir()}
    state = {"ledger.jsonl", "lists.jsonl", "runs.jsonl", "summary.json", "config.yaml", "run.log", "lock"}
    assert set(files) == state
    for name, text in {**files, "the log": caplog.text, "the summary": repr(summary)}.items():
        assert "422" in text or name in ("config.yaml", "lists.jsonl", "runs.jsonl", "lock")
        for form in forms:
            assert form.removeprefix("Basic ")[:6] not in text, (name, form)
    (shown,) = yaml.safe_load(files["config.yaml"])["endpoints"]
    assert ("${PW}" in str(shown)) == (written_as == "variable")


def test_status_needs_neither_secrets_nor_files(
    careful: ScriptedServer, pki: Pki, tmp_path: Path, runner: Callable[..., object]
) -> None:
    (tmp_path / "a.png").write_bytes(IMAGE)
    copied = {name: str(tmp_path / f"{name}.pem") for name in ("verify", "cert", "key")}
    for name, source in (("verify", pki.ca), ("cert", pki.cert), ("key", pki.key)):
        Path(copied[name]).write_bytes(Path(source).read_bytes())
    with ForwardProxy(password="me:hunter2hunter2") as proxy:
        given = {"url": careful.url, "query": {"k": "${PW}"}, "basic": {"user": "${PW}", "password": "${PW}"}}
        given |= {"proxy": proxy.with_user("me:${PW}"), **{name: f"{name}.pem" for name in copied}}
        text = yaml.safe_dump({"endpoints": [given], "prompts": "a.png", "output_folder": "results"})
        (tmp_path / "run.yaml").write_text(text)
        assert run(load_config(tmp_path / "run.yaml", environ={"PW": "hunter2hunter2"})).success
    for file in copied.values():
        os.unlink(file)
    done = runner("status", "results", "--json")
    assert done.returncode == 0, done.stderr
    (shown,) = yaml.safe_load((tmp_path / "results" / ".runner" / "config.yaml").read_text())["endpoints"]
    assert {name: shown[name] for name in copied} == copied


def test_check_shows_no_secret_that_a_server_says_back(
    server: ScriptedServer, runner: Callable[..., object], tmp_path: Path
) -> None:
    server.script["/health"] = [Answer(status=401, body=b"unknown token hunter2hunter2")]
    server.script["/version"] = [Answer(body=b"hunter2hunter2")]
    (tmp_path / "a.png").write_bytes(IMAGE)
    (tmp_path / "run.yaml").write_text(
        f"endpoints: [{{url: '{server.url}', bearer: hunter2hunter2}}]\nprompts: a.png\n"
    )
    done = runner("check", "run.yaml", "--json")
    assert json.loads(done.stdout)["status"] == "401: unknown token ***"
    assert "hunter2" not in done.stdout + done.stderr


WHO = ": expected one word on who asks, got"
QUERY = "has no name, or holds a control character such as a line end"
HOST = "expected a host such as gpu.example or gpu.example:8443"
URL = ".url: expected an http or https URL such as http://127.0.0.1:10006, got"
PROXY = ".proxy: expected an http proxy such as http://proxy:3128, got"
AT = "a text with an @ (write what is special in a name or password as %40 and the like)"
PEM = ".cert: expected PEM files with a certificate"
LOCKED = "the key is encrypted and nobody is there to type its password; give a copy without one"
HEADER, INFO, LEAVE = "headers.Authorization", "the user info of url", "; leave one of them"
OURS = "follows from what is sent and can't be given"
HTTPS = "expected an https url beside it; over http no certificate is shown"
NONE = "can't be read: No such file or directory"
ALONE = "expected the token alone, without spaces; the word Bearer is put before it"
ME = "https://me:sesame1@h:1"
NO_HEADER = "it holds a character that no header can hold, such as a line end"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"bearer": "sesame1", "basic": {"user": "me"}}, f"{WHO} bearer and basic; leave one of them"),
        ({"bearer": "sesame1", "headers": {"authorization": "x"}}, f"{WHO} bearer and {HEADER}{LEAVE}"),
        ({"url": ME, "basic": {"user": "me"}}, f"{WHO} basic and the user info of url; leave one of them"),
        ({"url": ME, "headers": {"Authorization": "x"}, "bearer": "x"}, f"{WHO} bearer, {HEADER} and {INFO}{LEAVE}"),
        ({"bearer": ""}, ".bearer: expected a text, got nothing"),
        ({"bearer": "Bearer sesame1"}, f".bearer: {ALONE}"),
        ({"bearer": "sesame1\n"}, f".bearer: {NO_HEADER}"),
        ({"bearer": "sesame1日"}, f".bearer: {NO_HEADER}"),
        ({"bearer": ["sesame1"]}, ".bearer: expected a text, got a list"),
        ({"basic": "me:sesame1"}, ".basic: expected a mapping, got a text"),
        ({"basic": {"password": "sesame1"}}, ".basic.user: required, but missing"),
        ({"basic": {"user": "me", "pasword": "sesame1"}}, ".basic.pasword: unknown key; did you mean 'password'?"),
        ({"basic": {"user": "me", "password": 12345678}}, ".basic.password: expected a text, got a number"),
        ({"basic": {"user": "me:you", "password": "sesame1"}}, ".basic.user: expected a name without a colon"),
        ({"basic": {"user": "me", "password": "sesame1\r\nX: y"}}, f".basic.password: {NO_HEADER}"),
        ({"basic": {"user": "日本", "password": "sesame1"}}, f".basic.user: {NO_HEADER}"),
        ({"url": "https://me:%E6%97%A5@h:1"}, f".url: user info: {NO_HEADER}"),
        ({"url": "https://me:ses/ame1@h:1"}, f"{URL} {AT}"),
        ({"query": {"k": 12345678}}, ".query.k: expected a text, got a number"),
        ({"query": "k=sesame1"}, ".query: expected a mapping, got a text"),
        ({"query": {"k": "sesame1\n"}}, f".query: 'k' {QUERY}"),
        ({"query": {"k": "sesame1\udcff"}}, f".query: 'k' {QUERY}"),
        ({"query": {"": "sesame1"}}, f".query: '' {QUERY}"),
        ({"headers": {"X": ["sesame1"]}}, ".headers.X: expected a text, got a list"),
        ({"headers": {"Host": "a", "host": "b"}}, ".headers: 'host' stands there already as 'Host'"),
        ({"headers": {"Host": "a b"}}, f".headers: 'Host': {HOST}"),
        ({"headers": {"Host": ""}}, f".headers: 'Host': {HOST}"),
        ({"headers": {"Transfer-Encoding": "chunked"}}, f".headers: 'Transfer-Encoding' {OURS}"),
        ({"key": "KEY"}, ".key: expected the certificate of this key beside it, as cert"),
        ({"url": "http://h:1", "cert": "BOTH"}, f".cert: {HTTPS}"),
        ({"cert": "FOLDER/none.pem"}, ".cert: 'FOLDER/none.pem' can't be read: No such file or directory"),
        ({"cert": "FOLDER"}, ".cert: 'FOLDER' can't be read: Is a directory"),
        ({"cert": "CERT", "key": "FOLDER/none.pem"}, f".key: 'FOLDER/none.pem' {NONE}"),
        ({"cert": "CERT", "key": "a\0b"}, ".key: 'FOLDER/a\\x00b' can't be read: it is no path"),
        ({"cert": "CERT", "key": "-----BEGIN PRIVATE KEY-----\nsesame1\n"}, f".key: a text that is no path {NONE}"),
        ({"cert": "CERT"}, f"{PEM}, and its key in it or beside it, got 'CERT' (OpenSSL says "),
        ({"cert": "KEY"}, f"{PEM}, and its key in it or beside it, got 'KEY' (OpenSSL says "),
        ({"cert": "CERT", "key": "CERT"}, f"{PEM} and a key, got 'CERT' (OpenSSL says "),
        ({"cert": "CERT", "key": "OTHER"}, ".key: the key is not that of the certificate 'CERT'"),
        ({"cert": "CERT", "key": "LOCKED"}, f".key: {LOCKED} (openssl pkey -in KEY -out COPY)"),
        ({"cert": "LOCKED_BOTH"}, f".cert: {LOCKED} (openssl pkey -in KEY -out COPY)"),
        ({"proxy": "https://proxy:1"}, f"{PROXY} 'https://proxy:1'"),
        ({"proxy": "socks5://proxy:1"}, f"{PROXY} 'socks5://proxy:1'"),
        ({"proxy": "proxy:3128"}, f"{PROXY} 'proxy:3128'"),
        ({"proxy": "http://proxy"}, f"{PROXY} 'http://proxy'"),
        ({"proxy": "http://proxy:1/x"}, f"{PROXY} 'http://proxy:1/x'"),
        ({"proxy": "http://me:ses/ame1@proxy:1"}, f"{PROXY} {AT}"),
        ({"proxy": "http://me:sesame1%0A@proxy:1"}, f".proxy: user info: {NO_HEADER}"),
        ({"proxy": 3128}, ".proxy: expected a text, got a number"),
    ],
)  # fmt: skip
def test_what_can_not_be_is_one_sentence_without_the_secret(
    pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, object], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    names = {"CERT": pki.cert, "KEY": pki.key, "BOTH": pki.both, "OTHER": pki.other_key}
    names |= {"LOCKED": pki.locked, "LOCKED_BOTH": pki.locked_both}
    for name in ("cert", "key"):
        if name in settings:
            given = str(settings[name]).replace("FOLDER", str(tmp_path))
            settings = {**settings, name: names.get(given, given)}
    expected = said.replace("FOLDER", str(tmp_path)).replace("'CERT'", repr(pki.cert)).replace("'KEY'", repr(pki.key))
    with pytest.raises(UsageError) as refused:
        config_from({"endpoints": [{"url": "https://h:1", **settings}], "prompts": ["p.txt"]})
    (problem,) = refused.value.problems
    assert problem.startswith(f"the command line: endpoints[0]{expected}")
    assert problem == f"the command line: endpoints[0]{expected}" or "OpenSSL says" in expected
    for secret in ("sesame1", "ame1", "12345678"):
        assert secret not in problem


def test_endpoints_that_are_no_list_are_not_quoted() -> None:
    with pytest.raises(UsageError) as refused:
        config_from({"endpoints": {"url": "https://h:1", "bearer": "sesame1"}, "prompts": ["p.txt"]})
    assert str(refused.value) == "the command line: endpoints: expected a list with at least one entry, got a mapping"


def test_an_endpoint_shows_no_secret_in_a_traceback() -> None:
    config = config_from({"endpoints": [{"url": "https://me:sesame1@h:1", "proxy": "http://me:sesame1@p:1",
                          "query": {"k": "sesame1"}}], "prompts": ["p.txt"]})  # fmt: skip
    assert "sesame1" not in repr(replace(config.endpoints[0], name="x"))
    assert base64.b64encode(b"me:sesame1").decode() not in repr(config.endpoints)


def test_a_literal_is_no_less_secret_beside_a_short_variable(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(
        'endpoints: [{url: "http://h:1", headers: {X-N: "${N}", Authorization: "Bearer sesame4sesame"}}]\n'
        "prompts: p.txt\n"
    )
    config = load_config(tmp_path / "run.yaml", environ={"N": "4"})
    assert "sesame" not in config.resolved_yaml()
    assert config.redactor.text("token sesame4sesame") == "token ***"
