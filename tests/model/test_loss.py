"""The token loss: equal to plain cross-entropy in value and gradients, with few logits at a time."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ingot.config.check import validate
from ingot.model import loss, objective
from ingot.model.loss import Terms, sampled_loss, token_loss, token_losses
from ingot.model.objective import Objective, Sampled

TOKENS, HIDDEN, VOCABULARY = 37, 24, 101


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Eight rows at a time, so that the last chunk is a short one."""
    monkeypatch.setattr(objective, "CHUNK_LOGITS", 8 * VOCABULARY)


def _case(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(TOKENS, HIDDEN, generator=generator).to(dtype).requires_grad_()
    weight = torch.randn(VOCABULARY, HIDDEN, generator=generator).to(dtype).requires_grad_()
    targets = torch.randint(VOCABULARY, (TOKENS,), generator=generator)
    targets[[0, 9, 20]] = -100
    return hidden, weight, targets


def _reference(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy((hidden @ weight.T).float(), targets, reduction="sum")


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_value_and_gradients_equal_cross_entropy(dtype, tolerance):
    hidden, weight, targets = _case(dtype)
    ours = token_loss(hidden, weight, targets)
    assert ours.dtype == torch.float32
    gradients = torch.autograd.grad(ours * 0.25, (hidden, weight))
    wide = [part.detach().float().requires_grad_() for part in (hidden, weight)]
    reference = _reference(*wide, targets)
    torch.testing.assert_close(ours, reference, rtol=tolerance, atol=0)
    for gradient, expected in zip(gradients, torch.autograd.grad(reference * 0.25, wide), strict=True):
        assert gradient.dtype == dtype
        torch.testing.assert_close(gradient.float(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_chunk_has_gone_before_the_next_one_is_made(monkeypatch, dtype):
    made: list[weakref.ref[Tensor]] = []
    softmax = loss._softmax_

    def remembered(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
        assert not [chunk for chunk in made if chunk() is not None]
        losses, probabilities, normalisers = softmax(*arguments)
        made.append(weakref.ref(probabilities))
        return losses, probabilities, normalisers

    monkeypatch.setattr(loss, "_softmax_", remembered)
    token_loss(*_case(dtype)).backward()
    assert len(made) == 5


def test_gradients_equal_differences(monkeypatch):
    monkeypatch.setattr(objective, "CHUNK_LOGITS", 3 * 7)
    hidden, weight, targets = _case(torch.float64)
    hidden, weight = (part[:7, :3].detach().requires_grad_() for part in (hidden, weight))
    targets = targets[:7] % 7
    targets[4] = -100
    assert torch.autograd.gradcheck(lambda h, w: token_loss(h, w, targets) * 3, (hidden, weight))
    assert torch.autograd.gradcheck(lambda h: token_loss(h, weight.detach(), targets), (hidden,))
    assert torch.autograd.gradcheck(lambda w: token_loss(hidden.detach(), w, targets), (weight,))


def test_two_backward_passes_over_one_graph_give_the_same_gradients():
    hidden, weight, targets = _case()
    loss = token_loss(hidden, weight, targets) / 7
    first = torch.autograd.grad(loss, (hidden, weight), retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(loss, (hidden, weight)), first, rtol=0, atol=0)


def test_a_fully_masked_batch_is_zero_without_nan():
    hidden, weight, targets = _case()
    loss = token_loss(hidden, weight, torch.full_like(targets, -100))
    gradients = torch.autograd.grad(loss, (hidden, weight))
    assert loss == 0
    assert all((gradient == 0).all() for gradient in gradients)


def test_no_tokens_at_all():
    hidden, weight, targets = _case()
    assert token_loss(hidden[:0], weight, targets[:0]) == 0
    assert token_losses(hidden[:0], weight, targets[:0]).shape == (0,)


def test_an_improbable_target_has_a_finite_loss():
    """Its probability underflows in float32; its loss must not become infinite."""
    hidden, weight = torch.tensor([[200.0]]), torch.tensor([[1.0], [-1.0]])
    assert token_loss(hidden, weight, torch.tensor([1])) == 400
    assert token_loss(hidden.requires_grad_(), weight, torch.tensor([1])) == 400


def test_losses_of_each_token():
    hidden, weight, targets = _case()
    expected = F.cross_entropy(hidden @ weight.T, targets, reduction="none")
    losses = token_losses(hidden, weight, targets)
    torch.testing.assert_close(losses, expected)
    assert not losses.requires_grad
    assert losses[0] == 0


def test_autocast_narrows_the_products_and_nothing_else():
    hidden, weight, targets = _case()
    with torch.autocast("cpu", torch.bfloat16):
        loss = token_loss(hidden, weight, targets)
        plain = token_losses(hidden, weight, targets).sum()
    gradients = torch.autograd.grad(loss, (hidden, weight))
    assert loss.dtype == gradients[0].dtype == gradients[1].dtype == torch.float32
    torch.testing.assert_close(loss, plain, rtol=1e-6, atol=0)
    narrow = [part.detach().bfloat16().requires_grad_() for part in (hidden, weight)]
    reference = _reference(*narrow, targets)
    torch.testing.assert_close(loss, reference, rtol=1e-5, atol=0)
    torch.testing.assert_close(gradients[0], torch.autograd.grad(reference, narrow)[0].float(), rtol=2e-2, atol=2e-2)


class _Sizes(TorchDispatchMode):
    """Notes the largest tensor that any operation makes, and how many matrix products there are."""

    def __init__(self) -> None:
        super().__init__()
        self.largest, self.products = 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if isinstance(out, Tensor):
            self.largest = max(self.largest, out.numel())
        self.products += function._overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm_, torch.ops.aten.addmm)
        return out


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_all_logits_never_exist_at_once(dtype):
    hidden, weight, targets = _case(dtype)
    with _Sizes() as sizes:
        token_loss(hidden, weight, targets).backward()
    assert 8 * VOCABULARY <= sizes.largest < max(9 * VOCABULARY, VOCABULARY * HIDDEN + 1)
    assert sizes.largest < TOKENS * VOCABULARY
    assert sizes.products == 3 * 5  # five chunks, three products each


def test_without_gradients_none_are_made():
    hidden, weight, targets = _case()
    with torch.no_grad(), _Sizes() as sizes:
        token_loss(hidden, weight, targets)
    assert sizes.products == 5


def test_offsets_are_added_to_the_logits():
    hidden, weight, targets = _case()
    offsets = torch.linspace(-2, 2, VOCABULARY)
    ours = token_loss(hidden, weight, targets, offsets)
    reference = F.cross_entropy(hidden @ weight.T + offsets, targets, reduction="sum")
    torch.testing.assert_close(ours, reference, rtol=1e-5, atol=0)
    for one, other in zip(
        torch.autograd.grad(ours, (hidden, weight)), torch.autograd.grad(reference, (hidden, weight)), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_sample_of_everything_is_everything():
    hidden, weight, targets = _case()
    loss, rows = sampled_loss(hidden, weight, targets, VOCABULARY)
    assert rows == VOCABULARY
    assert torch.equal(loss, token_loss(hidden, weight, targets))


def test_a_sampled_normaliser_is_right_on_average():
    hidden, weight, targets = _case()
    hidden, weight, targets = hidden[1:2].detach(), weight.detach() * 0.3, targets[1:2]
    logits = (hidden @ weight.T)[0]
    torch.manual_seed(1)
    estimates = []
    for _ in range(2_000):
        loss, rows = sampled_loss(hidden, weight, targets, 20)
        assert rows == 21
        estimates.append((loss + logits[targets[0]]).exp())
    torch.testing.assert_close(torch.stack(estimates).mean(), logits.exp().sum(), rtol=0.02, atol=0)


def test_a_sampled_loss_reaches_only_the_rows_it_compares_with():
    hidden, weight, targets = _case()
    loss, rows = sampled_loss(hidden, weight, targets, 10)
    (gradient,) = torch.autograd.grad(loss, weight)
    named = targets[targets != -100].unique()
    assert rows == len(named) + 10
    assert int(gradient.abs().sum(1).count_nonzero()) == rows
    assert (gradient[named].abs().sum(1) > 0).all()


def test_a_sampled_batch_without_targets_is_zero():
    hidden, weight, targets = _case()
    loss, _ = sampled_loss(hidden, weight, torch.full_like(targets, -100), 10)
    gradients = torch.autograd.grad(loss, (hidden, weight))
    assert loss == 0 and all(gradient.abs().sum() == 0 for gradient in gradients)


# --- z-loss and label smoothing ---------------------------------------------------------------------------------------

TERMS = [Terms(z_loss=0.01), Terms(smoothing=0.1), Terms(z_loss=0.003, smoothing=0.3)]


def _reference_with(terms: Terms, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    logits = (hidden @ weight.T).float() if hidden.dtype != torch.float64 else hidden @ weight.T
    plain = F.cross_entropy(logits, targets, reduction="sum", label_smoothing=terms.smoothing)
    return plain + terms.z_loss * logits.logsumexp(1)[targets != -100].square().sum()


@pytest.mark.parametrize("terms", TERMS)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 2e-2)]
)
def test_added_terms_equal_a_plain_reference_in_value_and_gradients(terms, dtype, tolerance):
    hidden, weight, targets = _case(dtype)
    ours = token_loss(hidden, weight, targets, terms=terms)
    gradients = torch.autograd.grad(ours * 0.25, (hidden, weight))
    wide = [part.detach().to(torch.promote_types(dtype, torch.float32)).requires_grad_() for part in (hidden, weight)]
    reference = _reference_with(terms, *wide, targets)
    torch.testing.assert_close(ours, reference, rtol=tolerance, atol=0)
    torch.testing.assert_close(token_losses(hidden, weight, targets, terms=terms).sum(), ours, rtol=1e-6, atol=0)
    for gradient, expected in zip(gradients, torch.autograd.grad(reference * 0.25, wide), strict=True):
        torch.testing.assert_close(gradient.to(expected.dtype), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("terms", TERMS)
def test_gradients_of_added_terms_equal_differences_with_offsets_too(monkeypatch, terms):
    monkeypatch.setattr(objective, "CHUNK_LOGITS", 3 * 7)
    hidden, weight, targets = _case(torch.float64)
    hidden, weight = (part[:7, :3].detach().requires_grad_() for part in (hidden, weight))
    targets = (targets[:7] % 7).where(targets[:7] != -100, targets[:7])
    offsets = torch.linspace(-1, 2, 7, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda h, w: token_loss(h, w, targets, offsets, terms) * 3, (hidden, weight))


@pytest.mark.parametrize("terms", TERMS)
def test_added_terms_need_no_more_memory_and_no_more_products(terms):
    hidden, weight, targets = _case()
    with _Sizes() as sizes:
        token_loss(hidden, weight, targets, terms=terms).backward()
    assert sizes.largest < max(9 * VOCABULARY, VOCABULARY * HIDDEN + 1)
    assert sizes.products == 3 * 5


@pytest.mark.parametrize("terms", TERMS)
def test_a_fully_masked_batch_is_zero_with_added_terms(terms):
    hidden, weight, targets = _case()
    loss = token_loss(hidden, weight, torch.full_like(targets, -100), terms=terms)
    assert loss == 0
    assert all((gradient == 0).all() for gradient in torch.autograd.grad(loss, (hidden, weight)))


def test_a_sample_of_everything_has_the_terms_of_everything():
    hidden, weight, targets = _case()
    loss, _ = sampled_loss(hidden, weight, targets, VOCABULARY, TERMS[2])
    assert torch.equal(loss, token_loss(hidden, weight, targets, terms=TERMS[2]))


def test_what_smoothing_takes_of_a_sample_is_right_on_average():
    """The difference that smoothing makes is linear in the logits' mean, which the sample estimates without bias."""
    hidden, weight, targets = (part.detach() for part in _case())
    torch.manual_seed(1)
    added = []
    for seed in range(1_000):
        both = []
        for terms in (Terms(smoothing=0.5), Terms()):
            torch.manual_seed(seed)
            both.append(sampled_loss(hidden, weight, targets, 20, terms)[0])
        added.append(both[0] - both[1])
    logits, known = hidden @ weight.T, targets != -100
    expected = 0.5 * (logits[known].gather(1, targets[known][:, None])[:, 0] - logits[known].mean(1)).sum()
    torch.testing.assert_close(torch.stack(added).mean(), expected, rtol=0.02, atol=0)


@pytest.mark.parametrize("candidates", [0, 10])
def test_an_objective_takes_the_loss_by_its_keys(candidates):
    hidden, weight, targets = _case()
    torch.manual_seed(3)
    ours, rows = Sampled(z_loss=0.01, label_smoothing=0.1).total(hidden, weight, targets, candidates)
    torch.manual_seed(3)
    terms = Terms(z_loss=0.01, smoothing=0.1)
    whole = (token_loss(hidden, weight, targets, terms=terms), VOCABULARY)
    expected = sampled_loss(hidden, weight, targets, candidates, terms) if candidates else whole
    assert torch.equal(ours, expected[0]) and rows == expected[1]


def test_one_class_adds_a_loss():
    class Doubled(Objective, name="doubled"):
        """Twice cross-entropy."""

        def candidates(self, done: float) -> int:
            return 0

        def total(self, hidden: Tensor, weight: Tensor, targets: Tensor, candidates: int) -> tuple[Tensor, int]:
            total, rows = super().total(hidden, weight, targets, candidates)
            return 2 * total, rows

    try:
        added = validate(Objective, {"kind": "doubled", "label_smoothing": 0.1}, "recipe")
    finally:
        del Objective.members["doubled"]
    hidden, weight, targets = _case()
    plain = token_loss(hidden, weight, targets, terms=Terms(smoothing=0.1))
    assert torch.equal(added.total(hidden, weight, targets, 0)[0], 2 * plain)
