"""The choice of the next token from its logits: N rows, each with settings and a seed of its own; V vocabulary.

C candidates: the likeliest tokens, of which there are mostly a few hundred to look at instead of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ingot.errors import UserError
from ingot.generate.sampling import Sampling

CANDIDATES = 256  # looked at first; more where the cuts leave more


@dataclass(frozen=True)
class Choice:
    """A token, and what Token says of its probability."""

    id: int
    logprob: float | None = None
    alternatives: tuple[tuple[int, float], ...] = ()


class Sampler:
    """Draws the next token of each place by its request's settings, from a random stream of its own."""

    def __init__(self, places: int, vocabulary: int, device: torch.device):
        self._vocabulary, self._device = vocabulary, device
        self._samplings: list[Sampling] = [Sampling()] * places
        self._streams = [torch.Generator() for _ in range(places)]
        self._settings = torch.zeros(places, len(_settings(Sampling())), device=device)
        self._prompted = torch.zeros(0)  # (places, V): the prompt holds the token; made when a request asks for it
        self._counts = torch.zeros(0)  # (places, V): how often the text so far holds it
        self._bias = torch.zeros(0)

    def place(self, place: int, sampling: Sampling, prompt: Sequence[int]) -> None:
        """Begin a request."""
        self._samplings[place] = sampling
        self._streams[place] = _stream(sampling.seed)
        self._settings[place] = torch.tensor(_settings(sampling))
        if sampling.adjusts:
            if not len(self._counts):
                shape = (len(self._samplings), self._vocabulary)
                self._prompted, self._counts, self._bias = (torch.zeros(shape, device=self._device) for _ in range(3))
            for table in (self._prompted, self._counts, self._bias):
                table[place].zero_()
            self._prompted[place, list(prompt)] = 1
            if sampling.logit_bias:
                ids = torch.tensor(list(sampling.logit_bias), device=self._device)
                self._bias[place, ids] = torch.tensor(list(sampling.logit_bias.values()), device=self._device)

    def choose(self, logits: Tensor, places: Sequence[int]) -> list[Choice]:
        """The next token of each of `places` from its logits (N, V)."""
        samplings = [self._samplings[place] for place in places]
        raw = logits.float()
        adjusting = [row for row, one in enumerate(samplings) if one.adjusts]
        adjusted = self._adjust(raw, adjusting, places) if adjusting else raw
        ids = adjusted.argmax(-1)
        for cuts in (False, True):  # apart, so that a row is drawn in the same way whoever is beside it
            rows = [row for row, one in enumerate(samplings) if not one.greedy and one.cuts == cuts]
            if rows:
                held = [places[row] for row in rows]
                chances = torch.cat([torch.rand(1, generator=self._streams[place]) for place in held])
                chances = chances.to(self._device)[:, None]
                ids[rows] = draw(adjusted[rows], self._settings[held], chances, cuts)
        chosen = ids.tolist()
        if max(chosen) >= raw.shape[-1]:
            mend = "its weights are damaged, or its training went astray"
            raise UserError("the logits of the model are no numbers", where="generate", mend=mend)
        for row in adjusting:
            self._counts[places[row], chosen[row]] += 1
        told = {row: one.logprobs for row, one in enumerate(samplings) if one.logprobs is not None}
        told_of = _tell(raw, chosen, told) if told else {}
        return [told_of.get(row, Choice(token)) for row, token in enumerate(chosen)]

    def _adjust(self, logits: Tensor, rows: list[int], places: Sequence[int]) -> Tensor:
        """Logits (N, V) with penalties and bias in `rows`; the others as they are."""
        held = [places[row] for row in rows]
        repetition, frequency, presence = self._settings[held, :3].split(1, dim=-1)
        counts = self._counts[held]
        changed = penalise(logits[rows], (self._prompted[held] + counts) > 0, repetition)
        changed = changed - frequency * counts - presence * (counts > 0) + self._bias[held]
        return logits.index_copy(0, torch.tensor(rows, device=self._device), changed)


def _settings(sampling: Sampling) -> tuple[float, ...]:
    temperature = 1.0 if sampling.greedy else sampling.temperature
    penalties = (sampling.repetition_penalty, sampling.frequency_penalty, sampling.presence_penalty)
    return (*penalties, temperature, sampling.top_k, sampling.top_p, sampling.min_p)


def _stream(seed: int | None) -> torch.Generator:
    stream = torch.Generator()  # on the CPU whatever the device, so that a seed means the same everywhere
    if seed is None:
        stream.seed()
    else:
        stream.manual_seed(seed)
    return stream


