"""Runs that get over their faults: what is left out, how they go back, and that a healed run is as exact as any.

Faults are put into the forward pass, where a text or a machine would bring them in: into the loss of chosen blocks.
"""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from courses import records
from faults import BLOCKS, Faults
from hypothesis import given
from hypothesis import strategies as st
from launch import crew, finish, start

from ingot.checkpoint.state import load_state
from ingot.checkpoint.store import Checkpoints
from ingot.errors import UserError
from ingot.recipe.recipe import Recipe
from ingot.train.health import LEAST, STEADY, highest
from ingot.train.loop import Loop, State
from ingot.train.run import train

QUIET = ["samples.every=never", "evaluation.max_tokens=200", "loss=full", "optimizer={kind: adamw, lr: 0.01}"]


def course(folder: Path) -> list[dict[str, Any]]:
    """All that a run recorded of its steps, but for the time that it took."""
    timed = ("seconds", "tokens_per_second", "share_of_peak")
    found = records(folder, "train", "health", "rollback", "validation")
    return [{key: value for key, value in record.items() if key not in timed} for record in found]


def state_of(folder: Path) -> State:
    latest = Checkpoints(folder).latest()
    assert latest
    return State(**load_state(latest.path / "train")["state"])


def files_of(folder: Path) -> dict[str, bytes]:
    """The last checkpoint's weights and optimizer state."""
    latest = Checkpoints(folder).latest()
    assert latest
    names = ("model/model.safetensors", "train/tensors.safetensors")
    return {name: (latest.path / name).read_bytes() for name in names}


def assert_same_end(one: Path, other: Path) -> None:
    assert course(one) == course(other)
    assert files_of(one) == files_of(other)
    left, right = (state_of(folder).to_dict() | {"seconds": 0} for folder in (one, other))
    assert left == right


def killed_at(step: int, recipe: Recipe, monkeypatch: pytest.MonkeyPatch, nth: int = 1) -> None:
    """Train until the step after `step` done ones begins the `nth` time, and no further."""
    made, seen = Loop._step, []

    def stopping(loop: Loop, state: State) -> None:
        seen.append(state.step)
        if seen.count(step) == nth:
            raise MemoryError
        made(loop, state)

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_step", stopping)
        with contextlib.suppress(MemoryError):
            train(recipe)
            pytest.fail("it came to its end")


# --- what a spike is --------------------------------------------------------------------------------------------------


@given(st.floats(0.5, 12), st.floats(0.0, 0.3), st.integers(0, 2**32), st.integers(0, 9))
def test_a_leap_is_a_spike_whatever_outliers_came_before_and_noise_is_none(level, noise, seed, outliers):
    draw = random.Random(seed)
    losses = [level + noise * draw.uniform(-1, 1) for _ in range(40)] + [1e6] * outliers
    draw.shuffle(losses)
    limit = highest(losses, 10)
    assert level + noise < limit < level + noise + 10 * max(2 * noise, STEADY) + 1e-9


def test_nothing_is_a_spike_at_first_or_where_none_is_looked_for():
    assert highest([1.0] * (LEAST - 1), 10) == highest([1.0] * 50, 0) == math.inf
    assert highest([1.0] * LEAST, 10) == pytest.approx(1 + 10 * STEADY)


# --- single steps -----------------------------------------------------------------------------------------------------


def test_no_number_in_one_batch_costs_that_step_and_nothing_else(tiny: Callable, faults: Faults, capsys):
    faults.put([9])
    folder = train(Recipe.load(tiny(duration="12 steps"), QUIET))
    (event,) = records(folder, "health")
    assert event["step"] == 9 and event["loss"] is None and event["blocks"] == [8 * BLOCKS, 9 * BLOCKS]
    assert [record["step"] for record in records(folder, "train", "health")] == list(range(1, 13))
    assert "step      9  the loss or its gradient was no number: the update was left out" in capsys.readouterr().out
    state = state_of(folder)
    assert (state.step, state.blocks, state.refused) == (12, 12 * BLOCKS, 0)
    page = (folder / "report.html").read_text()
    assert "What it got over" in page and ">update left out</td>" in page and ">64 to 71</td>" in page


