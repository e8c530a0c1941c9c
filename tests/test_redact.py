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
