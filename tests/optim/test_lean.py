"""Optimizer state in less memory: the updates that plain state gives, as near as its numbers allow."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ingot.config.check import validate
from ingot.optim import lean
from ingot.optim.lean import Byte, Full, Half, noise_of, pieces, shares
from ingot.optim.optimizer import AdamW, AdamW8bit, Muon, Optimizer, set_rate

CPU = torch.device("cpu")
SHAPES = {"embedding": (97, 64), "head": (97, 64), "matrix": (160, 300), "vector": (300,)}
Groups = Mapping[str, list[tuple[str, nn.Parameter]]]
LEAN = [AdamW(state="bf16"), AdamW8bit(), Muon(state="bf16"), AdamW(offload=True), Muon(offload=True)]


def name_of(config: Optimizer) -> str:
    return f"{config.kind}-{getattr(config, 'state', '8bit')}{'-offload' if config.offload else ''}"


def parameters(seed: int = 0) -> Groups:
    draw = torch.Generator().manual_seed(seed)
    return {role: [(role, nn.Parameter(torch.randn(shape, generator=draw)))] for role, shape in SHAPES.items()}


def tensors(groups: Groups) -> list[Tensor]:
    return [parameter for named in groups.values() for _, parameter in named]


def advance(optimizer: torch.optim.Optimizer, groups: Groups, steps: range) -> None:
    for step in steps:
        draw = torch.Generator().manual_seed(1000 + step)
        for parameter in tensors(groups):
            parameter.grad = torch.randn(parameter.shape, generator=draw) * 0.1
        set_rate(optimizer, 1.0, step)
        optimizer.step()


@pytest.mark.parametrize("config", [AdamW(offload=True), Muon(offload=True)], ids=name_of)
def test_state_beside_the_device_changes_nothing(config: Optimizer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lean, "PIECE", 8192)  # several pieces, of whole rows
    plain, offloaded = parameters(), parameters()
    advance(config.model_copy(update={"offload": False}).build(plain), plain, range(4))
    advance(config.build(offloaded), offloaded, range(4))
    for one, other in zip(tensors(plain), tensors(offloaded), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("config", "plain", "tolerance"),
    [
        (AdamW(lr=0.01, state="bf16"), AdamW(lr=0.01), 0.02),
        (AdamW8bit(lr=0.01), AdamW(lr=0.01), 0.12),
        (Muon(state="bf16"), Muon(), 0.02),
    ],
    ids=["adamw-bf16", "adamw8bit", "muon-bf16"],
)
def test_narrow_state_moves_weights_as_wide_state_does(config: Optimizer, plain: Optimizer, tolerance: float):
    """The difference after 40 steps, as a share of the way that the weights have gone."""
    begin, exact, narrow = parameters(), parameters(), parameters()
    advance(plain.build(exact), exact, range(40))
    advance(config.build(narrow), narrow, range(40))
    for old, one, other in zip(tensors(begin), tensors(exact), tensors(narrow), strict=True):
        assert (one - other).norm() <= tolerance * (one - old).norm()


@pytest.mark.parametrize("config", [*LEAN, AdamW(), Muon(momentum_steps=5)], ids=name_of)
def test_half_the_steps_twice_are_all_the_steps(config: Optimizer):
    whole, halves = parameters(), parameters()
    advance(config.build(whole), whole, range(6))
    first = config.build(halves)
    advance(first, halves, range(3))
    state = copy.deepcopy(first.state_dict())
    second = config.build(halves)
    second.load_state_dict(state)
    advance(second, halves, range(3, 6))
    for one, other in zip(tensors(whole), tensors(halves), strict=True):
        assert torch.equal(one, other)
    for index, values in second.state_dict()["state"].items():
        for name, value in values.items():
            assert value.dtype == state["state"][index][name].dtype, "loading does not widen"


@pytest.mark.parametrize("config", [*LEAN, AdamW(), Muon()], ids=name_of)
def test_the_memory_that_state_takes_is_what_is_planned(config: Optimizer):
    groups = parameters()
    optimizer = config.build(groups)
    advance(optimizer, groups, range(1))
    held = sum(
        value.numel() * value.element_size()
        for values in optimizer.state_dict()["state"].values()
        for value in values.values()
        if value.ndim
    )
    counts = {role: sum(parameter.numel() for _, parameter in named) for role, named in groups.items()}
    assert held == pytest.approx(config.state_bytes(counts), rel=0.02)


def test_the_state_of_vectors_stays_wide():
    groups = parameters()
    optimizer = AdamW8bit().build(groups)
    advance(optimizer, groups, range(1))
    assert {str(value.dtype) for value in optimizer.state[groups["vector"][0][1]].values()} == {"torch.float32"}


@pytest.mark.parametrize("means", [Half(), Byte(False, CPU)], ids=["bf16", "8bit"])
def test_a_slow_mean_arrives_where_it_should(means: lean.Format):
    """A mean over 250 steps of ones; rounded to the nearest, it would stand still on its way."""
    kept = means.blank(torch.zeros(4, 256))
    nearest = torch.zeros(1, dtype=torch.bfloat16)
    for step in range(1500):
        wide = means.widened(kept).lerp(torch.ones(4, 256), 0.004)
        kept = means.narrowed(wide, noise_of(step, [wide]))
        nearest = nearest.float().lerp(torch.ones(1), 0.004).bfloat16()
    assert means.widened(kept).mean() == pytest.approx(1 - 0.996**1500, abs=0.03)
    assert nearest.item() < 0.6


@given(st.integers(0, 2**31), st.floats(1e-6, 1e6), st.booleans())
@settings(max_examples=12)
def test_rounding_is_right_on_average_and_never_beyond_a_neighbour(seed: int, scale: float, signed: bool):
    draw = torch.Generator().manual_seed(seed)
    values = torch.randn(1, 256, generator=draw) * scale
    wide = (values if signed else values**2).expand(100, 256).contiguous()
    for means in (Half(), Byte(signed, CPU)):
        back = means.widened(means.narrowed(wide, noise_of(seed, [wide])))
        assert torch.equal(means.widened(means.narrowed(back, noise_of(seed + 1, [wide]))), back), "a second time"
        largest = wide.abs().max()
        assert ((back.mean(0) - wide[0]).abs() <= 0.01 * largest).all()
        assert ((back - wide).abs() <= 0.12 * largest).all()


def test_a_byte_knows_zero_one_and_255_numbers():
    for signed in (True, False):
        known = shares(signed)
        assert len(known) == len(known.unique()) == 255
        assert torch.equal(known, known.sort().values)
        assert known[-1] == 1 and (known == 0).any() and known[0] == (-1 if signed else 0)
    blank = Byte(True, CPU).blank(torch.ones(3, 300))
    assert not Byte(True, CPU).widened(blank).any()
    assert blank["_scale"].shape == (3, 2)


def test_what_is_no_number_stays_none():
    odd = torch.tensor([[float("inf"), float("-inf"), float("nan"), 0.0]])
    back = Half().widened(Half().narrowed(odd, noise_of(1, [odd])))
    assert back[0, 0] == float("inf") and back[0, 1] == float("-inf") and back[0, 2].isnan() and back[0, 3] == 0


@given(st.integers(0, 50), st.integers(1, 40), st.integers(1, 500))
def test_pieces_cover_all_rows_once(rows: int, columns: int, most: int):
    tensor = torch.zeros(rows, columns)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lean, "PIECE", most)
        cuts = list(pieces(tensor))
    assert [row for cut in cuts for row in range(rows)[cut]] == list(range(rows))
    assert all(len(tensor[cut]) * columns <= max(most, columns) for cut in cuts)


def test_plain_numbers_are_given_as_they_are():
    wide = torch.randn(3, 4)
    assert Full().widened(Full().narrowed(wide, noise_of(0, [wide]))) is wide


def test_the_bits_are_in_the_kind():
    assert validate(Optimizer, {"kind": "adamw8bit", "lr": 1e-4}, "recipe").to_dict()["kind"] == "adamw8bit"
