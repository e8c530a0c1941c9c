"""Which endpoints are slow."""

from random import Random
from statistics import median

from runner.report.paces import WARM_UP, Paces


def paces(**seconds: float) -> Paces:
    found = Paces(dict.fromkeys(seconds, 1))
    for name, generate_s in seconds.items():
        for _ in range(WARM_UP):
            found.add(name, generate_s)
    return found


def test_an_endpoint_at_half_the_speed_of_the_others_is_slow() -> None:
    found = paces(a=1.0, b=1.1, c=0.9, d=2.0)
    assert list(found.slow()) == ["d"]
    assert (found.slow()["d"].median_s, found.slow()["d"].others_s) == (2.0, 1.0)
    assert paces(a=1.0, b=1.1, c=0.9, d=1.9).slow() == {}


def test_a_difference_nobody_would_notice_is_none() -> None:
    assert paces(a=0.01, b=0.055).slow() == {}
    assert list(paces(a=0.05, b=0.11).slow()) == ["b"]


def test_nobody_is_slow_before_the_warm_up_or_alone() -> None:
    found = paces(a=1.0, b=1.0)
    assert paces(a=9.0).slow() == {}
    late = Paces({"a": 1, "b": 1})
    for _ in range(WARM_UP):
        late.add("a", 1.0)
    for _ in range(WARM_UP - 1):
        assert late.add("b", 9.0) is None
    assert late.slow() == found.slow() == {}


def test_a_slow_endpoint_is_told_once() -> None:
    found = paces(a=1.0, b=1.0)
    told = [slow for _ in range(100) if (slow := found.add("b", 5.0))]
    assert [slow.name for slow in told] == ["b"]


def test_one_slow_first_generation_is_no_slow_endpoint_and_one_that_recovers_is_none_any_more() -> None:
    found = Paces({"a": 1, "b": 1})
    for number in range(2 * WARM_UP):
        assert found.add("a", 1.0) is None
        assert found.add("b", 60.0 if number == 0 else 1.0) is None
    slow = paces(a=1.0, b=9.0)
    for _ in range(25):
        slow.add("b", 1.0)
    assert slow.slow() == {}


def test_slots_on_a_server_that_queues_make_it_no_slower() -> None:
    found = Paces({"a": 3, "b": 1, "c": 1})
    for _ in range(WARM_UP):
        for name, generate_s in (("a", 0.6), ("b", 0.2), ("c", 0.2)):
            assert found.add(name, generate_s) is None
    assert found.median_s("a") == 0.6


def test_an_endpoint_is_judged_by_the_median_of_all_others_however_they_change() -> None:
    random = Random(7)
    found = Paces(dict.fromkeys("abcde", 1))
    latest: dict[str, list[float]] = {name: [] for name in "abcde"}
    for _ in range(400):
        name = random.choice("abcde")
        for _ in range(WARM_UP):
            latest[name].append(random.choice([0.1, 0.4, 0.5, 1.5]))
            found.add(name, latest[name][-1])
        medians = {name: median(taken[-25:]) for name, taken in latest.items() if taken}
        others = {name: [one for other, one in medians.items() if other != name] for name in medians}
        slow = {name for name, rest in others.items() if rest and medians[name] >= 2 * median(rest)}
        assert found.slow().keys() == slow
