"""The timetable: stages in their order and by their shares, durations as steps."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ingot.recipe.recipe import Recipe
from ingot.recipe.sections import Stage
from ingot.rhythm import Duration
from ingot.train.timetable import Timetable, steps_for, steps_for_minutes, too_few


@given(st.integers(3, 500), st.lists(st.integers(1, 9), min_size=1, max_size=3))
def test_each_stage_has_its_share_of_the_steps_in_order(steps, weights):
    total = sum(weights)
    stages = tuple(Stage(share=part / total, length=8 + place, batch_tokens=64) for place, part in enumerate(weights))
    timetable = Timetable(steps, stages)
    walked = [timetable.stage(step) for step in range(steps)]
    assert walked == sorted(walked, key=lambda stage: stage.length)
    for stage in stages:
        assert abs(walked.count(stage) - stage.share * steps) <= 1


@given(st.integers(1, 500), st.lists(st.tuples(st.integers(1, 9), st.integers(1, 5)), min_size=1, max_size=4))
def test_stages_end_at_the_blocks_that_their_steps_use_up(steps, parts):
    total = sum(share for share, _ in parts)
    stages = tuple(Stage(share=share / total, length=8, batch_tokens=32 * rows) for share, rows in parts)
    timetable, used, ends = Timetable(steps, stages), 0, {}
    for step in range(steps):
        stage = timetable.stage(step)
        used += stage.batch_tokens // 32
        ends[id(stage)] = used
    expected = 0
    for stage, end in zip(stages, timetable.blocks(32), strict=True):
        expected = ends.get(id(stage), expected)  # a stage can be too short for a step
        assert end == expected


def test_durations_come_to_steps():
    stages = [Stage(share=0.5, length=64, batch_tokens=64), Stage(share=0.5, length=64, batch_tokens=192)]
    for text, steps in [
        ("300 steps", 300),
        ("12.8k tokens", 100),
        ("2 epochs", 200),
        ("20 tokens per parameter", 1_000),
        ("1 step", 2),  # every stage gets a step
        ("5 minutes", None),
    ]:
        assert steps_for(Duration.parse(text), stages, epoch_tokens=12_800, parameters=6_400) == steps
    assert steps_for_minutes(2, stages, [0.5, 1.5]) == 120


def test_so_few_steps_that_they_teach_little_are_said_unless_they_were_asked_for():
    demo = Recipe.load("demo")
    assert "40 steps teach little" in too_few(demo, 40) and not too_few(demo, 400)
    assert not too_few(demo.with_training(duration="40 steps"), 40)
