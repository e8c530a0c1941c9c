"""How an endpoint is reached: credentials, certificates, a proxy; what is wrong with these, and what is secret."""

from __future__ import annotations

import base64
import os
import re
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import unquote, urlsplit

from runner.headers import HOST, is_header_value, wrong_headers
from runner.redact import is_secret_header, is_secret_query, public_url
from runner.settings import EndpointSettings
from runner.yamlfile import Loc, escaped

_CREDENTIAL = re.compile(r"[\x20-\x7e\x80-\xff]*")
_NO_QUERY_TEXT = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")

_VARIABLES = re.compile(r"(\$\{\w+\})+")
_SCHEME_AND_VARIABLES = re.compile(r"([A-Za-z]+ )?(\$\{\w+\})+")
_PROXY = re.compile(r"(http://)(?:([^@]*)@)?([^@]*)")

_HIDDEN = "***"


def headers_of(endpoint: EndpointSettings) -> dict[str, str]:
    """Return what goes with every request, the credentials as ``Authorization``."""
    authorization = _authorization(endpoint)
    return {**endpoint.headers, **({"Authorization": authorization} if authorization else {})}


def url_of(endpoint: EndpointSettings) -> str:
    """Return the base URL, without the user info that became a header."""
    url = endpoint.url.rstrip("/")
    info = _info(url)
    return url if info is None else url.replace(f"{info}@", "", 1)


def proxy_of(endpoint: EndpointSettings) -> str | None:
    """Return the proxy's URL; user info has a colon, for without one it would not be sent."""
    if endpoint.proxy is None:
        return None
    info = _info(endpoint.proxy)
    return endpoint.proxy.replace(f"{info}@", f"{info}:@", 1) if info and ":" not in info else endpoint.proxy


def file_of(path: str, base: Path) -> str:
    """Return the absolute path of a file that the config names; it is relative to ``base``."""
    return os.path.join(base, os.path.expanduser(path))


def url_problem(endpoint: EndpointSettings) -> str | None:
    """Say what is wrong with the base URL."""
    try:
        parts = urlsplit(endpoint.url)
        host = parts.hostname or ""
        labels = all(0 < len(label) <= 63 for label in host.removesuffix(".").split("."))
        usable = parts.scheme in ("http", "https") and re.fullmatch(r"[\w.:%-]+", host) and parts.port != 0 and labels
    except ValueError:
        usable = False
    if not usable or re.search(r"\s", endpoint.url):
        return f"expected an http or https URL such as http://127.0.0.1:10006, got {_public(endpoint.url)}"
    if parts.query or parts.fragment:
        return f"expected a base URL without ? and #, got {_public(endpoint.url)}"
    return None


def problems(endpoint: EndpointSettings, base: Path) -> Iterator[str]:
    """Yield what is wrong besides the URL, each with its place below the endpoint; never a secret value."""
    yield from (f".headers: {wrong}" for wrong in wrong_headers(endpoint.headers))
    for name, value in endpoint.query.items():
        if not name or _NO_QUERY_TEXT.search(name + value):
            yield f".query: {name!r} has no name, or holds a control character such as a line end"
    yield from _credential_problems(endpoint)
    if isinstance(endpoint.verify, str) and not _holds_certificates(file_of(endpoint.verify, base)):
        shown = _path(file_of(endpoint.verify, base))
        yield f".verify: expected true, false or a file of certificates, got {shown}"
    if endpoint.key is not None and endpoint.cert is None:
        yield ".key: expected the certificate of this key beside it, as cert"
    if endpoint.cert is not None and urlsplit(endpoint.url).scheme != "https":
        yield ".cert: expected an https url beside it; over http no certificate is shown"
    elif endpoint.cert is not None:
        yield from _pair_problem(file_of(endpoint.cert, base), endpoint.key and file_of(endpoint.key, base))
    if endpoint.proxy is not None:
        yield from _proxy_problems(endpoint.proxy)


def secrets_of(endpoint: EndpointSettings) -> Iterator[str]:
    """Yield the endpoint's secrets. A user's name is one if it stands without a password, as API keys do."""
    yield from secret_headers(endpoint.headers)
    yield from endpoint.query.values()
    yield from (one for one in [endpoint.bearer] if one)
    if endpoint.basic:
        yield from _pair_secrets(endpoint.basic.user, endpoint.basic.password)
    for url in (endpoint.url, endpoint.proxy or ""):
        if info := _info(url):
            user, _, password = info.partition(":")
            yield from (info, password or user, *_pair_secrets(unquote(user), unquote(password)))


