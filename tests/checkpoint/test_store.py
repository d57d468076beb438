"""Checkpoints are whole or absent, whatever happens while they are written."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import ingot
from ingot.checkpoint.manifest import MANIFEST, CheckpointDamaged, verify
from ingot.checkpoint.state import load_state, save_state
from ingot.checkpoint.store import Checkpoints, Parts
from ingot.errors import UserError


def parts(value: float, numbers: int = 1000) -> Parts:
    def model(folder: Path) -> None:
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        save_state(folder / "weights", {"weight": torch.full((numbers,), value)})

    return {
        "model": model,
        "train": lambda folder: save_state(folder, {"value": value, "moments": torch.ones(numbers)}),
    }


def save(checkpoints: Checkpoints, step: int, **losses: float) -> None:
    checkpoints.save(parts(step), step=step, tokens=step * 10, losses=losses)


def steps(checkpoints: Checkpoints) -> list[int]:
    return [checkpoint.step for checkpoint in checkpoints.all()]


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path / "runs" / "demo")


def test_what_is_saved_comes_back(checkpoints: Checkpoints):
    assert checkpoints.latest() is None
    assert checkpoints.best() is None
    for step in (5, 10, 1_000_000):
        save(checkpoints, step)
    latest = checkpoints.latest()
    assert latest is not None
    assert (latest.step, latest.manifest.tokens) == (1_000_000, 10_000_000)
    assert latest.model == checkpoints.folder / "step-1000000" / "model"
    assert load_state(latest.path / "train")["value"] == 1_000_000
    assert steps(checkpoints) == [5, 10, 1_000_000]


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_damaged_checkpoint_is_named_left_alone_and_the_one_before_used(checkpoints: Checkpoints):
    for step in (1, 2):
        save(checkpoints, step)
    for path in [path for path in checkpoints.folder_of(2).rglob("*") if path.is_file()]:
        original = path.read_bytes()
        flip(path)
        damaged = files(checkpoints.folder)
        latest = checkpoints.latest()
        assert latest is not None
        assert latest.step == 1
        assert [damage.path for damage in checkpoints.damaged] == [path]
        assert files(checkpoints.folder) == damaged
        path.write_bytes(original)
    assert checkpoints.latest() == checkpoints.all()[-1]
    assert checkpoints.damaged == []


def test_saving_over_a_damaged_checkpoint_moves_it_aside(checkpoints: Checkpoints):
    for _ in range(2):
        save(checkpoints, 3)
        flip(checkpoints.folder_of(3) / "train/tensors.safetensors")
    save(checkpoints, 3)
    assert verify(checkpoints.folder_of(3)).step == 3
    assert {path.name for path in checkpoints.folder.iterdir()} == {
        *("step-000003", "damaged-1-step-000003", "damaged-2-step-000003")
    }
    assert steps(checkpoints) == [3]


def test_saving_a_whole_checkpoint_again_changes_nothing(checkpoints: Checkpoints):
    save(checkpoints, 3)
    before = files(checkpoints.folder)
    save(checkpoints, 3, train=9.0)
    assert files(checkpoints.folder) == before


def test_pruning_keeps_the_latest_the_best_and_the_tagged(checkpoints: Checkpoints):
    for step, validation in enumerate([3.0, 1.0, 2.0, 2.5, 1.0, 4.0, 5.0], start=1):
        save(checkpoints, step, validation=validation)
    save(checkpoints, 8)
    checkpoints.amend(3, tags=["nice"])
    checkpoints.keep(2)
    assert steps(checkpoints) == [2, 3, 7, 8]  # of two equally good ones the earlier is the best
    checkpoints.amend(8, losses={"validation": 0.5})
    checkpoints.amend(3, tags=[])
    checkpoints.keep(0)  # the latest is always kept
    assert steps(checkpoints) == [8]
    assert {path.name for path in checkpoints.folder.iterdir()} == {"step-000008"}


def test_going_back_takes_the_last_until_a_step_and_leaves_none_behind_it(checkpoints: Checkpoints):
    for step in (2, 4, 6):
        save(checkpoints, step)
    assert [one and one.step for one in (checkpoints.latest(until=until) for until in (1, 5, 6))] == [None, 4, 6]
    checkpoints.drop_after(4)
    assert steps(checkpoints) == [2, 4]
    assert {path.name for path in checkpoints.folder.iterdir()} == {"step-000002", "step-000004"}
    checkpoints.amend(4, tags=["mine"])
    checkpoints.drop_after(2)
    assert steps(checkpoints) == [2]
    assert {path.name for path in checkpoints.folder.iterdir()} == {"step-000002", "left-1-step-000004"}


def test_damaged_checkpoints_neither_count_nor_go_when_pruning(checkpoints: Checkpoints):
    for step in (1, 2, 3, 4):
        save(checkpoints, step)
    (checkpoints.folder_of(4) / "model/config.json").unlink()
    (checkpoints.folder_of(3) / MANIFEST).write_text("{}")
    checkpoints.keep(1)
    assert sorted(path.name for path in checkpoints.folder.iterdir()) == ["step-000002", "step-000003", "step-000004"]
    latest = checkpoints.latest()
    assert latest is not None
    assert latest.step == 2


def test_a_flipped_byte_in_a_later_checkpoint_does_not_cost_the_one_just_saved(checkpoints: Checkpoints):
    for step in (400, 500):
        save(checkpoints, step)
    flip(checkpoints.folder_of(500) / "train/tensors.safetensors")
    resumed = Checkpoints(checkpoints.folder.parent)
    assert (latest := resumed.latest()) is not None and latest.step == 400
    save(resumed, 450)
    resumed.keep(1)
    assert steps(resumed) == [450, 500]
    unaware = Checkpoints(checkpoints.folder.parent)  # has searched nothing and so found no damage
    save(unaware, 460)
    unaware.keep(1)
    assert steps(unaware) == [460, 500]
    save(unaware, 500)  # moves the damaged one aside
    unaware.keep(1)
    assert steps(unaware) == [500]
    assert verify(unaware.folder_of(500)).step == 500


def test_what_a_search_found_damaged_is_not_kept_as_the_best(checkpoints: Checkpoints):
    for step, loss in ((1, 1.0), (2, 2.0), (3, 3.0)):
        save(checkpoints, step, validation=loss)
    flip(checkpoints.folder_of(1) / "model/weights/tensors.safetensors")
    assert (best := checkpoints.best()) is not None and best.step == 2
    checkpoints.keep(1)
    assert steps(checkpoints) == [1, 2, 3]


def test_the_best_is_by_validation_loss_and_whole(checkpoints: Checkpoints):
    for step, loss in ((1, 2.0), (2, 1.0), (3, 3.0)):
        save(checkpoints, step, train=9.0 - loss)
        checkpoints.amend(step, losses={"validation": loss})
    best = checkpoints.best()
    assert best is not None
    assert (best.step, best.manifest.losses) == (2, {"train": 8.0, "validation": 1.0})
    flip(checkpoints.folder_of(2) / "train/state.json")
    second, best_model = checkpoints.best(), checkpoints.best("model")
    assert second is not None and best_model is not None
    assert (second.step, best_model.step) == (1, 2)  # the damage is not in the model


def test_a_part_that_fails_leaves_nothing_behind(checkpoints: Checkpoints):
    save(checkpoints, 1)
    before = files(checkpoints.folder)

    def fail(folder: Path) -> None:
        folder.mkdir()
        (folder / "half").write_text("x")
        raise RuntimeError("no weights")

    with pytest.raises(RuntimeError, match="no weights"):
        checkpoints.save({**parts(2), "extra": fail}, step=2, tokens=0)
    assert files(checkpoints.folder) == before
    assert os.listdir(checkpoints.folder) == ["step-000001"]


@pytest.mark.parametrize("full_at", range(5))
def test_a_full_disk_spares_the_last_checkpoint(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch, full_at: int
):
    save(checkpoints, 1)
    before = files(checkpoints.folder)
    writes = 0
    plain_write = Path.write_text

    def full_write(self: Path, *args: Any, **kwargs: Any) -> int:
        nonlocal writes
        writes += 1
        if writes > full_at:
            plain_write(self, "half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return plain_write(self, *args, **kwargs)

    monkeypatch.setattr(Path, "write_text", full_write)
    with contextlib.nullcontext() if full_at == 4 else pytest.raises(UserError, match="the disk is full"):
        save(checkpoints, 2)
    monkeypatch.undo()
    if full_at == 4:  # a checkpoint takes four such writes: the last round shows that each of them was tried
        assert writes == 4
        assert steps(checkpoints) == [1, 2]
        return
    assert files(checkpoints.folder) == before
    assert os.listdir(checkpoints.folder) == ["step-000001"]


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of one megabyte."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if sys.platform != "linux" or os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root can mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_really_full_disk_spares_the_last_checkpoint(tiny_disk: Path):
    checkpoints = Checkpoints(tiny_disk / "demo")
    checkpoints.save(parts(1.0, numbers=50_000), step=1, tokens=0)  # 400 kB
    before = files(checkpoints.folder)
    for numbers in (80_000, 110_000, 150_000, 1_000_000):  # full in the state, between the parts, in the model
        with pytest.raises(UserError, match=r"the disk is full, .* all that was saved before is whole"):
            checkpoints.save(parts(2.0, numbers=numbers), step=2, tokens=0)
        assert files(checkpoints.folder) == before
        assert os.listdir(checkpoints.folder) == ["step-000001"]
    checkpoints.save(parts(2.0, numbers=20_000), step=2, tokens=0)
    assert steps(checkpoints) == [1, 2]


# These programs import no PyTorch, so that they start, and can be killed, often.
SAVER = """
import itertools, os, signal, sys
from pathlib import Path
from ingot.checkpoint.store import Checkpoints

