"""Optimizer state in narrow numbers on two ranks, copied or shared out: the run that one rank alone makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from launch import crew, finish, start

from ingot.checkpoint.state import load_state

SCRIPT = Path(__file__).with_name("lean_ranks.py")
COURSES = ("adamw8bit", "muon-bf16")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, Any]]:
    """By number of ranks, what they left."""
    folder = tmp_path_factory.mktemp("lean")
    finish(start(crew(str(SCRIPT), str(folder), sizes="1,2")))
    return {size: load_state(folder / f"found-{size}") for size in (1, 2)}


@pytest.mark.parametrize("course", COURSES)
@pytest.mark.parametrize("kind", ["ddp", "zero3"])
def test_two_ranks_make_the_run_of_one(found: dict[int, dict[str, Any]], kind: str, course: str):
    """Copies round as one rank alone does; shards take other chances, and losses differ by less than 1%."""
    alone, ours = found[1][f"auto-{course}"], found[2][f"{kind}-{course}"]
    assert ours["losses"] == pytest.approx(alone["losses"], rel=1e-4 if kind == "ddp" else 1e-2)
    assert set(ours["kinds"]) == set(alone["kinds"]), "shards are as narrow"
    if kind == "ddp" and course != "muon-bf16":  # Muon levels what rounding leaves of small directions
        far = max((ours["weights"][name] - value).abs().max() for name, value in alone["weights"].items())
        assert far < 0.02


@pytest.mark.parametrize("course", COURSES)
@pytest.mark.parametrize("kind", ["ddp", "zero3"])
def test_a_resume_is_bitwise(found: dict[int, dict[str, Any]], kind: str, course: str):
    assert found[2][f"{kind}-{course}"]["resumed_bitwise"]


@pytest.mark.parametrize("course", COURSES)
def test_two_ranks_go_on_with_what_one_began(found: dict[int, dict[str, Any]], course: str):
    alone = found[1][f"auto-{course}"]
    assert found[2][f"{course}-taken-over"] == pytest.approx(alone["losses"][2:], rel=1e-2)
    assert torch.isfinite(torch.tensor(alone["losses"])).all()