def test_a_step_that_is_left_out_changes_no_weight(tiny: Callable, faults: Faults):
    recipe = Recipe.load(tiny(duration="8 steps", save_every="1 steps", keep=9), QUIET)
    faults.put([1, 8])  # the first step of all, too
    folder = train(recipe)
    weights = [(one.model / "model.safetensors").read_bytes() for one in Checkpoints(folder).all()]
    assert weights[6] == weights[7] and weights[5] != weights[6]
    states = [(one.path / "train/tensors.safetensors").read_bytes() for one in Checkpoints(folder).all()]
    assert states[6] == states[7]


def test_a_spike_is_left_out_unless_none_is_looked_for(tiny: Callable, faults: Faults):
    faults.put([23], 10.0)
    calm = train(Recipe.load(tiny("calm"), QUIET))
    (event,) = records(calm, "health")
    assert event["step"] == 23 and event["reason"] == f"the loss leapt to {event['loss']:.3f}"
    brave = train(Recipe.load(tiny("brave"), [*QUIET, "health.spike=0"]))
    assert not records(brave, "health") and files_of(brave) != files_of(calm)


# --- going back -------------------------------------------------------------------------------------------------------


def test_several_bad_steps_send_the_run_back_and_past_them(tiny: Callable, faults: Faults, capsys):
    faults.put([15, 16, 17])
    folder = train(Recipe.load(tiny(), [*QUIET, "health.rate_factor=0.5"]))
    said = "went back from step 17 to the checkpoint of step 12 (1 of 3 times); what was read since, blocks 96 to 135"
    assert f"{said}, is skipped, at ×0.5 of the rate" in capsys.readouterr().out
    assert [record["step"] for record in records(folder, "train")] == list(range(1, 25)), "each step once, in order"
    (event,) = records(folder, "rollback")
    why = "the loss or its gradient was no number"
    assert {**event, "step": 12, "from": 17, "to": 12, "blocks": [96, 136], "reason": why} == event
    assert faults.taken[17] == 17 * BLOCKS and faults.taken == sorted(set(faults.taken)), "no row comes twice"
    state = state_of(folder)
    assert (state.step, state.blocks, state.rate) == (24, (24 + 5) * BLOCKS, 0.5)
    rates = [record["rate"] for record in records(folder, "train")]
    assert rates[11] == 1 and rates[12] == 0.5
    assert ">went back from step 17</td>" in (folder / "report.html").read_text()


def test_what_comes_after_going_back_is_what_the_checkpoint_makes_of_the_rows_ahead(
    tiny: Callable, faults: Faults, monkeypatch
):
    """The reference: a run that stops at the checkpoint, and whose position is then moved by hand."""
    whole = Recipe.load(tiny("whole", duration="16 steps"), QUIET)
    faults.put([13, 14, 15])
    healed = train(whole)
    faults.at = {}
    moved = Recipe.load(tiny("moved", duration="16 steps"), QUIET)
    killed_at(12, moved, monkeypatch)
    made = Loop._step

    def ahead(loop: Loop, state: State) -> None:
        if state.step == 12:
            state.blocks, state.losses = 15 * BLOCKS, []
        made(loop, state)

    monkeypatch.setattr(Loop, "_step", ahead)
    assert files_of(train(moved)) == files_of(healed)


def test_a_healed_run_that_is_killed_at_any_time_ends_as_one_that_is_not(tiny: Callable, faults: Faults, monkeypatch):
    faults.put([4, 15, 16, 17, 18, 19, 20, 27, 28, 29])  # back to 12 twice in a row, and once more later
    healing = [*QUIET, "health.rate_factor=0.5", "early_stopping.patience=9"]
    whole = train(Recipe.load(tiny("whole"), healing))
    assert [event["to"] for event in records(whole, "rollback")] == [12, 12, 18]
    cut = Recipe.load(tiny("cut"), healing)
    # Among the bad steps; just after the first way back and on the second; when healed, before and after a save.
    for step, nth in ((16, 1), (12, 2), (14, 2), (19, 1), (20, 1)):
        killed_at(step, cut, monkeypatch, nth)
    assert_same_end(train(cut), whole)


