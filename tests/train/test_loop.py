"""The loop's own decisions: when a run has learned out, and when a rhythm of epochs falls due."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from courses import records
from hypothesis import given
from hypothesis import strategies as st

from ingot.checkpoint.store import Checkpoints
from ingot.recipe.recipe import Recipe
from ingot.recipe.sections import EarlyStopping
from ingot.train.loop import State
from ingot.train.run import train

losses = st.lists(st.floats(0, 10), min_size=1, max_size=30)


@given(losses, st.integers(0, 4), st.floats(0, 1))
def test_patience_counts_validations_since_the_last_gain(validations, patience, gain):
    settings, state = EarlyStopping(patience=patience, min_gain=gain), State()
    lowest, since = math.inf, 0
    for step, loss in enumerate(validations, 1):
        state.step = step
        state.hear(loss, settings)
        lowest, since = (loss, 0) if loss < lowest - gain else (lowest, since + 1)
        assert (state.lowest, state.waited, state.lowest_at) == (lowest, since, step - since)
        assert state.learned_out(settings) == (patience > 0 and since >= patience)
    assert State(**state.to_dict()) == state  # as a checkpoint keeps it


def validations(folder: Path) -> list[tuple[int, bool]]:
    return [(one["step"], one["whole"]) for one in records(folder, "validation")]


def recipe_of(tiny: Callable, *overrides: str, **values: Any) -> Recipe:
    every = ["samples.every=never", "evaluation.max_tokens=200", "evaluation.every=2 steps"]
    return Recipe.load(tiny(save_every="never", **values), [*every, *overrides])


def test_a_run_that_gains_no_more_ends_with_all_its_figures_and_goes_on_with_more_patience(tiny: Callable, capsys):
    stingy = "early_stopping={patience: 2, min_gain: 100}"  # the first loss is a gain, no other can be
    folder = train(recipe_of(tiny, stingy, duration="12 steps"))
    said = capsys.readouterr().out
    assert "stopped early: 2 evaluations without a gain on step 2" in said and "tiny@best" in said
    assert validations(folder) == [(2, False), (4, False), (6, False), (6, True)]
    assert Checkpoints(folder).all()[-1].step == 6
    train(recipe_of(tiny, stingy, duration="12 steps"))
    assert (
        "this run is complete, with 6 steps; a larger early_stopping.patience goes on with it"
        in capsys.readouterr().out
    )
    train(recipe_of(tiny, "early_stopping={patience: 3, min_gain: 100}", duration="12 steps"))
    assert validations(folder) == [(2, False), (4, False), (6, False), (6, True), (8, False), (8, True)]


def test_a_run_that_is_killed_before_it_measured_waits_as_long_as_one_that_was_not(tiny: Callable, monkeypatch):
    """The checkpoint is older than the validation that follows it, which is made again."""
    stingy = "early_stopping={patience: 2, min_gain: 100}"
    recipe = recipe_of(tiny, stingy, duration="12 steps")
    hear, calls = State.hear, []

    def killed(self: State, *heard: Any) -> None:
        calls.append(heard)
        if len(calls) == 2:
            raise MemoryError
        hear(self, *heard)

    with monkeypatch.context() as patch:
        patch.setattr(State, "hear", killed)
        with contextlib.suppress(MemoryError):
            train(recipe)
    train(recipe)
    assert validations(recipe.folder) == [(2, False), (4, False), (6, False), (6, True)]


def test_epochs_end_at_the_step_that_completes_them(tiny: Callable, capsys):
    recipe = recipe_of(tiny, "evaluation.every=epoch", duration="2 epochs", batch_tokens=4096, keep=9)
    folder = train(recipe)
    tokens = records(folder)[0]["train_tokens"]
    blocks = math.ceil((tokens - 1) / 32)
    first = math.ceil(blocks / (4096 // 32))  # the step whose blocks complete the first epoch
    saved = [checkpoint.step for checkpoint in Checkpoints(folder).all()]
    assert saved[0] == first and first in [step for step, whole in validations(folder)]
    assert 2 <= len(saved) <= 3
