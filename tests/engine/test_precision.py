"""Number formats: tried before they are chosen, and fp16's loss scale."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from itertools import cycle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ingot.data.loader import TokenBatch
from ingot.distributed import World
from ingot.engine import precision as room
from ingot.engine.engine import Engine
from ingot.engine.parallel import Automatic
from ingot.engine.precision import CALM_STEPS, SCALE, Scaler, attempt, by_speed, choose_precision, require
from ingot.errors import UserError
from ingot.extras import pip_install
from ingot.model.architecture import Architecture
from ingot.model.decoder import Decoder
from ingot.model.loss import token_loss
from ingot.optim.optimizer import AdamW

CPU = torch.device("cpu")
WORLD = World(0, 1, CPU)
SHAPES = [
    Architecture(family="llama", vocabulary=61, context=48, layers=2, hidden_size=32, heads=4, kv_heads=2),
    Architecture(family="gpt2", vocabulary=61, context=48, layers=2, hidden_size=32, heads=2, dropout=0.1),
    Architecture(family="qwen3", vocabulary=61, context=1, layers=2, hidden_size=40, heads=2),
]


@pytest.fixture(autouse=True)
def all_kernels() -> Iterator[None]:
    yield
    room.use_kernels(room.KERNELS)


def speeds(monkeypatch: pytest.MonkeyPatch, **rates: float | list[float]) -> None:
    running = {name: rate if isinstance(rate, list) else [rate] for name, rate in rates.items()}
    monkeypatch.setattr(room, "matmul_rates", lambda device, precision, side: cycle(running[precision]))


def test_the_fastest_format_at_its_best_is_tried_first(monkeypatch: pytest.MonkeyPatch):
    speeds(monkeypatch, fp32=[1.0, 9.0], bf16=[5.0, 5.0])
    assert by_speed(WORLD) == ["fp32", "bf16"], "one stall does not decide"
    speeds(monkeypatch, fp32=1.0, bf16=10.0)
    assert by_speed(WORLD) == ["bf16", "fp32"]


def test_a_format_that_needs_a_scale_must_be_worth_it(monkeypatch: pytest.MonkeyPatch):
    gpu = World(0, 1, torch.device("cuda"))
    speeds(monkeypatch, fp32=1.0, bf16=10.0, fp16=11.0)
    assert by_speed(gpu) == ["bf16", "fp16", "fp32"]
    speeds(monkeypatch, fp32=8.0, bf16=2.0, fp16=50.0)  # as on a T4, which has no bf16 of its own
    assert by_speed(gpu)[0] == "fp16"


@pytest.mark.parametrize("arch", SHAPES, ids=lambda arch: arch.family)
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_formats_that_work_pass_the_trial(arch: Architecture, precision: str):
    before = torch.get_rng_state()
    assert attempt(arch, CPU, precision) == ""
    assert torch.equal(torch.get_rng_state(), before), "the trial draws from streams of its own"


def broken_attention(monkeypatch: pytest.MonkeyPatch, fails: object) -> None:
    """Let every kernel but plain products be wrong in the way that `fails` says."""
    real = torch.nn.functional.scaled_dot_product_attention

    def attention(*args: object, **kwargs: object) -> torch.Tensor:
        result = real(*args, **kwargs)
        return fails(result) if torch.backends.cuda.flash_sdp_enabled() else result

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", attention)


def crashes(result: torch.Tensor) -> torch.Tensor:
    raise RuntimeError("no kernel image is available\nand a long story")


@pytest.mark.parametrize(
    ("fails", "why"),
    [
        (crashes, "no kernel image is available"),
        (lambda result: result * math.nan, "not a number"),
        (lambda result: result.roll(1, 2) * 40, "far from that of float32"),
    ],
    ids=["crash", "nan", "garbage"],
)
def test_an_attention_kernel_that_fails_is_not_chosen(monkeypatch: pytest.MonkeyPatch, fails: object, why: str):
    broken_attention(monkeypatch, fails)
    said: list[str] = []
    assert choose_precision("bf16", SHAPES[0], WORLD, said.append) == "bf16"
    assert not torch.backends.cuda.flash_sdp_enabled() and torch.backends.cuda.math_sdp_enabled()
    assert len(said) == 1 and why in said[0] and "in bf16 without cudnn and flash attention" in said[0]


def test_a_format_that_fails_with_every_kernel_gives_way_to_the_next(monkeypatch: pytest.MonkeyPatch):
    speeds(monkeypatch, fp32=1.0, bf16=10.0)
    monkeypatch.setattr(room, "attempt", lambda arch, device, precision: "bang" if precision == "bf16" else "")
    said: list[str] = []
    assert choose_precision("auto", SHAPES[0], WORLD, said.append) == "fp32"
    assert said == ["bf16 does not work here (bang): going on in fp32"]


def test_what_is_asked_for_and_does_not_work_is_one_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(room, "attempt", lambda arch, device, precision: "bang")
    with pytest.raises(UserError, match=r"train.precision: bf16 does not work here \(bang\); train.precision=auto"):
        choose_precision("bf16", SHAPES[0], WORLD, print)


@pytest.mark.parametrize(("precision", "why"), [("fp16", "hundreds of times"), ("fp8", "Hopper")])
def test_formats_that_a_cpu_has_no_use_for_are_refused(precision: str, why: str):
    with pytest.raises(UserError, match=why):
        require(precision, CPU)


def test_fp8_leaves_names_and_shapes_alone():
    pytest.importorskip("torchao")
    model = Decoder(SHAPES[0].model_copy(update={"hidden_size": 64, "mlp_size": 24}))
    before = {name: parameter.shape for name, parameter in model.named_parameters()}
    room.to_fp8(model)
    assert {name: parameter.shape for name, parameter in model.named_parameters()} == before
    kinds = {name: type(module).__name__ for name, module in model.named_modules()}
    assert kinds["blocks.0.attention.query"] == "Float8Linear"
    assert kinds["blocks.0.mlp.up"] == "Linear", "24 is no multiple of 16"


def test_fp8_without_its_library_is_one_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "torchao", None)
    with pytest.raises(UserError, match=re.escape(pip_install("fp8"))):
        room.to_fp8(Decoder(SHAPES[0]))


def test_a_frequent_token_does_not_leave_the_range_of_fp16():
    """Its rows of the head's gradient are sums over all rows, whose number no loss scale can lower."""
    rows = 100_000
    hidden, weight = torch.full((rows, 1), 2.0), torch.zeros(2, 1, requires_grad=True)
    with torch.autocast("cpu", torch.float16):
        token_loss(hidden, weight, torch.zeros(rows, dtype=torch.long)).backward()
    torch.testing.assert_close(weight.grad, torch.tensor([[-1.0], [1.0]]) * rows, rtol=1e-3, atol=0)


