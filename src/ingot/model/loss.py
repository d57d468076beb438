"""The loss of a language model without ever holding all of its logits.

N tokens, D hidden size, V vocabulary, R rows of a chunk.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ingot.model.objective import IGNORED, chunk_rows

FP16_ROOM = 64.0  # how much smaller the factors of a sum over rows are made where the product is kept in fp16


@dataclass(frozen=True)
class Terms:
    """What is added to cross-entropy, in the logits of a row and their normaliser z = log sum exp."""

    z_loss: float = 0.0
    """weight of z ** 2 (PaLM, Chowdhery et al., 2022, arXiv:2204.02311, section 5)"""
    smoothing: float = 0.0
    """share of each target that goes evenly to the whole vocabulary (Szegedy et al., 2016, arXiv:1512.00567)"""


PLAIN = Terms()


def token_loss(
    hidden: Tensor, weight: Tensor, targets: Tensor, offsets: Tensor | None = None, terms: Terms = PLAIN
) -> Tensor:
    """Sum over the targets that are not -100 of -log softmax(hidden @ weight.T + offsets)[target], with its `terms`.

    hidden (N, D), weight (V, D), targets (N,), offsets (V,) without gradient -> scalar in float32 (float64 for
    float64). No target: 0, without NaN. A row of `weight` stands for exp(offset) tokens.
    Matrix products run in the autocast type where autocast is on; everything else in float32.
    """
    if torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad):
        return _TokenLoss.apply(hidden, weight, targets, offsets, terms, _matmul_type(hidden))
    return token_losses(hidden, weight, targets, offsets, terms).sum()


def sampled_loss(
    hidden: Tensor, weight: Tensor, targets: Tensor, candidates: int, terms: Terms = PLAIN
) -> tuple[Tensor, int]:
    """`token_loss` with a sample for the part of the vocabulary that no target names, and the rows of `weight` used.

    `candidates` of the absent tokens are drawn evenly, from PyTorch's own random stream; each stands for
    absent / candidates of them in the sum under the softmax, whose expectation is thus the whole sum, and in the mean
    that smoothing takes.
    """
    known = targets != IGNORED
    present, places = targets[known].unique(return_inverse=True)
    absent = (
        torch.ones(len(weight), dtype=torch.bool, device=weight.device).index_fill_(0, present, False).nonzero()[:, 0]
    )
    if len(absent) <= candidates:
        return token_loss(hidden, weight, targets, terms=terms), len(weight)
    drawn = absent[torch.randperm(len(absent), device=absent.device)[:candidates]]
    offsets = torch.zeros(len(present) + candidates, device=weight.device)
    offsets[len(present) :] = math.log(len(absent) / candidates)
    renumbered = targets.masked_scatter(known, places)
    rows = torch.cat([present, drawn])
    return token_loss(hidden, weight.index_select(0, rows), renumbered, offsets, terms), len(rows)


@torch.no_grad()
def token_losses(
    hidden: Tensor, weight: Tensor, targets: Tensor, offsets: Tensor | None = None, terms: Terms = PLAIN
) -> Tensor:
    """The summands of `token_loss`, 0 where the target is -100: (N,). No gradient."""
    matmul = _matmul_type(hidden)
    with torch.autocast(hidden.device.type, enabled=False):
        weight = weight.to(matmul)
        losses = [
            _softmax_(_logits(part.to(matmul), weight, offsets), of, offsets, terms)[0]
            for part, of in _chunks(weight, hidden, targets)
        ]
    return torch.cat(losses) if losses else hidden.new_zeros(0, dtype=torch.float32)


class _TokenLoss(torch.autograd.Function):
    """Makes the gradients in the forward pass, while a chunk's logits are there: three products, nothing recomputed.

    The idea of Liger's fused linear cross-entropy (Hsu et al., 2024, arXiv:2410.10989).
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        offsets: Tensor | None,
        terms: Terms,
        matmul: torch.dtype,
    ) -> Tensor:
        with_hidden, with_weight = ctx.needs_input_grad[:2]
        wide = torch.promote_types(matmul, torch.float32)
        total = hidden.new_zeros((), dtype=wide)
        hidden_gradient = torch.empty_like(hidden) if with_hidden else None
        weight_gradient = torch.zeros_like(weight, dtype=wide) if with_weight else None
        with torch.autocast(hidden.device.type, enabled=False):
            narrow = weight.to(matmul)
            begin = 0
            for part, of in _chunks(weight, hidden, targets):
                part = part.to(matmul)
                losses, probabilities, normalisers = _softmax_(_logits(part, narrow, offsets), of, offsets, terms)
                total += losses.sum()
                errors = _errors_(probabilities, of, normalisers, offsets, terms).to(matmul)
                if hidden_gradient is not None:
                    hidden_gradient[begin : begin + len(part)] = errors @ narrow
                if weight_gradient is not None:
                    _add_product_(weight_gradient, errors.T, part)
                begin += len(part)
                del errors, probabilities  # before the next chunk's logits are made
        ctx.save_for_backward(hidden_gradient, weight_gradient)
        ctx.weight_type = weight.dtype
        return total

    @staticmethod
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None, None]:
        hidden_gradient, weight_gradient = ctx.saved_tensors
        return (
            None if hidden_gradient is None else (hidden_gradient * scale).to(hidden_gradient.dtype),
            None if weight_gradient is None else (weight_gradient * scale).to(ctx.weight_type),
            None,
            None,
            None,
            None,
        )