def secret_headers(headers: Mapping[str, str]) -> Iterator[str]:
    """Yield what is secret in headers: the values of those whose names say so, and the tokens in these."""
    for name, value in headers.items():
        if is_secret_header(name):
            yield from (value, value.rpartition(" ")[2])


def public(endpoint: EndpointSettings, written: Mapping[Loc, str], base: Path) -> dict[str, Any]:
    """Return the endpoint as a config may show it: each secret as the ``${NAME}`` it was written as, or ``***``.

    ``written`` are the texts with variables, as they stood in the file, by their place below the endpoint.
    """

    def hidden(*place: str) -> str:
        text = written.get(place, "")
        return text if _VARIABLES.fullmatch(text) else _HIDDEN

    shown: dict[str, Any] = {
        "url": public_url(endpoint.url),
        "headers": public_headers(endpoint.headers, _below("headers", written)),
        "query": {name: hidden("query", name) for name in endpoint.query},
    }
    if endpoint.bearer is not None:
        shown["bearer"] = hidden("bearer")
    if endpoint.basic:
        shown["basic"] = {name: hidden("basic", name) for name in ("user", "password")}
    if endpoint.proxy is not None:
        shown["proxy"] = _public_proxy(written.get(("proxy",), "")) or _without_user(endpoint.proxy)
    for name in ("verify", "cert", "key"):
        value = getattr(endpoint, name)
        shown[name] = escaped(file_of(value, base)) if isinstance(value, str) else value
    return shown


def public_headers(headers: Mapping[str, str], written: Mapping[str, str]) -> dict[str, str]:
    """Return headers as a config may show them; ``written`` are those with variables, as they stood in the file."""
    return {name: _public_header(name, value, written.get(name, "")) for name, value in headers.items()}


def public_query(query: Mapping[str, Any], written: Mapping[str, str]) -> dict[str, Any]:
    """Return a protocol's query as a config may show it; what its fields' names don't call a secret is none."""
    return {name: written.get(name, _HIDDEN if is_secret_query(name) else value) for name, value in query.items()}


