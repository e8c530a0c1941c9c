import pytest

from runner.errors import ImageError, StatusError, TransportError
from runner.retry import wait_before_next
from runner.settings import Retry

POLICY = Retry(attempts=6, backoff_s=1.5, backoff_max_s=10)


@pytest.mark.parametrize(("attempt", "longest"), [(1, 1.5), (2, 3), (3, 6), (4, 10), (5, 10)])
def test_the_wait_doubles_up_to_its_cap_and_jitter_takes_up_to_half(attempt: int, longest: float) -> None:
    error = TransportError("reset")
    assert wait_before_next(error, attempt, POLICY, jitter=lambda: 0) == longest
    assert wait_before_next(error, attempt, POLICY, jitter=lambda: 1) == longest / 2


def test_after_the_last_attempt_there_is_none() -> None:
    assert wait_before_next(TransportError("reset"), 6, POLICY) is None


def test_what_is_permanent_is_not_tried_again() -> None:
    assert wait_before_next(StatusError("422", again=False, blame="prompt"), 1, POLICY) is None
    assert wait_before_next(ImageError("404"), 1, POLICY) is None


def test_a_huge_number_of_attempts_overflows_nothing() -> None:
    assert wait_before_next(TransportError("reset"), 5000, Retry(attempts=9999), jitter=lambda: 0) == 10
