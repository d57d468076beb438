"""Checkpoints are written beside the steps, from a copy: nothing waits for them, and nothing is lost with them."""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from courses import assert_same_run, records, weights_and_state
from launch import crew, finish, start

from ingot.checkpoint.manifest import verify
from ingot.checkpoint.state import Rows, load_state
from ingot.checkpoint.store import Checkpoints
from ingot.errors import UserError
from ingot.model.huggingface import INDEX, load_model
from ingot.recipe.recipe import Recipe
from ingot.train import run, saving
from ingot.train.loop import Loop, State
from ingot.train.run import train

QUIET = ["samples.every=never", "evaluation.every=never"]
RUN = {"duration": "12 steps", "save_every": "4 steps", "keep": 9}


def steps(folder: Path) -> list[int]:
    return [verify(path).step for path in sorted((folder / "checkpoints").glob("step-*"))]


def held_up(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    """Have each save begin, which sets the first event, and write its state once the second one is set."""
    begun, gate, write = threading.Event(), threading.Event(), saving.save_state

    def slow(*arguments: Any, **settings: Any) -> None:
        begun.set()
        assert gate.wait(60), "the run waits for the save"
        write(*arguments, **settings)

    monkeypatch.setattr(saving, "save_state", slow)
    return begun, gate


def test_steps_are_made_while_a_checkpoint_is_written_and_do_not_show_in_it(tiny: Callable[..., Path], monkeypatch):
    whole = train(Recipe.load(tiny("whole", **RUN), QUIET))
    (begun, gate), seen, made = held_up(monkeypatch), [], Loop._step

    def stepping(loop: Loop, state: State) -> None:
        if begun.is_set() and not gate.is_set():
            seen.append(state.step)
            if state.step == 7:
                gate.set()
        made(loop, state)

    monkeypatch.setattr(Loop, "_step", stepping)
    folder = train(Recipe.load(tiny("slow", **RUN), QUIET))
    assert seen[-1] == 7 and set(seen) <= {4, 5, 6, 7}
    for step in (4, 8, 12):
        assert_same_run(folder, whole, step)
    saves = records(folder, "save")
    assert [record["saved"] for record in saves] == [4, 8, 12]
    assert all(record["stood_still"] > 0 and record["writing"] > 0 for record in saves)


def test_a_save_that_fails_beside_ends_the_run_with_one_line_and_no_harm(tiny: Callable[..., Path], monkeypatch):
    recipe = Recipe.load(tiny(**RUN), QUIET)
    write = saving.save_state

    def full(folder: Path, state: dict[str, Any], **settings: Any) -> None:
        if state["state"]["step"] == 8:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(folder, state, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(saving, "save_state", full)
        with pytest.raises(UserError, match="the disk is full, so this was not saved; all that was saved before is"):
            train(recipe)
    assert steps(recipe.folder) == [4] and not list((recipe.folder / "checkpoints").glob(".draft*"))
    assert (recipe.folder / "report.html").exists()
    assert_same_run(train(recipe), train(Recipe.load(tiny("whole", **RUN), QUIET)), 12)


def test_what_fails_in_the_loop_waits_for_the_save_under_way(tiny: Callable[..., Path], monkeypatch):
    recipe = Recipe.load(tiny(**RUN), ["samples.every=never", "evaluation.every=4 steps"])
    begun, gate = held_up(monkeypatch)

    def fail(*_: Any) -> None:
        assert begun.wait(60) and steps(recipe.folder) == []
        threading.Timer(0.3, gate.set).start()
        raise MemoryError

    monkeypatch.setattr(run, "held_out_loss", fail)
    with pytest.raises(MemoryError):
        train(recipe)
    assert steps(recipe.folder) == [4]


def test_without_room_for_a_copy_the_run_stands_still_and_saves_the_same(tiny: Callable[..., Path], monkeypatch):
    whole = train(Recipe.load(tiny("whole", **RUN), QUIET))
    monkeypatch.setattr(saving, "ROOM", float("inf"))
    under_way: list[bool] = []
    look = saving.Saving.look
    monkeypatch.setattr(saving.Saving, "look", lambda self: under_way.append(self._background.under_way) or look(self))
    folder = train(Recipe.load(tiny("tight", **RUN), QUIET))
    assert under_way and not any(under_way)
    for step in (4, 8, 12):
        assert_same_run(folder, whole, step)


SHARDED = """
import sys
from ingot.model import huggingface
from ingot.recipe.recipe import Recipe
from ingot.train.run import train
huggingface.FILE_BYTES = 4096  # so that even a tiny model takes a file for each process
train(Recipe.load(sys.argv[1], sys.argv[2:]))
"""


def test_each_process_writes_its_part_and_one_goes_on_with_them(tiny: Callable[..., Path], tmp_path: Path):
    settings = [*QUIET, "loss=full", "schedule={kind: constant, rise: 0}"]
    script = tmp_path / "sharded.py"
    script.write_text(SHARDED)
    recipe = str(tiny("shared", **RUN))
    finish(start(crew(str(script), recipe, *settings, "parallel=zero3", "train.duration=8 steps")))
    folder = Recipe.load(tiny("shared", **RUN)).folder
    assert steps(folder) == [4, 8]
    found = Checkpoints(folder).all()[-1]
    files = {name.removeprefix("model/"): record.bytes for name, record in found.manifest.files.items()}
    halves = [files[f"model-0000{number}-of-00002.safetensors"] for number in (1, 2)]
    assert max(halves) < 2 * min(halves) and "model.safetensors" not in files
    index = json.loads((found.model / INDEX).read_text())
    assert index["metadata"]["total_size"] == sum(one.nbytes for one in load_model(found.model).parameters())
    states = load_state(found.path / "train")["engine"]["optimizer"]["state"].values()
    rows = [value for state in states for value in state.values() if isinstance(value, Rows)]
    assert rows and all(len(value.pieces) == 2 for value in rows)
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(found.model).eval()
    ids = torch.arange(20)[None]
    torch.testing.assert_close(theirs(ids).logits, load_model(found.model).eval()(ids), rtol=1e-4, atol=1e-4)
    train(Recipe.load(tiny("shared", **RUN), settings))
    alone = train(Recipe.load(tiny("alone", **RUN), settings))
    ours, other = (load_model(Checkpoints(one).all()[-1].model).state_dict() for one in (folder, alone))
    for name, value in ours.items():
        torch.testing.assert_close(value, other[name], rtol=1e-4, atol=1e-5)
    assert weights_and_state(folder, 12).keys() == weights_and_state(alone, 12).keys()