def secret_query(query: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is secret in a protocol's query: the values of fields whose names say so."""
    yield from (str(value) for name, value in query.items() if is_secret_query(name))


def _below(name: str, written: Mapping[Loc, str]) -> dict[str, str]:
    return {str(loc[1]): text for loc, text in written.items() if len(loc) == 2 and loc[0] == name}


def _public_header(name: str, value: str, written: str) -> str:
    if is_secret_header(name):
        return written if _SCHEME_AND_VARIABLES.fullmatch(written) else _HIDDEN
    return written or escaped(value)


def _authorization(endpoint: EndpointSettings) -> str | None:
    if endpoint.bearer is not None:
        return f"Bearer {endpoint.bearer}"
    if endpoint.basic:
        return f"Basic {_basic(endpoint.basic.user, endpoint.basic.password)}"
    if info := _info(endpoint.url):
        user, _, password = info.partition(":")
        return f"Basic {_basic(unquote(user), unquote(password))}"
    return None


def _basic(user: str, password: str) -> str:
    return base64.b64encode(f"{user}:{password}".encode("latin-1", "replace")).decode()


def _pair_secrets(user: str, password: str) -> list[str]:
    """Return a password, and name and password in the forms in which a server or a library may say them back."""
    return [password or user, f"{user}:{password}", _basic(user, password)]


def _info(url: str) -> str | None:
    """Return the user info of a URL as it is written; None if it has none."""
    try:
        info, at, _ = urlsplit(url).netloc.rpartition("@")
    except ValueError:
        return None
    return info if at else None


def _credential_problems(endpoint: EndpointSettings) -> Iterator[str]:
    info = _info(endpoint.url)
    ways = {
        "bearer": endpoint.bearer is not None,
        "basic": endpoint.basic is not None,
        "headers.Authorization": any(name.lower() == "authorization" for name in endpoint.headers),
        "the user info of url": bool(info),
    }
    given = [name for name, is_given in ways.items() if is_given]
    if len(given) > 1:
        yield f": expected one word on who asks, got {', '.join(given[:-1])} and {given[-1]}; leave one of them"
    if endpoint.bearer is not None and " " in endpoint.bearer:
        yield ".bearer: expected the token alone, without spaces; the word Bearer is put before it"
    elif endpoint.bearer is not None and not is_header_value(endpoint.bearer):
        yield f".bearer: {_NO_HEADER}"
    if endpoint.basic:
        yield from _pair_problems(".basic.user", ".basic.password", endpoint.basic.user, endpoint.basic.password)
    if info:
        yield from _info_problems(".url", info)


_NO_HEADER = "it holds a character that no header can hold, such as a line end"


def _info_problems(place: str, info: str) -> Iterator[str]:
    user, _, password = info.partition(":")
    yield from _pair_problems(f"{place}: user info", f"{place}: user info", unquote(user), unquote(password))


def _pair_problems(user_place: str, password_place: str, user: str, password: str) -> Iterator[str]:
    if ":" in user:
        yield f"{user_place}: expected a name without a colon"
    for place, text in ((user_place, user), (password_place, password)):
        if not _CREDENTIAL.fullmatch(text):
            yield f"{place}: {_NO_HEADER}"


def _holds_certificates(path: str) -> bool:
    try:
        ssl.create_default_context(cafile=path)
    except (OSError, ValueError):  # there is no such file, or it holds no certificates
        return False
    return True


class _Encrypted(Exception):
    pass


def _pair_problem(cert: str, key: str | None) -> Iterator[str]:
    """Yield why a certificate and its key can't be used, if they can't."""
    for place, path in ((".cert", cert), (".key", key)):
        try:
            if path is not None:
                with open(path, "rb"):
                    pass
        except (OSError, ValueError) as error:
            yield f"{place}: {_path(path)} can't be read: {getattr(error, 'strerror', None) or 'it is no path'}"
            return
    place = ".cert" if key is None else ".key"
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(cert, key, password=_nobody_types_it)
    except _Encrypted:
        yield (
            f"{place}: the key is encrypted and nobody is there to type its password; "
            "give a copy without one (openssl pkey -in KEY -out COPY)"
        )
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            yield f"{place}: the key is not that of the certificate {_path(cert)}"
        else:
            what = "a certificate, and its key in it or beside it" if key is None else "a certificate and a key"
            yield f".cert: expected PEM files with {what}, got {_path(cert)} (OpenSSL says {error.reason or 'no'})"


def _nobody_types_it() -> NoReturn:
    raise _Encrypted


def _proxy_problems(proxy: str) -> Iterator[str]:
    try:
        parts = urlsplit(proxy)
        usable = parts.scheme == "http" and HOST.fullmatch(parts.hostname or "") and bool(parts.port)
        usable = usable and parts.path in ("", "/") and not parts.query and not re.search(r"\s", proxy)
    except ValueError:
        usable = False
    if not usable:
        yield f".proxy: expected an http proxy such as http://proxy:3128, got {_public(proxy)}"
    elif info := _info(proxy):
        yield from _info_problems(".proxy", info)


def _public(url: str) -> str:
    """Return a URL that may be none as an error may show it: what stands before an @ may be a password."""
    if "@" not in url:
        return repr(public_url(url))
    return "a text with an @ (write what is special in a name or password as %40 and the like)"


def _path(path: str | None) -> str:
    """Return a path as an error may show it: some write the key itself there."""
    return repr(path) if path and "\n" not in path and "PRIVATE" not in path else "a text that is no path"


def _public_proxy(written: str) -> str | None:
    """Return a proxy as it was written with variables, its user info without any other text; None if there is no way.

    >>> _public_proxy("http://me:${PW}@proxy:3128")
    'http://***:${PW}@proxy:3128'
    """
    if _VARIABLES.fullmatch(written):
        return written
    found = _PROXY.fullmatch(written)
    if not found:
        return None
    scheme, info, host = found.groups()
    parts = [part if _VARIABLES.fullmatch(part) else _HIDDEN for part in info.split(":")] if info else []
    return f"{scheme}{':'.join(parts)}@{host}" if parts else written


def _without_user(proxy: str) -> str:
    info = _info(proxy)
    return escaped(proxy if info is None else proxy.replace(f"{info}@", f"{_HIDDEN}@", 1))
