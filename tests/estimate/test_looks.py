"""A short run is trained rather than looked at."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingot.estimate.looks import BETWEEN_SAMPLES, MEASURING, Looks
from ingot.estimate.time import stage_flops
from ingot.model.architecture import forward_flops
from ingot.recipe.recipe import Recipe
from ingot.rhythm import Every

DEMO = Recipe.load("demo")
ARCH = DEMO.model.with_vocabulary(8192)
HELD_OUT = 137_498


def times(rhythm: Every, steps: int) -> int:
    return sum(rhythm.due(step, steps, (0, 0)) for step in range(1, steps + 1))


@given(st.integers(1, 300))
def test_evaluations_by_share_take_no_more_than_a_quarter_of_the_training(steps: int):
    looks = Looks.of(DEMO, ARCH, steps, HELD_OUT)
    evaluations, samples = times(looks.evaluation, steps), times(looks.samples, steps)
    training = steps * DEMO.train.batch_tokens * stage_flops(DEMO, ARCH, DEMO.stages[0])
    measuring = DEMO.evaluation.max_tokens * forward_flops(ARCH, (ARCH.context + 1) / 2)
    assert evaluations == 1 or evaluations * measuring <= MEASURING * training
    assert 1 <= evaluations <= 5
    assert samples == 1 or samples * BETWEEN_SAMPLES <= steps
    assert 1 <= samples <= 10


def test_a_run_of_usual_length_keeps_its_rhythm_and_steps_are_taken_at_their_word():
    looks = Looks.of(DEMO, ARCH, 574, HELD_OUT)
    assert (looks.evaluation, looks.samples) == (Every.parse("20%"), Every.parse("10%"))
    exact = Recipe.load("demo", ["evaluation.every=1 steps", "samples.every=2 steps", "evaluation.tasks_every=never"])
    looks = Looks.of(exact, ARCH, 20, HELD_OUT)
    assert [times(rhythm, 20) for rhythm in (looks.evaluation, looks.samples, looks.tasks)] == [20, 10, 0]


@pytest.mark.parametrize(("steps", "evaluations", "samples"), [(5, 1, 1), (20, 1, 2), (100, 5, 10)])
def test_how_often_the_demo_is_looked_at(steps: int, evaluations: int, samples: int):
    looks = Looks.of(DEMO, ARCH, steps, HELD_OUT)
    assert times(looks.evaluation, steps) == evaluations and times(looks.samples, steps) == samples
