"""A run's folder: there once something was made, and never touched by a start that fails."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ingot.checkpoint.store import Checkpoints
from ingot.errors import UserError
from ingot.recipe.recipe import Recipe
from ingot.train import run as run_module
from ingot.train.folder import begin
from ingot.train.run import train

BROKEN = "data.sources.0.path=nowhere/*.txt"
SHORT = ["train.duration=2 steps", "samples.every=never"]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_start_that_fails_leaves_nothing(tiny: Callable[..., Path]):
    recipe = Recipe.load(tiny(), [BROKEN])
    with pytest.raises(UserError, match="there is no"):
        train(recipe)
    assert not recipe.folder.exists()


def test_a_start_that_fails_does_not_touch_what_is_there(tiny: Callable[..., Path]):
    folder = train(Recipe.load(tiny(), SHORT))
    before = contents(folder)
    with pytest.raises(UserError, match=r"was begun with model\.layers"):
        train(Recipe.load(tiny(), [*SHORT, "model.layers=3"]))
    assert contents(folder) == before
    with pytest.raises(UserError, match="there is no"):
        train(Recipe.load(tiny(), [*SHORT, BROKEN]), fresh=True)
    assert contents(folder) == before, "moved aside for the new one, it comes back when there is none"
    assert [path.name for path in folder.parent.iterdir() if not path.name.startswith(".")] == ["tiny"]


def test_what_has_made_a_step_stays(tiny: Callable[..., Path], monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> None:
        raise UserError("no more")

    monkeypatch.setattr(run_module, "held_out_loss", fail)
    recipe = Recipe.load(tiny(), [*SHORT, "train.save_every=never", "evaluation.every=1 steps"])
    with pytest.raises(UserError, match="no more"):
        train(recipe)
    assert (recipe.folder / "checkpoints/step-000001").is_dir() and (recipe.folder / "metrics.jsonl").exists()


@pytest.mark.parametrize(
    "change",
    [
        *("samples.every=never", "evaluation.max_tokens=99", "early_stopping.patience=2", "health.spike=0"),
        *("track=[tensorboard]", "parallel=ddp", "memory.checkpoint_every=1", "train.save_every=never", "train.keep=5"),
        *("train.precision=bf16", "train.compile=yes", "train.duration=48 steps", "train.duration=12 steps"),
    ],
)
def test_a_run_goes_on_with_another_way_to_watch_keep_or_compute_it_or_another_duration(
    tiny: Callable[..., Path], change: str, monkeypatch: pytest.MonkeyPatch
):
    """As README says; whether the steps of a shorter duration are made already is seen once the checkpoint is read."""
    begun, changed = begin(Recipe.load(tiny())), Recipe.load(tiny(), [change])
    monkeypatch.setattr(Checkpoints, "all", lambda self: ["a checkpoint"])
    assert begin(changed) == changed != begun
    with pytest.raises(UserError, match="this run was begun with seed=1, not 2"):
        begin(Recipe.load(tiny(), ["seed=2"]))
