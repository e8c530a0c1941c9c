import base64
import html
import json
from urllib.parse import quote, quote_plus

import pytest

from runner.redact import Redactor, public_url


@pytest.mark.parametrize(
    ("url", "public"),
    [
        ("https://h/a.png", "https://h/a.png"),
        ("https://u:p@h:1/a.png?v=2", "https://h:1/a.png?v=2"),
        ("https://h/a.png?X-Amz-Signature=1&X-Amz-Date=2&v=3", "https://h/a.png?v=3"),
        ("https://h/a.png?sv=1&se=2&sig=3", "https://h/a.png"),
        ("https://h/a.png?api_key=1&access_token=2&size=3#x", "https://h/a.png?size=3"),
    ],
)
def test_a_public_url_has_no_user_info_no_signature_and_no_fragment(url: str, public: str) -> None:
    assert public_url(url) == public


def test_named_secrets_are_replaced_by_their_name_others_by_stars() -> None:
    redactor = Redactor({"TOKEN": "hunter2hunter2", "N": "4"}, ["s3cret!", "s3cret!longer"])
    assert redactor.text("a hunter2hunter2 s3cret!longer s3cret! 4") == "a ${TOKEN} *** *** 4"


def test_urls_in_a_text_are_shown_without_their_secrets() -> None:
    said = "Invalid URL 'https://me:pw@h/a.png?v=1&sig=abc', see http://h:1: refused"
    assert Redactor().text(said) == "Invalid URL 'https://h/a.png?v=1', see http://h:1: refused"


def test_nothing_to_hide_changes_nothing() -> None:
    assert Redactor().text("a") == "a"


SECRET = 'hunter2+/ü "sweet"  <end>'


@pytest.mark.parametrize(
    "form",
    [
        SECRET,
        quote(SECRET),
        quote(SECRET, safe=""),
        quote(SECRET, safe="").lower(),
        quote_plus(SECRET),
        json.dumps(SECRET)[1:-1],
        SECRET.replace("/", "\\/"),
        html.escape(SECRET),
        " ".join(SECRET.split()),
        base64.b64encode(SECRET.encode()).decode(),
        base64.b64encode(SECRET.encode("latin-1")).decode().rstrip("="),
        base64.urlsafe_b64encode(SECRET.encode()).decode(),
    ],
)
def test_a_secret_is_known_again_in_every_form_and_by_its_beginning_where_it_was_cut(form: str) -> None:
    redactor = Redactor({"PW": SECRET}, ["another"])
    assert redactor.text(f"got {form}, sorry").replace("=", "") == "got ${PW}, sorry"
    for cut in range(6, len(form.rstrip("="))):
        if not form[:cut].endswith('"'):
            assert redactor.text(f"got {form[:cut]}…; again, in 1s") == "got ${PW}…; again, in 1s"
    assert redactor.text(f"starts with b'{form[:9]}'") == "starts with b'${PW}'"
    assert redactor.text("got hunte…") == "got hunte…"


def test_what_can_not_be_parsed_as_a_url_shows_no_password_either() -> None:
    assert public_url("https://me:hunter2@[x/a.png?token=hunter2") == "https://[x/a.png"
