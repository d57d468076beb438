"""Faults of the text, the disk, the memory and the user: a run ends as promised, and the same command goes on exactly.

Whole runs in processes of their own, with their exit status; where a fault is put into the run itself, in this one.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from courses import assert_same_run, records
from faults import BLOCKS, Faults
from phases import Ended

from ingot.checkpoint.manifest import verify
from ingot.engine.engine import Engine
from ingot.engine.loss_model import LossModel
from ingot.engine.memory import fitting_rows, survives
from ingot.model.architecture import Architecture
from ingot.model.memory import Work
from ingot.recipe.recipe import Recipe
from ingot.train import parts
from ingot.train.fitting import trial
from ingot.train.run import train

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

STEPS = 24
RUN = {"duration": f"{STEPS} steps", "save_every": "6 steps", "keep": 99}
LOOKS = ("evaluation.every=8 steps", "evaluation.max_tokens=200", "samples.every=9 steps")
UNSETTLED = "train.compile=yes"  # the children of phases.py have no compiler, and take their time to find out


def saved(folder: Path) -> list[int]:
    """The checkpoints, each of them whole."""
    return [verify(path).step for path in sorted((folder / "checkpoints").glob("step-*"))]


def mistake(ended: Ended) -> str:
    """The one line of a run that could not go on."""
    assert ended.status == 2, ended.output
    assert "Traceback" not in ended.output
    (line,) = re.findall(r"^ingot: .*", ended.output, flags=re.MULTILINE)
    return line


@pytest.fixture
def whole(tiny: Callable[..., Path], signalled: Callable[..., Ended]) -> Path:
    """The folder of a run that nothing happens to."""
    recipe = tiny("whole", **RUN)
    assert signalled(recipe, *LOOKS).status == 0
    return Recipe.load(recipe).folder


# --- signals ----------------------------------------------------------------------------------------------------------

# Phase, which of its kind, the step that is saved then; None: nothing is, and the same command begins again.
PHASES = [
    ("preparing", 1, None),
    ("compiling", 1, None),
    ("stepping", 1, 1),
    ("stepping", 10, 10),
    ("copying", 2, 8),
    ("writing", 2, None),
    ("writing, flush", 3, None),
    ("writing, recorded", 3, None),
    ("evaluating", 2, 16),
    ("sampling", 1, 10),
    ("stepping", STEPS, STEPS),
    ("finishing", 1, STEPS),
    ("evaluating", 4, STEPS),
]


@pytest.mark.parametrize(("number", "phases"), [(signal.SIGTERM, PHASES), (signal.SIGINT, PHASES[1:10:3])])
def test_a_signal_in_any_phase_ends_a_run_that_goes_on_exactly(
    tiny: Callable[..., Path],
    signalled: Callable[..., Ended],
    whole: Path,
    tmp_path: Path,
    number: int,
    phases: Sequence[tuple[str, int, int | None]],
):
    for place, (phase, nth, step) in enumerate(phases):
        recipe = tiny(f"{place}", **RUN)
        folder = Recipe.load(recipe).folder
        # Preparing lies before the part in which signals are wishes: there it is as in any program.
        overrides = [*LOOKS, UNSETTLED, *([f"cache={tmp_path}/new-{place}"] if phase == "preparing" else [])]
        ended = signalled(recipe, *overrides, phase=phase, nth=nth, signal=number, delay=0.005)
        assert ended.sent_at and ended.status == (130 if number == signal.SIGINT else -number), ended.output
        assert "Traceback" not in ended.output and not ended.unsaved
        if phase != "preparing":
            assert len(re.findall("the same command", ended.output)) == 1, ended.output
        if phase == "compiling":
            assert "stopped before the first step; the same command begins again" in ended.output
        if step == STEPS:
            assert f"stopped with all {STEPS} steps made and saved; the same command measures the end" in ended.output
        if step:
            assert saved(folder)[-1] == step
        again = signalled(recipe, *overrides)
        assert again.status == 0, again.output
        assert_same_run(folder, whole, STEPS)


# --- the disk ---------------------------------------------------------------------------------------------------------


def as_root(*command: str) -> bool:
    return sys.platform == "linux" and os.geteuid() == 0 and not subprocess.run(command, capture_output=True).returncode


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system that holds a few checkpoints."""
    folder = tmp_path / "runs"
    folder.mkdir()
    if not as_root("mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", str(folder)):
        pytest.skip("only root can mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_one_line_and_costs_nothing_that_was_saved(
    tiny: Callable[..., Path], signalled: Callable[..., Ended], small_disk: Path, tmp_path: Path
):
    recipe = tiny("full", **RUN)
    ended = signalled(recipe, *LOOKS)
    assert "the disk is full, so this was not saved; all that was saved before is whole" in mistake(ended)
    folder = small_disk / "full"
    before = saved(folder)
    assert before and before[-1] < STEPS
    assert not list((folder / "checkpoints").glob(".draft*"))
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    ended = signalled(recipe, *LOOKS)
    assert ended.status == 0 and f"going on from step {before[-1]}" in ended.output, ended.output
    assert signalled(recipe, *LOOKS, "name=whole").status == 0
    assert_same_run(folder, small_disk / "whole", STEPS)