def parts(step):
    def write(folder):
        folder.mkdir()
        for name in ("a", "b"):
            (folder / name).write_bytes(b"%d " % step * 20_000)
    return {"model": write, "train": write}
"""

SAVE_ON_AND_ON = """
checkpoints = Checkpoints(Path(sys.argv[1]))
latest = checkpoints.latest()
for step in itertools.count(latest.step + 1 if latest else 1):
    checkpoints.save(parts(step), step=step, tokens=0)
    checkpoints.keep(2)
    print(step, flush=True)
"""

# Runs the same save once for every call that touches the disk, and dies of SIGKILL right before that call.
DIE_BEFORE_EVERY_CALL = """
def deadly(call):
    def wrapped(*args, **kwargs):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*args, **kwargs)
    return wrapped

for place, name in ((Path, "mkdir"), (Path, "write_bytes"), (Path, "write_text"), (Path, "rename"), (os, "fsync"),
                    (os, "unlink"), (os, "rmdir")):
    setattr(place, name, deadly(getattr(place, name)))

for death in itertools.count(1):
    left, checkpoints = -1, Checkpoints(Path(sys.argv[1]) / f"{death:03d}")
    for step in (1, 2):
        checkpoints.save(parts(step), step=step, tokens=0)
    if not (child := os.fork()):
        left = death
        checkpoints.save(parts(3), step=3, tokens=0)
        checkpoints.keep(1)
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        break
"""


def start(program: str, argument: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(ingot.__file__).parents[1])}
    command = [sys.executable, "-c", SAVER + program, str(argument)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def assert_all_whole(checkpoints: Checkpoints) -> list[int]:
    found = checkpoints.all()
    assert checkpoints.damaged == []
    for checkpoint in found:
        verify(checkpoint.path)
        assert (checkpoint.path / "train/b").read_bytes().split()[-1] == b"%d" % checkpoint.step
    return [checkpoint.step for checkpoint in found]


def test_killed_at_random_moments_every_checkpoint_is_whole(tmp_path: Path):
    checkpoints, chance, reported = Checkpoints(tmp_path / "demo"), random.Random(5), 0
    for _ in range(6):
        process = start(SAVE_ON_AND_ON, tmp_path / "demo")
        assert process.stdout
        for _ in range(chance.randint(1, 4)):
            reported = int(process.stdout.readline())
        time.sleep(chance.random() * 0.02)
        process.kill()
        lines = process.communicate()[0].splitlines(keepends=True)
        reported = max([reported, *(int(line) for line in lines if line.endswith("\n"))])
        assert assert_all_whole(checkpoints)[-1] in (reported, reported + 1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_before_any_call_every_checkpoint_is_whole(tmp_path: Path):
    with start(DIE_BEFORE_EVERY_CALL, tmp_path) as process:
        assert process.wait() == 0
    *deaths, finished = sorted(tmp_path.iterdir())
    ends = []
    for run in deaths:
        checkpoints = Checkpoints(run)
        ends.append(assert_all_whole(checkpoints))
        save(checkpoints, 4)  # the run goes on, and what the kill left is swept
        assert all(path.name.startswith("step-") for path in checkpoints.folder.iterdir())
    assert [key for key, _ in itertools.groupby(ends)] == [[1, 2], [1, 2, 3], [2, 3], [3]]
    assert assert_all_whole(Checkpoints(finished)) == [3]


def test_amending_a_damaged_manifest_is_refused(checkpoints: Checkpoints):
    save(checkpoints, 1)
    flip(checkpoints.folder_of(1) / MANIFEST)
    with pytest.raises(CheckpointDamaged):
        checkpoints.amend(1, losses={"validation": 1.0})
