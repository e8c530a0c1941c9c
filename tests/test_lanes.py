from hypothesis import given
from hypothesis import strategies as st

from runner.lanes import deal, lane_of


@given(st.integers(1, 9), st.integers(0, 60), st.sets(st.integers(0, 59)))
def test_a_prompt_keeps_its_lane_whatever_is_already_done(endpoints: int, total: int, done: set[int]) -> None:
    pending = [index for index in range(total) if index not in done]
    backlogs = deal(pending, endpoints)
    assert len(backlogs) == endpoints
    assert sorted(index for backlog in backlogs for index in backlog) == pending
    for lane, backlog in enumerate(backlogs):
        assert all(index % endpoints == lane == lane_of(index, endpoints) for index in backlog)
        assert list(backlog) == sorted(backlog)
