"""Runs that are killed at any moment, also while a checkpoint is being written beside the steps, lose nothing."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from courses import assert_same_run, exact_records, weights_and_state
from phases import Ended

from ingot.checkpoint.store import Checkpoints
from ingot.recipe.recipe import Recipe

STEPS, KILLS = 150, 30
RUN = {"duration": f"{STEPS} steps", "save_every": "5 steps", "keep": 999}
LOOKS = ("evaluation.every=15 steps", "evaluation.max_tokens=200", "samples.every=15 steps")
# Where a kill comes: the phase, and how often the run gets there before it.
MOMENTS = {
    "preparing": 1,
    "stepping": 12,
    "copying": 2,
    "writing": 2,
    "writing, flush": 2,
    "writing, recorded": 2,
    "evaluating": 1,
    "sampling": 1,
}


def assert_on_the_way(folder: Path, whole: Path) -> None:
    """Every checkpoint is whole and that of the other run, which was not killed; and so is every record."""
    checkpoints = Checkpoints(folder)
    for checkpoint in checkpoints.all():
        ours, theirs = (weights_and_state(run, checkpoint.step) for run in (folder, whole))
        assert ours.keys() == theirs.keys()
        assert all(ours[name] == theirs[name] for name in ours if name != "train/state.json")
    assert not checkpoints.damaged
    if (folder / "metrics.jsonl").exists():
        made = exact_records(folder)
        assert made == exact_records(whole)[: len(made)]


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_killed_at_thirty_moments_a_run_ends_as_one_that_was_not(
    tiny: Callable[..., Path], signalled: Callable[..., Ended], tmp_path: Path
):
    assert signalled(tiny("whole", **RUN), *LOOKS).status == 0
    whole, recipe = Recipe.load(tiny("whole", **RUN)).folder, tiny("killed", **RUN)
    folder, draw, unsaved = Recipe.load(recipe).folder, random.Random(7), 0
    for number in range(KILLS):
        phase = list(MOMENTS)[number % len(MOMENTS)]
        # A phase that is not reached any more does not count: the next life begins with the first of its kind.
        elsewhere = [f"cache={tmp_path}/cache-{number}"] if phase == "preparing" else []
        nth, delay = draw.randint(1, MOMENTS[phase]), draw.random() * (0.5 if phase == "preparing" else 0.03)
        ended = signalled(recipe, *LOOKS, *elsewhere, phase=phase, nth=nth, signal=signal.SIGKILL, delay=delay)
        assert ended.status == -signal.SIGKILL, ended.output
        unsaved += ended.unsaved
        assert_on_the_way(folder, whole)
    assert unsaved >= KILLS // 4, "most of these kills were to come while a save was under way"
    ended = signalled(recipe, *LOOKS)
    assert ended.status == 0 and "going on from step" in ended.output, ended.output
    assert_same_run(folder, whole, STEPS)
