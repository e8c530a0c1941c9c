import threading

from runner.deadline import Deadlines


def test_who_is_late_is_told_once_and_who_is_cleared_is_not() -> None:
    deadlines, late, told = Deadlines(), threading.Event(), []
    deadlines.set("a", 0.0, lambda: told.append("a"))
    deadlines.set("b", 0.0, lambda: told.append("b"))
    deadlines.clear("b")
    deadlines.set("c", 0.15, late.set)
    assert late.wait(10)
    assert told == ["a"]


def test_a_deadline_set_anew_replaces_the_older() -> None:
    deadlines, late, told = Deadlines(), threading.Event(), []
    deadlines.set("a", 0.0, lambda: told.append("old"))
    deadlines.set("a", 600, lambda: told.append("new"))
    deadlines.set("b", 0.15, late.set)
    assert late.wait(10)
    assert told == []


def test_after_a_time_without_any_deadline_the_next_is_kept_too() -> None:
    deadlines = Deadlines()
    for _ in range(3):
        late = threading.Event()
        deadlines.set("a", 0.0, late.set)
        assert late.wait(10)
