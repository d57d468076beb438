"""The loss of a language model without ever holding all of its logits.

N tokens, D hidden size, V vocabulary, R rows of a chunk.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

IGNORED = -100  # a target without loss, as in torch.nn.functional.cross_entropy
CHUNK_LOGITS = 8 * 2**20  # logits that exist at once on a CPU: 32 MiB in float32, near the caches
CHUNK_LOGITS_ELSEWHERE = 128 * 2**20  # an accelerator needs more rows to be busy


def token_loss(hidden: Tensor, weight: Tensor, targets: Tensor, offsets: Tensor | None = None) -> Tensor:
    """Sum over the targets that are not -100 of -log softmax(hidden @ weight.T + offsets)[target].

    hidden (N, D), weight (V, D), targets (N,), offsets (V,) without gradient -> scalar in float32 (float64 for
    float64). No target: 0, without NaN.
    Matrix products run in the autocast type where autocast is on; everything else in float32.
    """
    if torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad):
        return _TokenLoss.apply(hidden, weight, targets, offsets, _matmul_type(hidden))
    return token_losses(hidden, weight, targets, offsets).sum()


def sampled_loss(hidden: Tensor, weight: Tensor, targets: Tensor, candidates: int) -> tuple[Tensor, int]:
    """`token_loss` with a sample for the part of the vocabulary that no target names, and the rows of `weight` used.

    `candidates` of the absent tokens are drawn evenly, from PyTorch's own random stream; each stands for
    absent / candidates of them in the sum under the softmax, whose expectation is thus the whole sum.
    """
    known = targets != IGNORED
    present, places = targets[known].unique(return_inverse=True)
    absent = (
        torch.ones(len(weight), dtype=torch.bool, device=weight.device).index_fill_(0, present, False).nonzero()[:, 0]
    )
    if len(absent) <= candidates:
        return token_loss(hidden, weight, targets), len(weight)
    drawn = absent[torch.randperm(len(absent), device=absent.device)[:candidates]]
    offsets = torch.zeros(len(present) + candidates, device=weight.device)
    offsets[len(present) :] = math.log(len(absent) / candidates)
    renumbered = targets.masked_scatter(known, places)
    rows = torch.cat([present, drawn])
    return token_loss(hidden, weight.index_select(0, rows), renumbered, offsets), len(rows)


@torch.no_grad()
def token_losses(hidden: Tensor, weight: Tensor, targets: Tensor, offsets: Tensor | None = None) -> Tensor:
    """The summands of `token_loss`, 0 where the target is -100: (N,). No gradient."""
    matmul = _matmul_type(hidden)
    with torch.autocast(hidden.device.type, enabled=False):
        weight = weight.to(matmul)
        losses = [
            _softmax_(_logits(part.to(matmul), weight, offsets), of)[0] for part, of in _chunks(weight, hidden, targets)
        ]
    return torch.cat(losses) if losses else hidden.new_zeros(0, dtype=torch.float32)


class _TokenLoss(torch.autograd.Function):
    """Makes the gradients in the forward pass, while a chunk's logits are there: three products, nothing recomputed.

    The idea of Liger's fused linear cross-entropy (Hsu et al., 2024, arXiv:2410.10989).
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, offsets: Tensor | None, matmul: torch.dtype
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
                losses, probabilities = _softmax_(_logits(part, narrow, offsets), of)
                total += losses.sum()
                errors = _minus_target_(probabilities, of).to(matmul)  # (R, V): the gradient of the chunk's logits
                if hidden_gradient is not None:
                    hidden_gradient[begin : begin + len(part)] = errors @ narrow
                if weight_gradient is not None:
                    _add_product_(weight_gradient, errors.T, part)
                begin += len(part)
        ctx.save_for_backward(hidden_gradient, weight_gradient)
        ctx.weight_type = weight.dtype
        return total

    @staticmethod
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        hidden_gradient, weight_gradient = ctx.saved_tensors
        return (
            None if hidden_gradient is None else (hidden_gradient * scale).to(hidden_gradient.dtype),
            None if weight_gradient is None else (weight_gradient * scale).to(ctx.weight_type),
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
    limit = CHUNK_LOGITS if hidden.device.type == "cpu" else CHUNK_LOGITS_ELSEWHERE
    rows = max(1, limit // weight.shape[0])
    return zip(hidden.split(rows), targets.split(rows), strict=True)


def _softmax_(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Per-token losses (R,) and probabilities (R, V), both in float32 or wider; float32 logits are overwritten.

    The normaliser is read off the likeliest token, whose probability can't underflow, so that one softmax is the only
    pass that takes exponentials.
    """
    wide = torch.promote_types(logits.dtype, torch.float32)
    known = targets != IGNORED
    at_target = logits.gather(1, targets.where(known, 0)[:, None])[:, 0].to(wide)
    highest = logits.amax(1).to(wide)
    if logits.dtype == wide:
        probabilities = torch.softmax(logits, 1, out=logits)
    else:
        probabilities = torch.softmax(logits, 1, dtype=wide)
    losses = highest - probabilities.amax(1).log() - at_target
    return losses.where(known, 0), probabilities


def _minus_target_(probabilities: Tensor, targets: Tensor) -> Tensor:
    """Probabilities minus one at the target, in place; a row without a target becomes 0."""
    known = (targets != IGNORED)[:, None]
    share = known.to(probabilities.dtype)
    return probabilities.mul_(share).scatter_add_(1, targets[:, None].where(known, 0), -share)


def _add_product_(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left @ right; the sum is kept in `total`'s type even where the factors are narrower."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right
