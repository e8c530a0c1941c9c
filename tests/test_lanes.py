from hypothesis import given
from hypothesis import strategies as st

from runner.lanes import deal, lane_of
from runner.records import Prompt


@given(st.integers(1, 9), st.integers(0, 60), st.sets(st.integers(0, 59)))
def test_a_prompt_keeps_its_lane_whatever_is_already_done(endpoints: int, total: int, done: set[int]) -> None:
    prompts = [Prompt(index, f"k{index}", "x.png") for index in range(total)]
    pending = [prompt for prompt in prompts if prompt.index not in done]
    backlogs = deal(pending, endpoints)
    assert len(backlogs) == endpoints
    assert sorted(prompt.index for backlog in backlogs for prompt in backlog) == [one.index for one in pending]
    for lane, backlog in enumerate(backlogs):
        assert all(prompt.index % endpoints == lane == lane_of(prompt, endpoints) for prompt in backlog)
        assert list(backlog) == sorted(backlog, key=lambda prompt: prompt.index)
