"""Two processes save one checkpoint, each its own part, or none at all; ranks.py is what each of them does."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from launch import crew, finish, start

from ingot.checkpoint.manifest import verify
from ingot.checkpoint.state import load_state
from ingot.checkpoint.store import Checkpoints


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("together")
    script = Path(__file__).with_name("ranks.py")
    finish(start(crew(str(script), str(folder))))
    return folder


@pytest.fixture
def found(folder: Path) -> dict[str, Any]:
    return load_state(folder / "found")


def test_what_every_rank_gives_is_collected_in_their_order(found: dict[str, Any]):
    first, second = found["collected"]
    assert first == {"rank": 0, "value": (1, "x")}
    assert second["rank"] == 1 and math.isnan(second["value"])
    assert found["each"] == [0, 10]


def test_what_fails_on_one_rank_fails_on_all(found: dict[str, Any]):
    assert found["told"] == ["rank 1: ValueError('mine alone')", "mine alone"]


def test_two_threads_do_not_hear_each_other(found: dict[str, Any]):
    assert found["apart"]


def test_a_checkpoint_of_two_processes_is_whole_and_each_wrote_its_rows(folder: Path, found: dict[str, Any]):
    checkpoint = Checkpoints(folder).folder_of(1)
    assert set(verify(checkpoint).files) == {
        f"train/{name}" for name in ("state.json", "tensors.safetensors", "tensors-00001.safetensors")
    }
    assert torch.equal(found["rows"], torch.arange(15.0).reshape(5, 3))
    rows = load_state(checkpoint / "train")["rows"]
    assert [len(piece) for piece in rows.pieces] == [3, 2] and rows.shape == (5, 3)
    for first in range(6):
        for end in range(first, 6):
            assert torch.equal(rows.read(first, end), found["rows"][first:end])
    assert torch.equal(load_state(checkpoint / "train")["own"], torch.zeros(2)), "the main rank's counts"


@pytest.mark.parametrize("rank", [0, 1])
def test_a_save_that_fails_on_one_rank_leaves_nothing_and_all_hear_why(folder: Path, found: dict[str, Any], rank: int):
    assert found[f"fails-{rank}"] == [f"rank {rank}: no more room"] * 2
    assert [path.name for path in Checkpoints(folder).folder.iterdir()] == ["step-000001"]
    assert found["manifests"] == [1, 1]
