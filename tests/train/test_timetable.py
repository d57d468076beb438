"""The timetable: closed forms agree with walking through the run."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingot.recipe import Duration, Stage
from ingot.train.timetable import Timetable, steps_for, steps_for_minutes


@given(st.integers(3, 500), st.lists(st.tuples(st.integers(1, 9), st.integers(1, 8)), min_size=1, max_size=3))
def test_blocks_count_what_the_steps_take(steps, parts):
    total = sum(weight for weight, _ in parts)
    stages = tuple(Stage(share=weight / total, length=64, batch_tokens=64 * rows) for weight, rows in parts)
    timetable = Timetable(steps, stages, block=64)
    walked = 0
    for step in range(steps):
        assert timetable.blocks(step) == walked
        walked += timetable.stage(step).batch_tokens // 64
    assert timetable.blocks(steps) == walked
    assert timetable.ends[-1] == steps


def test_durations_come_to_steps():
    stages = [Stage(share=0.5, length=64, batch_tokens=64), Stage(share=0.5, length=64, batch_tokens=192)]
    for text, steps in [
        ("300 steps", 300),
        ("12.8k tokens", 100),
        ("2 epochs", 200),
        ("20 tokens per parameter", 1_000),
        ("1 step", 2),  # every stage gets a step
    ]:
        assert steps_for(Duration.parse(text), stages, epoch_tokens=12_800, parameters=6_400) == steps
    assert steps_for_minutes(2, stages, [0.5, 1.5]) == 120


@pytest.mark.parametrize("text", ["", "5", "5 parsecs", "minutes", "0 steps", "-3 steps"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ValueError, match="is no duration"):
        Duration.parse(text)