# --- the loss scale ---------------------------------------------------------------------------------------------------


def engine(precision: str) -> Engine:
    model = Decoder(SHAPES[0], generator=torch.Generator().manual_seed(1))
    return Automatic().build(model, AdamW(lr=0.01), WORLD, clip=1.0, precision=precision)


def batch(seed: int) -> TokenBatch:
    tokens = torch.randint(61, (2, 49), generator=torch.Generator().manual_seed(seed))
    positions = torch.arange(48).expand(2, -1).contiguous()
    return TokenBatch(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous(), positions, False, 96)


def test_a_scaled_step_is_the_plain_step():
    plain, scaled = engine("fp32"), engine("fp16")
    for step in range(3):
        one = plain.step([batch(step)], factor=1.0, step=step, seed=1)
        other = scaled.step([batch(step)], factor=1.0, step=step, seed=1)
        assert other.applied and not other.overflow
        torch.testing.assert_close(one.loss, other.loss, rtol=2e-3, atol=2e-3)
        torch.testing.assert_close(one.gradient_norm, other.gradient_norm, rtol=2e-2, atol=1e-3)


def test_a_scale_that_is_too_large_is_lowered_and_the_update_left_out():
    ours = engine("fp16")
    ours.load_state({**ours.state(), "scaler": {"scale": 2.0**40, "calm": 3}})
    before = [parameter.clone() for parameter in ours.model.parameters()]
    result = ours.step([batch(1)], factor=1.0, step=0, seed=1)
    assert not result.applied and result.overflow and result.loss.isfinite()
    assert all(torch.equal(old, new) for old, new in zip(before, ours.model.parameters(), strict=True))
    assert ours.state()["scaler"] == {"scale": 2.0**39, "calm": 0}
    for step in range(40):
        result = ours.step([batch(1)], factor=1.0, step=step, seed=1)
    assert result.applied and result.loss.isfinite()


def test_a_loss_that_is_no_number_is_not_the_fault_of_the_scale():
    ours = engine("fp16")
    with torch.no_grad():
        ours.model.blocks[0].mlp.down.weight.fill_(math.nan)
    result = ours.step([batch(1)], factor=1.0, step=0, seed=1)
    assert not result.applied and not result.overflow
    assert ours.state()["scaler"]["scale"] == SCALE


def test_the_scale_goes_on_where_it_was():
    first, second = engine("fp16"), engine("fp16")
    first.load_state({**first.state(), "scaler": {"scale": 2.0**30, "calm": 7}})
    first.step([batch(1)], factor=1.0, step=0, seed=1)
    second.load_state(first.state())
    assert second.state()["scaler"] == first.state()["scaler"]


@given(st.lists(st.sampled_from(["fine", "overflow", "no number"]), max_size=60))
def test_the_scale_is_a_power_of_two_that_only_overflows_lower(story: list[str]):
    scaler, plain = Scaler("fp16"), Scaler("bf16")
    for event in story:
        before = scaler.scale
        loss, norm = (math.nan if event == "no number" else 1.0), (1.0 if event == "fine" else math.inf)
        assert scaler.overflowed(loss, norm) == (event == "overflow" and before > 1)
        assert not plain.overflowed(loss, norm) and plain.scale == 1.0
        assert scaler.scale == (max(1.0, before / 2) if event == "overflow" else before)


def test_after_calm_the_scale_rises():
    scaler = Scaler("fp16")
    for _ in range(CALM_STEPS):
        scaler.overflowed(1.0, 1.0)
    assert scaler.scale == 2 * SCALE and scaler.calm == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["auto", "bf16", "fp16"])
def test_a_gpu_trains_in_what_was_chosen(precision: str):
    gpu = World(0, 1, torch.device("cuda"))
    chosen = choose_precision(precision, SHAPES[0], gpu, print)
    model = Decoder(SHAPES[0], generator=torch.Generator().manual_seed(1))
    ours = Automatic().build(model, AdamW(lr=0.01), gpu, clip=1.0, precision=chosen)
    losses = [ours.step([batch(1)], factor=1.0, step=step, seed=1).loss.item() for step in range(8)]
    assert losses[-1] < losses[0]