def test_a_folder_that_can_not_be_written_to_is_one_line(
    tiny: Callable[..., Path], signalled: Callable[..., Ended], tmp_path: Path
):
    recipe, folder = tiny("frozen", **RUN), tmp_path / "runs"
    folder.mkdir()
    if not (as_root("mount", "--bind", str(folder), str(folder))):
        pytest.skip("only root can mount a folder")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(folder)], check=True)
        assert "can't be written to (Read-only file system)" in mistake(signalled(recipe, *LOOKS))
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
    assert not list(folder.iterdir())


def test_a_folder_that_becomes_read_only_costs_nothing_that_was_saved(
    tiny: Callable[..., Path], signalled: Callable[..., Ended], whole: Path
):
    recipe = tiny("frozen", **RUN)
    folder = Recipe.load(recipe).folder
    assert signalled(recipe, *LOOKS, phase="stepping", nth=10).status == -signal.SIGTERM
    checkpoints = folder / "checkpoints"
    if not as_root("chattr", "+i", str(checkpoints)):
        pytest.skip("only root can freeze a folder, and not on every file system")
    try:
        assert "can't be written to (Operation not permitted)" in mistake(signalled(recipe, *LOOKS))
        assert saved(folder)[-1] == 10
    finally:
        subprocess.run(["chattr", "-i", str(checkpoints)], check=True)
    assert signalled(recipe, *LOOKS).status == 0
    assert_same_run(folder, whole, STEPS)


# --- the text and the memory ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("factor", "reason"), [(float("nan"), "was no number"), (50.0, "leapt to")])
def test_one_bad_batch_costs_its_update_and_the_run_goes_on(
    tiny: Callable[..., Path], faults: Faults, factor: float, reason: str
):
    faults.put([22], factor)
    folder = train(Recipe.load(tiny("bad", **RUN), [*LOOKS, "loss=full"]))
    (event,) = records(folder, "health")
    assert event["step"] == 22 and reason in event["reason"] and event["blocks"] == [21 * BLOCKS, 22 * BLOCKS]
    assert saved(folder)[-1] == STEPS


def test_a_probe_that_runs_out_of_memory_leaves_no_trace(tiny: Callable[..., Path], monkeypatch: pytest.MonkeyPatch):
    """As on a GPU: more rows than fit raise an error in the middle of a forward pass, and fewer are tried."""
    tried: list[int] = []
    forward = LossModel.forward

    def tight(model: LossModel, batch: Any, *rest: Any) -> Any:
        tried.append(len(batch.inputs))
        if tried[-1] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return forward(model, batch, *rest)

    def fitted(engine: Engine, recipe: Recipe, arch: Architecture, *_: Any, **__: Any) -> Recipe:
        rows = fitting_rows(
            BLOCKS, lambda rows: survives(engine, trial(arch, [Work(rows=rows, length=arch.context)]), 0)
        )
        return recipe.with_memory(micro_batch=rows)

    given = train(Recipe.load(tiny("given", **RUN), [*LOOKS, "loss=full", "memory.micro_batch=2"]))
    monkeypatch.setattr(LossModel, "forward", tight)
    monkeypatch.setattr(parts, "fitted", fitted)
    probed = train(Recipe.load(tiny("probed", **RUN), [*LOOKS, "loss=full"]))
    assert tried[:3] == [8, 4, 2]
    assert_same_run(probed, given, STEPS)