def _logits(hidden: Tensor, weight: Tensor, offsets: Tensor | None) -> Tensor:
    return hidden @ weight.T if offsets is None else torch.addmm(offsets.to(hidden.dtype), hidden, weight.T)


def _matmul_type(hidden: Tensor) -> torch.dtype:
    device = hidden.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype


def _chunks(weight: Tensor, hidden: Tensor, targets: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows of `hidden` (R, D) and their targets (R,), so many at a time that R x V stays within the device's limit."""
    rows = chunk_rows(len(weight), hidden.device.type)
    return zip(hidden.split(rows), targets.split(rows), strict=True)


def _softmax_(logits: Tensor, targets: Tensor, offsets: Tensor | None, terms: Terms) -> tuple[Tensor, Tensor, Tensor]:
    """Losses (R,), probabilities (R, V) and log-normalisers (R,), in float32 or wider; float32 logits are overwritten.

    The normaliser is read off the likeliest token, whose probability can't underflow, so that one softmax is the only
    pass that takes exponentials.
    """
    wide = torch.promote_types(logits.dtype, torch.float32)
    known = targets != IGNORED
    at_target = logits.gather(1, targets.where(known, 0)[:, None])[:, 0].to(wide)
    highest = logits.amax(1).to(wide)
    if terms.smoothing:
        at_target = at_target.lerp(_mean_logits(logits, offsets, wide), terms.smoothing)
    if logits.dtype == wide:
        probabilities = torch.softmax(logits, 1, out=logits)
    else:
        probabilities = torch.softmax(logits, 1, dtype=wide)
    normalisers = highest - probabilities.amax(1).log()
    losses = normalisers - at_target
    if terms.z_loss:
        losses += terms.z_loss * normalisers.square()
    return losses.where(known, 0), probabilities, normalisers


def _errors_(
    probabilities: Tensor, targets: Tensor, normalisers: Tensor, offsets: Tensor | None, terms: Terms
) -> Tensor:
    """The gradient of the losses by their logits (R, V), in place of the probabilities; 0 in a row without a target."""
    known = targets != IGNORED
    share = known.to(probabilities.dtype)  # (R,)
    probabilities.mul_((share * (1 + 2 * terms.z_loss * normalisers) if terms.z_loss else share)[:, None])
    if terms.smoothing:
        probabilities.addr_(share, _evenly(probabilities, offsets), alpha=-terms.smoothing)
    return probabilities.scatter_add_(1, targets.where(known, 0)[:, None], (terms.smoothing - 1) * share[:, None])


def _mean_logits(logits: Tensor, offsets: Tensor | None, wide: torch.dtype) -> Tensor:
    """The mean over the vocabulary of each row's logits (R, V), offsets apart: (R,) in `wide`."""
    if offsets is None:
        return logits.mean(1, dtype=wide)
    evenly = _evenly(logits.to(wide), offsets)
    return logits.to(wide) @ evenly - offsets.to(wide) @ evenly


def _evenly(like: Tensor, offsets: Tensor | None) -> Tensor:
    """The even distribution over the vocabulary (V,), where a row stands for exp(offset) tokens."""
    if offsets is None:
        return like.new_full(like.shape[1:], 1 / like.shape[1])
    return offsets.to(like.dtype).softmax(0)


def _add_product_(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left @ right; the sum is kept in `total`'s type even where the factors are narrower."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    elif left.dtype == torch.float16:  # whose range a sum over many rows leaves
        total.add_(left @ (right / FP16_ROOM), alpha=FP16_ROOM)
    else:
        total += left @ right
