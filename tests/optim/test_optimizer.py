"""Optimizers against torch.optim, and their place in a resumable run."""

from __future__ import annotations

import copy
import inspect
import math
import sys
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ingot.config.check import validate
from ingot.errors import UserError
from ingot.optim.muon import COEFFICIENTS, MuonAdamW, orthogonalize, same_shape
from ingot.optim.optimizer import AdamW, Muon, Optimizer, set_rate

SHAPES = {
    "embedding": [(11, 6)],
    "head": [(11, 6)],
    "matrix": [(6, 6), (18, 6), (6, 18), (6, 6)],
    "vector": [(6,), (18,)],
}
Named = Mapping[str, list[tuple[str, nn.Parameter]]]


def parameters(seed: int = 0) -> Named:
    torch.manual_seed(seed)
    return {
        role: [(f"{role}{number}", nn.Parameter(torch.randn(shape))) for number, shape in enumerate(shapes)]
        for role, shapes in SHAPES.items()
    }


def tensors(groups: Named) -> dict[str, Tensor]:
    return {name: parameter for named in groups.values() for name, parameter in named}


def give_gradients(groups: Named, step: int) -> None:
    torch.manual_seed(1000 + step)
    for parameter in tensors(groups).values():
        parameter.grad = torch.randn_like(parameter)


def advance(optimizer: torch.optim.Optimizer, groups: Named, steps: range, factor: float = 1.0) -> None:
    for step in steps:
        give_gradients(groups, step)
        set_rate(optimizer, factor, step)
        optimizer.step()


def assert_same(ours: Named, others: Named) -> None:
    for name, value in tensors(ours).items():
        assert torch.equal(value, tensors(others)[name]), name


def test_adamw_is_torch_adamw_with_decay_on_matrices_only():
    ours, theirs = parameters(), parameters()
    config = AdamW(lr=0.01, weight_decay=0.3)
    optimizer = config.build(ours)
    matrices = [p for role in ("matrix", "embedding", "head") for _, p in theirs[role]]
    vectors = [p for _, p in theirs["vector"]]
    common: dict[str, Any] = {"lr": 0.005, "betas": config.betas, "eps": config.eps, "fused": True}
    references = [
        torch.optim.AdamW(matrices, weight_decay=0.3, **common),
        torch.optim.AdamW(vectors, weight_decay=0.0, **common),
    ]
    for step in range(4):
        advance(optimizer, ours, range(step, step + 1), factor=0.5)
        give_gradients(theirs, step)
        for reference in references:
            reference.step()
    assert_same(ours, theirs)


def test_the_rest_of_muon_is_torch_adamw_at_one_rate_per_role():
    ours, theirs = parameters(), parameters()
    config = Muon(embedding_lr=0.3, head_lr=0.2, vector_lr=0.1, rest_weight_decay=0.4)
    optimizer = config.build(ours)
    decays = {"embedding": 0.4, "head": 0.4, "vector": 0.0}
    rates = {"embedding": 0.3, "head": 0.2, "vector": 0.1}
    references = [
        torch.optim.AdamW(
            [p for _, p in theirs[role]],
            lr=rates[role] * 0.5,
            weight_decay=decays[role],
            betas=config.betas,
            eps=config.eps,
            fused=True,
        )
        for role in rates
    ]
    for step in range(4):
        advance(optimizer, ours, range(step, step + 1), factor=0.5)
        give_gradients(theirs, step)
        for reference in references:
            reference.step()
    without_matrices = {role: named for role, named in ours.items() if role != "matrix"}
    assert_same(without_matrices, theirs)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon")
@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.01)])
def test_muon_is_torch_muon(nesterov: bool, precision: str, tolerance: float, monkeypatch: pytest.MonkeyPatch):
    if precision == "float32":  # torch's Muon always rounds to bfloat16; without that the two agree closely
        monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)
    ours, theirs = parameters(), parameters()
    config = Muon(lr=0.1, weight_decay=0.5, momentum=0.9, momentum_steps=0, nesterov=nesterov, precision=precision)
    optimizer = config.build(ours)
    matrices = [p for _, p in theirs["matrix"]]
    reference = torch.optim.Muon(matrices, lr=0.1, weight_decay=0.5, momentum=0.9, nesterov=nesterov)
    for step in range(3):
        advance(optimizer, ours, range(step, step + 1))
        give_gradients(theirs, step)
        reference.step()
    for name, parameter in ours["matrix"]:
        torch.testing.assert_close(parameter, tensors(theirs)[name], rtol=0, atol=tolerance)


def test_an_update_of_muon_has_the_learning_rate_for_its_spectral_norm():
    groups = parameters()
    before = copy.deepcopy(groups)
    optimizer = Muon(lr=0.1, weight_decay=0.0).build(groups)
    advance(optimizer, groups, range(1))
    for (_, old), (_, new) in zip(before["matrix"], groups["matrix"], strict=True):
        rows, columns = old.shape
        norm = torch.linalg.matrix_norm(new - old, ord=2).item()
        assert norm == pytest.approx(0.1 * math.sqrt(max(1, rows / columns)), rel=0.25)


def test_decay_of_muon_is_decoupled_from_the_gradient():
    plain, decayed = parameters(), parameters()
    advance(Muon(lr=0.1, weight_decay=0.0).build(plain), plain, range(1), factor=0.5)
    advance(Muon(lr=0.1, weight_decay=0.5).build(decayed), decayed, range(1), factor=0.5)
    start = parameters()
    for (_, a), (_, b), (_, old) in zip(plain["matrix"], decayed["matrix"], start["matrix"], strict=True):
        torch.testing.assert_close(a - b, old * 0.05 * 0.5, rtol=1e-4, atol=1e-6)