def _tell(logits: Tensor, chosen: Sequence[int], told: dict[int, int]) -> dict[int, Choice]:
    """The choices of the rows in `told` with log-probabilities, and those of the k likeliest tokens."""
    logprobs = logits[list(told)].log_softmax(-1)
    most = min(max(told.values()), logits.shape[-1])
    values, ids = logprobs.topk(most)
    choices = {}
    for line, (row, count) in enumerate(told.items()):
        likeliest = zip(ids[line, :count].tolist(), values[line, :count].tolist(), strict=True)
        choices[row] = Choice(chosen[row], logprobs[line, chosen[row]].item(), tuple(likeliest))
    return choices


def penalise(logits: Tensor, seen: Tensor, penalty: Tensor) -> Tensor:
    """Make seen tokens less likely: logits (N, V), seen (N, V) boolean, penalty (N, 1) -> (N, V).

    CTRL (Keskar et al., 2019, arXiv:1909.05858), with negative logits multiplied, as in transformers.
    """
    return torch.where(seen, torch.where(logits < 0, logits * penalty, logits / penalty), logits)


def draw(logits: Tensor, settings: Tensor, chances: Tensor, cuts: bool) -> Tensor:
    """The ids (N,) that `chances` (N, 1) in [0, 1) point at among the tokens that a row's settings leave.

    V, which is no token's, where the logits are no numbers.
    """
    temperature, top_k, top_p, min_p = settings[:, 3:].split(1, dim=-1)
    logits = logits / temperature
    if not cuts:
        return _pick(logits.softmax(-1), chances)
    found = torch.empty(len(logits), dtype=torch.long, device=logits.device)
    rows = torch.arange(len(logits), device=logits.device)
    for count in (CANDIDATES, logits.shape[-1]):
        probabilities, ids = likeliest(logits[rows], top_k[rows], top_p[rows], min_p[rows], count)
        place = _pick(probabilities, chances[rows])[:, None]
        picked = F.pad(ids, (0, 1), value=logits.shape[-1]).gather(-1, place)[:, 0]
        ends = (probabilities[:, -1] == 0) & (top_k[rows, 0] <= count)  # nothing is left beyond the candidates
        known = ends | (count >= logits.shape[-1])
        found[rows[known]] = picked[known]
        rows = rows[~known]
        if not len(rows):
            break
    return found


def likeliest(logits: Tensor, top_k: Tensor, top_p: Tensor, min_p: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Probabilities and ids (N, C) of the `count` likeliest tokens, likeliest first, with 0 for what a cut leaves out.

    logits (N, V); top_k (N, 1; 0: all), then top_p (N, 1) of what that left (Holtzman et al., 2020), then min_p (N, 1)
    of the likeliest (Nguyen et al., 2024, arXiv:2407.01082). Tokens level with the k-th stay, and one always stays.
    Where the last probability is not 0, or k is above C, more than C may be left.
    """
    count = min(count, logits.shape[-1])
    if count < logits.shape[-1]:
        ordered, ids = logits.topk(count)
    else:
        ordered, ids = logits.sort(dim=-1, descending=True, stable=True)
    by_rank = (top_k > 0) & (top_k <= count)
    least = ordered.gather(-1, torch.where(by_rank, top_k, count).long() - 1)  # the logit of the k-th
    stays = ~by_rank | (ordered >= least)
    # Softmax and cumsum go along each row by itself; a sum may be parted otherwise where there is only one row.
    probabilities = torch.where(stays, logits.softmax(-1).gather(-1, ids), 0)
    cumulated = probabilities.cumsum(-1)
    probabilities = torch.where(by_rank, probabilities / cumulated[:, -1:], probabilities)
    before = probabilities.cumsum(-1) - probabilities  # probability of all that is likelier
    stays = ((before < top_p) | (top_p >= 1)) & (probabilities >= min_p * probabilities[:, :1])
    stays[:, 0] = True  # also where top_p is so small that it is 0 in float32
    return torch.where(stays, probabilities, 0), ids


def _pick(probabilities: Tensor, chances: Tensor) -> Tensor:
    """The places (N,) at which the cumulated probabilities (N, C) pass `chances` (N, 1) of their sum.

    In float64, where a float32 chance times the total stays below the total: what has probability 0 is never picked.
    C where the probabilities are no numbers.
    """
    cumulated = probabilities.cumsum(-1, dtype=torch.float64)
    return torch.searchsorted(cumulated, chances.double() * cumulated[:, -1:], right=True)[:, 0]
