"""The choice of the next token from its logits: B rows, each with settings and a seed of its own; V vocabulary."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ingot.generate.sampling import Sampling


class Sampler:
    """Draws the next token of each row by its own settings, from a random stream of its own."""

    def __init__(self, samplings: Sequence[Sampling], device: torch.device):
        def column(values: Sequence[float]) -> Tensor:
            return torch.tensor(values, device=device)[:, None]  # (B, 1)

        self._greedy = column([one.greedy for one in samplings])
        self._temperature = column([1.0 if one.greedy else one.temperature for one in samplings])
        self._penalty = column([one.repetition_penalty for one in samplings])
        self._top_k = column([one.top_k for one in samplings])
        self._top_p = column([one.top_p for one in samplings])
        self._cuts = any(one.top_k or one.top_p < 1 for one in samplings)
        self._draws = not all(one.greedy for one in samplings)
        self._streams = [_stream(one.seed) for one in samplings]

    def choose(self, logits: Tensor, seen: Tensor) -> Tensor:
        """The next ids (B,) from logits (B, V); `seen` (B, V) is true for tokens that a row already holds."""
        logits = penalise(logits.float(), seen, self._penalty)
        likeliest = logits.argmax(-1)
        if not self._draws:
            return likeliest
        logits = logits / self._temperature
        if self._cuts:
            logits = keep_likeliest(logits, self._top_k, self._top_p)
        chances = [torch.rand(1, generator=stream) for stream in self._streams]
        return torch.where(self._greedy[:, 0], likeliest, draw(logits, torch.stack(chances).to(logits.device)))


def _stream(seed: int | None) -> torch.Generator:
    stream = torch.Generator()  # on the CPU whatever the device, so that a seed means the same everywhere
    if seed is None:
        stream.seed()
    else:
        stream.manual_seed(seed)
    return stream


def penalise(logits: Tensor, seen: Tensor, penalty: Tensor) -> Tensor:
    """Make seen tokens less likely: logits (B, V), seen (B, V) boolean, penalty (B, 1) -> (B, V).

    CTRL (Keskar et al., 2019, arXiv:1909.05858), with negative logits multiplied, as in transformers.
    """
    return torch.where(seen, torch.where(logits < 0, logits * penalty, logits / penalty), logits)


def keep_likeliest(logits: Tensor, top_k: Tensor, top_p: Tensor) -> Tensor:
    """Logits (B, V) with -inf for what top-k (B, 1; 0: all) and then top-p (B, 1) leave out; one token always stays.

    Tokens level with the k-th stay; top-p counts probability among what top-k left (Holtzman et al., 2020).
    """
    ordered, ids = logits.sort(dim=-1, descending=True, stable=True)
    last = torch.where(top_k > 0, top_k, logits.shape[-1]).clamp(max=logits.shape[-1]) - 1
    ordered = ordered.masked_fill(ordered < ordered.gather(-1, last), -torch.inf)
    chances = ordered.softmax(-1)
    before = chances.cumsum(-1) - chances  # probability of all that is likelier
    ordered = ordered.masked_fill((before >= top_p) & (top_p < 1), -torch.inf)
    return torch.empty_like(logits).scatter_(-1, ids, ordered)


def draw(logits: Tensor, chances: Tensor) -> Tensor:
    """The ids (B,) at which the cumulated probabilities of logits (B, V) pass `chances` (B, 1), each in [0, 1).

    In float64, where a float32 chance times the total stays below the total: an id of probability 0 is never drawn.
    """
    cumulated = logits.double().softmax(-1).cumsum(-1)
    return torch.searchsorted(cumulated, chances.double() * cumulated[:, -1:], right=True)[:, 0]