def plain_newton_schulz(matrix: Tensor, rounds: int) -> Tensor:
    """The post's formula on one matrix, without stacking, transposing or in-place arithmetic."""
    a, b, c = COEFFICIENTS
    x = matrix / matrix.norm()
    for _ in range(rounds):
        x = a * x + b * (x @ x.T) @ x + c * (x @ x.T) @ (x @ x.T) @ x
    return x


@given(st.integers(1, 4), st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**31))
@settings(max_examples=60)
def test_orthogonalize_equals_a_loop_over_single_matrices(count, rows, columns, seed):
    stack = torch.randn(count, rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    levelled = orthogonalize(stack)
    for matrix, result in zip(stack, levelled, strict=True):
        torch.testing.assert_close(result, plain_newton_schulz(matrix, 5), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(orthogonalize(matrix), result, rtol=1e-9, atol=1e-9)


@given(st.integers(2, 24), st.integers(2, 24), st.floats(0.01, 1), st.floats(1e-6, 1e6), st.integers(0, 2**31))
@settings(max_examples=60)
def test_orthogonalize_levels_singular_values_and_keeps_directions(rows, columns, weakest, scale, seed):
    random = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    left, _, right = torch.linalg.svd(random, full_matrices=False)
    strengths = torch.linspace(1, weakest, min(rows, columns), dtype=torch.float64)
    matrix = left * strengths @ right
    after = left.T @ orthogonalize((matrix * scale).float()).double() @ right.T
    values = after.diagonal()
    assert 0.68 <= values.min() <= values.max() <= 1.21
    torch.testing.assert_close(after, torch.diag(values), rtol=0, atol=1e-3)


def test_orthogonalize_keeps_zeros_shape_and_dtype():
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        result = orthogonalize(torch.zeros(2, 3, 7, 4, dtype=dtype), dtype=torch.bfloat16)
        assert result.dtype == dtype
        assert result.shape == (2, 3, 7, 4)
        assert not result.any()


def test_matrices_stack_by_shape_within_the_bound():
    matrices = [torch.empty(shape) for shape in [(2, 3), (3, 2), (2, 3), (2, 3), (3, 2)]]
    assert list(same_shape(matrices)) == [[0, 2, 3], [1, 4]]
    assert list(same_shape(matrices, most=12)) == [[0, 2], [3], [1, 4]]
    assert list(same_shape(matrices, most=1)) == [[0], [2], [3], [1], [4]]


@pytest.mark.parametrize("config", [AdamW(), Muon()], ids=lambda config: config.kind)
def test_a_parameter_without_gradient_stays(config: Optimizer):
    groups, before = parameters(), parameters()
    optimizer = config.build(groups)
    give_gradients(groups, 0)
    for named in groups.values():
        named[0][1].grad = None
    optimizer.step()
    for role, named in groups.items():
        assert torch.equal(named[0][1], before[role][0][1])
        assert all(not torch.equal(now, old) for (_, now), (_, old) in zip(named[1:], before[role][1:], strict=True))


def test_momentum_rises_with_the_step():
    optimizer = Muon(momentum_start=0.85, momentum=0.95, momentum_steps=200).build(parameters())
    momenta = []
    for step in (0, 100, 200, 10_000):
        set_rate(optimizer, 0.5, step)
        momenta.append(optimizer.param_groups[0]["momentum"])
    assert momenta == pytest.approx([0.85, 0.9, 0.95, 0.95])
    assert [group["lr"] for group in optimizer.param_groups] == [0.01, 0.025, 0.0075, 0.005]


def test_muon_refuses_what_is_no_matrix():
    group = {"params": [nn.Parameter(torch.ones(3))], "lr": 0.1, "momentum": 0.9}
    with pytest.raises(ValueError, match=r"matrices, not parameters of shape \(3,\)"):
        MuonAdamW([group])


def test_a_state_is_kept_and_gone_on_with_without_the_compiler(monkeypatch):
    """Which PyTorch's own methods load when they are first called."""
    for name in ("add_param_group", "state_dict", "load_state_dict"):
        monkeypatch.delattr(inspect.unwrap(getattr(torch.optim.Optimizer, name)), "__dynamo_disable", raising=False)
    monkeypatch.setitem(sys.modules, "torch._dynamo", None)  # to import it is an error
    with pytest.raises(ImportError, match=r"torch\._dynamo"):
        torch.optim.SGD([nn.Parameter(torch.ones(2))])
    for config in (AdamW(), Muon()):
        groups = parameters()
        optimizer = config.build(groups)
        advance(optimizer, groups, range(1))
        optimizer.load_state_dict(optimizer.state_dict())


def test_an_unknown_role_is_refused():
    with pytest.raises(ValueError, match="not gate"):
        AdamW().build({"gate": [("x", nn.Parameter(torch.ones(2)))]})


def test_a_beta_of_one_is_refused_in_one_line():
    with pytest.raises(UserError, match=r"recipe: betas: each of the betas lies in \[0, 1\)"):
        validate(AdamW, {"betas": [0.9, 1.0]}, "recipe")


def test_a_model_on_the_meta_device_can_have_an_optimizer():
    weight = nn.Parameter(torch.empty(4, 4, device="meta"))
    for config in (AdamW(), Muon()):
        optimizer = config.build({"matrix": [("weight", weight)]})
        weight.grad = torch.empty_like(weight)
        optimizer.step()
        kept = [value for value in optimizer.state[weight].values() if value.ndim]
        assert [(value.shape, value.device.type) for value in kept] == [((4, 4), "meta")] * len(kept)
        assert len(kept) == (2 if isinstance(config, AdamW) else 1)