@pytest.mark.slow
def test_a_run_that_streams_its_text_is_healed_as_well(tiny: Callable, faults: Faults, monkeypatch):
    faults.put([3, 4, 5])
    streaming = [*QUIET, "data.live=true", "evaluation.every=never"]
    recipes = [
        Recipe.load(tiny(name, duration="8 steps", save_every="2 steps"), streaming) for name in ("whole", "cut")
    ]
    whole = train(recipes[0])
    assert [event["blocks"] for event in records(whole, "rollback")] == [[2 * BLOCKS, 5 * BLOCKS]]
    for step, nth in ((3, 2), (5, 1)):
        killed_at(step, recipes[1], monkeypatch, nth)
    assert_same_end(train(recipes[1]), whole)


def test_a_checkpoint_among_the_bad_steps_is_neither_gone_back_to_nor_left_there(tiny: Callable, faults: Faults):
    faults.put([4, 5, 6])
    folder = train(
        Recipe.load(tiny(duration="9 steps", save_every="1 steps", keep=1), [*QUIET, "evaluation.every=never"])
    )
    (event,) = records(folder, "rollback")
    assert event["to"] == 3 and event["blocks"] == [3 * BLOCKS, 6 * BLOCKS]
    assert [one.step for one in Checkpoints(folder).all()] == [9]
    assert state_of(folder).blocks == 12 * BLOCKS


def test_a_run_that_no_way_back_helps_ends_and_keeps_its_checkpoint(tiny: Callable, faults: Faults):
    recipe = Recipe.load(tiny(), [*QUIET, "health.rollbacks=1", "health.patience=2"])
    faults.put(range(15, 99))
    with pytest.raises(
        UserError, match=r"at step 14, the last of 2 updates left out in a row; going back did not help"
    ):
        train(recipe)
    assert [one.step for one in Checkpoints(recipe.folder).all()] == [6, 12]
    assert len(records(recipe.folder, "rollback")) == 1 and (recipe.folder / "report.html").exists()
    faults.at = {}
    more = train(Recipe.load(tiny(), [*QUIET, "health.rollbacks=2"]))  # these keys are free to change
    assert records(more, "train")[-1]["step"] == 24


def test_without_a_checkpoint_there_is_no_way_back(tiny: Callable, faults: Faults):
    faults.put(range(1, 9))
    with pytest.raises(UserError, match="there is no checkpoint to go back to"):
        train(Recipe.load(tiny(save_every="never"), [*QUIET, "evaluation.every=never"]))


# --- several processes ------------------------------------------------------------------------------------------------

RANKS = """
import sys
import pytest
sys.path.insert(0, sys.argv[1])
from faults import Faults
from test_health import QUIET
from ingot.distributed import World
from ingot.recipe.recipe import Recipe
from ingot.train.run import train
with pytest.MonkeyPatch.context() as patch:
    faults = Faults(patch)
    if World.join("cpu").rank == 1:  # the other one hears of it from the sums alone
        faults.put([9, 15, 16, 17])
    train(Recipe.load(sys.argv[2], [*QUIET, *sys.argv[3:]]))
"""


def test_ranks_agree_on_what_only_one_of_them_sees(tiny: Callable, faults: Faults, tmp_path: Path):
    script = tmp_path / "ranks.py"
    script.write_text(RANKS)
    command = crew(str(script), str(Path(__file__).parent), str(tiny("shared")), "parallel=zero3")
    assert finish(start(command)).count("went back from step 17 to the checkpoint of step 12") == 1
    shared = Recipe.load(tiny("shared")).folder
    faults.put([9, 15, 16, 17])
    alone = train(Recipe.load(tiny("alone"), QUIET))
    for one, other in zip(course(shared), course(alone), strict=True):
        assert one["step"] == other["step"] and one["kind"] == other["kind"]
        assert one.get("blocks") == other.get("blocks")
        if one["kind"] == "train":
            assert one["loss"] == pytest.approx(other["loss"], rel=1e-3)
