"""How a model takes single tokens: how unlikely each was to it, and how many others it held likelier.

N tokens, D hidden size, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ingot.model.objective import chunk_rows

BATCH_TOKENS = {"cpu": 4_096, "cuda": 32_768}  # read in one forward pass


def batch_tokens(device: torch.device) -> int:
    """Tokens that are read in one forward pass on `device`."""
    return BATCH_TOKENS.get(device.type, BATCH_TOKENS["cpu"])


@torch.no_grad()
def token_scores(hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """-log softmax(hidden @ weight.T)[target], float32 or wider, and the target's rank (0: the likeliest): (N,) each.

    hidden (N, D), weight (V, D), targets (N,). Of equally likely tokens the one with the lower id ranks first, as
    argmax has it. Never holds more than a chunk of the logits.
    """
    rows = chunk_rows(len(weight), hidden.device.type)
    ids = torch.arange(len(weight), device=weight.device)
    nats, ranks = [], []
    for part, of in zip(hidden.split(rows), targets.split(rows), strict=True):
        logits = part @ weight.T  # (R, V)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        own = logits.gather(1, of[:, None])
        nats.append(logits.logsumexp(1) - own[:, 0])
        before = (logits > own) | ((logits == own) & (ids < of[:, None]))
        ranks.append(before.sum(1))
    if not nats:
        return hidden.new_zeros(0, dtype=torch.float32), targets
    return torch.cat(nats), torch.cat(ranks)
