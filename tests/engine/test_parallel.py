"""Two processes are one: the same losses, norms and weights, whatever each of them holds; a state moves between them.

What is compared is made by ranks.py: by one process alone, by two, and by one again, from their state.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from launch import crew, finish, start, torchrun

from ingot.checkpoint.state import load_state

SCRIPT = Path(__file__).with_name("ranks.py")
NATIVE = ("ddp", "zero2", "zero3")
WITH_DEEPSPEED = [
    pytest.mark.slow,  # it is loaded by every process, for seconds
    pytest.mark.timeout(900),
    pytest.mark.skipif(find_spec("deepspeed") is None, reason="DeepSpeed is not installed"),
]
DEEPSPEED = ("deepspeed-1", "deepspeed-2", "deepspeed-3", "deepspeed-offload")
KINDS = [*NATIVE, *(pytest.param(kind, marks=WITH_DEEPSPEED) for kind in DEEPSPEED)]
RUNS = [(kind, course) for kind in NATIVE for course in ("llama-muon", "gpt2-adamw")]
RUNS += [pytest.param(kind, "gpt2-adamw", marks=WITH_DEEPSPEED) for kind in DEEPSPEED]
Found = Callable[[str], tuple[dict[str, Any], dict[str, Any]]]
NEAR = {"rel": 1e-6, "abs": 1e-6}  # float32, summed in another order


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What one process found about a way to share the work, and what two did."""

    @cache
    def of(family: str) -> tuple[dict[str, Any], dict[str, Any]]:
        folder = tmp_path_factory.mktemp("ranks")
        finish(start(crew(str(SCRIPT), str(folder), family, sizes="1,2,1")), seconds=900)
        return load_state(folder / "found-1"), load_state(folder / "found-2")

    return lambda kind: of("native" if kind in NATIVE else "deepspeed")


def assert_same_weights(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, weight in one.items():
        if not name.endswith("key.bias"):  # it does not change attention: its gradient is rounding alone
            assert torch.allclose(weight, other[name], rtol=1e-5, atol=3e-6), name


@pytest.mark.parametrize(("kind", "course"), RUNS)
def test_two_processes_make_the_steps_of_one(found, kind, course):
    one, two = found(kind)[0][f"auto-{course}"], found(kind)[1][f"{kind}-{course}"]
    for part in ("first", "second"):
        assert two[part]["targets"] == one[part]["targets"]
        assert two[part]["loss"] == pytest.approx(one[part]["loss"], **NEAR)
        assert two[part]["norm"] == pytest.approx(one[part]["norm"], **NEAR)
    assert_same_weights(two["weights"], one["weights"])


@pytest.mark.parametrize(("kind", "course"), RUNS)
def test_a_resume_by_as_many_is_bitwise(found, kind, course):
    assert found(kind)[1][f"{kind}-{course}"]["resumed_bitwise"]


@pytest.mark.parametrize(("kind", "course"), RUNS)
def test_each_process_keeps_its_share_of_the_state(found, kind, course):
    one, two = found(kind)[0][f"auto-{course}"], found(kind)[1][f"{kind}-{course}"]
    assert two["state_bytes"] <= 0.52 * one["state_bytes"]  # of 61 rows the main one has 31


@pytest.mark.parametrize("ranks", [0, 1], ids=["two to one", "one to two"])
@pytest.mark.parametrize(("kind", "course"), RUNS)
def test_a_state_moves_to_another_number_of_processes(found, kind, course, ranks):
    begun, taken = found(kind)[0][f"auto-{course}"], found(kind)[ranks][f"{kind}-{course}-taken-over"]
    assert taken["second"]["loss"] == pytest.approx(begun["second"]["loss"], **NEAR)
    assert_same_weights(taken["weights"], begun["weights"])


@pytest.mark.parametrize("kind", KINDS)
def test_narrow_products_differ_by_their_rounding(found, kind):
    one, two = (side[f"{kind}-bf16"] for side in found(kind))
    assert two["loss"] == pytest.approx(one["loss"], abs=1e-3)
    assert two["norm"] == pytest.approx(one["norm"], rel=1e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_a_rank_without_targets_takes_part(found, kind):
    one, two = (side[f"{kind}-masked"] for side in found(kind))
    assert two == pytest.approx(one, **NEAR)


@pytest.mark.parametrize("kind", KINDS)
def test_a_loss_above_the_limit_changes_no_weight_of_any_rank(found, kind):
    one, two = (side[f"{kind}-leapt"] for side in found(kind))
    assert one == two == [False, True, True]


@pytest.mark.parametrize("kind", KINDS)
def test_held_out_text_is_shared_out_and_leaves_the_next_step_alone(found, kind):
    (one, one_after), (two, two_after) = (side[f"{kind}-scored"] for side in found(kind))
    assert two == pytest.approx(one, **NEAR)
    assert two_after == pytest.approx(one_after, **NEAR)


@pytest.mark.parametrize("kind", KINDS)
def test_a_gradient_that_is_no_number_on_one_rank_changes_no_weight_on_any(found, kind):
    assert found(kind)[1][f"{kind}-poisoned"]


def test_work_on_whole_matrices_comes_back_to_where_their_rows_are(found):
    assert found("ddp")[1]["exchanged"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_compiled_blocks_make_the_same_steps(tmp_path):
    finish(start(torchrun(str(SCRIPT), str(tmp_path), "compiled")), seconds=900)
    for kind, steps in load_state(tmp_path / "compiled").items():
        assert steps["compiled"]["loss"] == pytest.approx(steps["plain"]["loss"], rel=1e-5), kind
        assert steps["compiled"]["norm"] == pytest.approx(steps["plain"]["norm"], rel=1e-5), kind
