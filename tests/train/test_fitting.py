"""Rows of a forward pass: predicted, tried, settled once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ingot.distributed import World
from ingot.engine.engine import Engine
from ingot.engine.memory import SPARE
from ingot.errors import UserError
from ingot.estimate.devices import Device
from ingot.estimate.memory import largest, works
from ingot.model.decoder import Decoder
from ingot.recipe.recipe import Recipe
from ingot.train import fitting
from ingot.train.fitting import fitted, trial
from ingot.train.folder import begin

RECIPE = {
    "name": "fit",
    "data": {"sources": [{"kind": "local", "path": "x.txt"}]},
    "model": {"family": "llama", "vocabulary": 61, "context": 64, "layers": 2, "hidden_size": 32, "heads": 2},
    "train": {"batch_tokens": 64 * 12},
}


def recipe(**memory: object) -> Recipe:
    return Recipe.model_validate(RECIPE | {"memory": memory})


def engine(asked: Recipe) -> Engine:
    world = World(0, 1, torch.device("cpu"))
    return asked.parallel.build(Decoder(asked.model), asked.optimizer, world, clip=1.0, precision="fp32")


def settle(asked: Recipe, room: float, monkeypatch: pytest.MonkeyPatch) -> tuple[Recipe, list[str]]:
    """The recipe that fits where so many bytes are left, and what is said."""
    said: list[str] = []
    monkeypatch.setattr(fitting, "available", lambda device: room)
    return fitted(engine(asked), asked, asked.model, "fp32", said.append, past=False), said


def test_where_there_is_room_the_whole_batch_is_taken(monkeypatch: pytest.MonkeyPatch):
    made, said = settle(recipe(), 1e12, monkeypatch)
    assert made.memory.micro_batch == 12 and made.micro_tokens == 64 * 12 and not said


def room_for(rows: int, asked: Recipe) -> float:
    """Bytes that must be left beside the weights for so many rows, and no more."""
    cpu = Device("cpu", "cpu", memory=0.0, peaks={})
    planned = works(asked, cpu, precision="fp32", compiled=False, blocks=rows)
    weights = 4 * sum(parameter.numel() for parameter in Decoder(asked.model).parameters())
    return largest(asked, asked.model, planned).total / (1 - SPARE) - weights + 1


@pytest.mark.parametrize("rows", [6, 3, 2, 1])
def test_less_memory_is_less_at_once_and_said_in_one_line(rows: int, monkeypatch: pytest.MonkeyPatch):
    made, said = settle(recipe(), room_for(rows, recipe()), monkeypatch)
    assert made.memory.micro_batch == rows
    steps = 12 // rows
    assert said == [f"memory: {rows} rows of 64 tokens fit into a forward pass; a step takes {steps}"]


def test_computing_again_lets_more_rows_fit(monkeypatch: pytest.MonkeyPatch):
    deep = recipe().model_copy(update={"model": recipe().model.model_copy(update={"layers": 12})})
    again, _ = settle(deep.with_memory(checkpoint_every=1), room_for(3, deep), monkeypatch)
    assert again.memory.micro_batch > 3


def test_no_room_for_a_row_is_one_line_with_its_mend(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(UserError, match=r"memory: not even one row of 64 tokens .*checkpoint_every=1"):
        settle(recipe(), 1e3, monkeypatch)


def test_what_is_asked_for_is_taken(monkeypatch: pytest.MonkeyPatch):
    made, _ = settle(recipe(micro_batch=5), 1e3, monkeypatch)
    assert made.memory.micro_batch == 5


def test_a_trial_shows_what_a_step_of_several_micro_batches_holds(monkeypatch: pytest.MonkeyPatch):
    """On a GPU the prediction is only where it begins: what does not survive there is halved."""
    tried: list[tuple[int, int]] = []

    def survives(engine: object, batches: list[object], candidates: int) -> bool:
        tried.append((len(batches), len(batches[0].inputs)))
        return tried[-1][1] <= 3

    class OnAGPU:
        model, world = Decoder(recipe().model), World(0, 1, torch.device("cuda"))

    monkeypatch.setattr(fitting, "available", lambda device: 1e12)
    monkeypatch.setattr(fitting, "survives", survives)
    made = fitted(OnAGPU(), recipe(), recipe().model, "bf16", print, past=False)
    assert made.memory.micro_batch == 3
    assert tried == [(1, 12), (2, 6), (2, 3)]
    tried.clear()
    assert fitted(OnAGPU(), recipe(), recipe().model, "bf16", print, past=True).memory.micro_batch == 12
    assert not tried, "a trial would cost a run its past"


def test_the_trial_takes_the_longest_rows_packed():
    works = [fitting.Work(rows=4, length=16), fitting.Work(rows=1, length=64)]
    (batch,) = trial(recipe().model, works)
    assert batch.inputs.shape == (1, 64) and batch.packed
    assert (batch.positions == 0).sum() == 2


def test_a_run_goes_on_with_the_rows_that_it_began_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    begun = recipe().model_copy(update={"runs": tmp_path})
    begin(begun.with_memory(micro_batch=3))
    monkeypatch.setattr("ingot.train.folder.Checkpoints.all", lambda self: [Path("step-1")])
    assert begin(begun).memory.micro_batch == 3
    assert begin(begun.with_memory(micro_batch=2, checkpoint_every=1)).memory.micro_batch == 2
