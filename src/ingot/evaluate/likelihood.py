"""How likely answers are after a context. Answers to one context share a row, so that the context is read once.

B rows, T positions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ingot.evaluate.loss import evaluating
from ingot.evaluate.tokens import batch_tokens, token_scores
from ingot.model.decoder import Decoder
from ingot.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True)
class Question:
    """A context of at least one token, and the answers to it, each of at least one token."""

    context: Sequence[int]
    answers: Sequence[Sequence[int]]

    @property
    def length(self) -> int:
        """Tokens to read: the context, and each answer without its last token."""
        return len(self.context) + sum(len(answer) - 1 for answer in self.answers)


@dataclass(frozen=True)
class Likelihood:
    """Of one answer: the sum of its tokens' log-probabilities, and whether each was the likeliest in its place."""

    logprob: float
    greedy: bool


class _Branches:
    """A cache that keeps nothing: answers side by side see their context and themselves, but not each other.

    It has the form of `KeyValueCache`, by which the decoder asks who sees whom.
    """

    def __init__(self, branch: Tensor):
        """branch (B, T): 0 for the context, the answer's number from 1 on, -1 for padding."""
        order = torch.ones(branch.shape[1], branch.shape[1], dtype=torch.bool, device=branch.device).tril()
        same = (branch[:, :, None] == branch[:, None, :]) | (branch == 0)[:, None, :]
        self._mask = (same & order)[:, None]

    def update(self, layer: int, keys: Tensor, values: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """The keys and values of this call alone."""
        return keys, values

    def mask(self, positions: Tensor) -> Tensor:
        """(B, 1, T, T)."""
        return self._mask


def encode_pairs(tokenizer: Tokenizer, pairs: Sequence[tuple[str, str]]) -> list[tuple[list[int], list[int]]]:
    """Context and continuation of each pair as ids, as lm-evaluation-harness does it (TemplateLM._encode_pair).

    Spaces at a context's end go to the continuation; both are encoded as one text and parted where the context's own
    ids end. No token leads the context, but the end token stands in for an empty one.
    """
    texts = []
    for context, continuation in pairs:
        bare = context.rstrip()
        texts.append((bare, context[len(bare) :] + continuation))
    contexts = list(dict.fromkeys(context for context, _ in texts))
    known = dict(zip(contexts, tokenizer.encode_batch(contexts), strict=True))
    whole = tokenizer.encode_batch([context + continuation for context, continuation in texts])
    found = []
    for (context, _), ids in zip(texts, whole, strict=True):
        begin = len(known[context])
        found.append((known[context].tolist() or [tokenizer.end], ids[begin:].tolist()))
    return found


def fitted(question: Question, context: int) -> list[Question]:
    """The question, or where an answer does not fit behind it, one for each answer with the context's begin cut off.

    Raises ValueError for an answer longer than the model's `context` tokens.
    """
    longest = max(map(len, question.answers))
    if longest > context:
        raise ValueError("an answer is longer than the context")
    if len(question.context) + longest - 1 <= context:
        return [question]
    return [Question(question.context[-(context + 1 - len(answer)) :], [answer]) for answer in question.answers]


def likelihoods(model: Decoder, questions: Sequence[Question]) -> Iterator[tuple[int, list[Likelihood]]]:
    """Place and answers of each of `questions`, which fit into the context; the longest first, as batches are done."""
    device = model.head_weight.device
    order = sorted(range(len(questions)), key=lambda place: -questions[place].length)
    begin = 0
    with evaluating(model):
        while begin < len(order):
            end = begin + max(1, batch_tokens(device) // questions[order[begin]].length)
            batch = [questions[place] for place in order[begin:end]]
            yield from zip(order[begin:end], _score(model, batch, device), strict=True)
            begin = end


@torch.inference_mode()
def _score(model: Decoder, batch: Sequence[Question], device: torch.device) -> list[list[Likelihood]]:
    longest = max(question.length for question in batch)
    tokens, positions, branch = (np.zeros((len(batch), longest), np.int64) for _ in range(3))
    branch -= 1
    rows: list[int] = []
    places: list[int] = []
    targets: list[int] = []
    answer_of: list[int] = []
    answers = 0
    for row, question in enumerate(batch):
        start = len(question.context)
        _put(tokens[row], positions[row], branch[row], 0, question.context, first=0, number=0)
        place = start
        for number, answer in enumerate(question.answers, 1):
            _put(tokens[row], positions[row], branch[row], place, answer[:-1], first=start, number=number)
            places += [start - 1, *range(place, place + len(answer) - 1)]
            rows += [row] * len(answer)
            targets += answer
            answer_of += [answers] * len(answer)
            answers, place = answers + 1, place + len(answer) - 1
    hidden = _hidden(model, *(torch.from_numpy(part).to(device) for part in (tokens, positions, branch)))
    wanted = hidden[torch.tensor(rows, device=device), torch.tensor(places, device=device)]
    nats, ranks = token_scores(wanted, model.head_weight, torch.tensor(targets, device=device))
    sums = np.bincount(answer_of, nats.double().cpu().numpy(), answers)
    missed = np.bincount(answer_of, (ranks > 0).cpu().numpy(), answers)
    each = iter(zip(sums.tolist(), missed.tolist(), strict=True))
    return [
        [Likelihood(-total, not wrong) for total, wrong in (next(each) for _ in question.answers)] for question in batch
    ]


def _put(
    tokens: NDArray[np.int64],
    positions: NDArray[np.int64],
    branch: NDArray[np.int64],
    place: int,
    ids: Sequence[int],
    *,
    first: int,
    number: int,
) -> None:
    """Write `ids` into a row from `place` on, as positions `first` and on of a branch."""
    part = slice(place, place + len(ids))
    tokens[part], branch[part] = ids, number
    positions[part] = np.arange(first, first + len(ids))


def _hidden(model: Decoder, tokens: Tensor, positions: Tensor, branch: Tensor) -> Tensor:
    """The final states (B, T, D). Rows without answers side by side are plain texts: the causal kernel's."""
    if _is_plain(branch, positions):
        return model.hidden(tokens)
    return model.hidden(tokens, positions, cache=_Branches(branch))


def _is_plain(branch: Tensor, positions: Tensor) -> bool:
    """Whether every row's tokens stand at 0, 1, 2 …, padding apart."""
    expected = torch.arange(branch.shape[1], device=branch.device)
    return bool(((positions == expected) | (branch < 0)).all())
