"""What a model writes by itself: how varied, how repetitive, how likely to itself, and how much of it is copied."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from ingot.data.cache import TokenView
from ingot.evaluate.bootstrap import exponential, mean, ratio
from ingot.evaluate.copies import SEED, Copies
from ingot.evaluate.likelihood import Question, fitted, likelihoods
from ingot.evaluate.record import Measure, QualityRecord, WritingRecord
from ingot.generate.generator import Generator
from ingot.generate.sampling import Sampling
from ingot.model.decoder import Decoder
from ingot.tokenizer.tokenizer import Tokenizer

T = TypeVar("T")

SAMPLING = Sampling(temperature=1.0, max_new_tokens=128, seed=1)  # as the model itself has it: nothing is cut off
REPEATED = 4  # tokens that make a repetition, as in Welleck et al. (2020, arXiv:1908.04319)
SHOWN = 3  # samples that a record shows


def quality(
    model: Decoder,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    *,
    source: str,
    real: Sequence[Sequence[int]] = (),
    train: TokenView | None = None,
    sampling: Sampling = SAMPLING,
) -> QualityRecord:
    """What the model writes after `prompts`, ids that the context holds; `source` says where they are from.

    `real`: how each of them goes on, to compare with. `train`: where copies are looked for. distinct-n is that of Li
    et al. (2016, arXiv:1510.03055). Raises UserError for a prompt that the model can't read.
    """
    shown = [tokenizer.decode(prompt, skip_special=True) for prompt in prompts[:SHOWN]]
    seeded = [sampling.model_copy(update={"seed": number + (sampling.seed or 0)}) for number in range(len(prompts))]
    made = Generator(model, tokenizer).complete(prompts, seeded)
    written = [one.ids for one in made]
    copies = Copies([*written, *real])
    if train:
        copies.search(train)
    longest = max(range(len(copies.longest)), key=copies.longest.__getitem__) if written else 0
    found = ""
    if longest < len(written) and copies.longest[longest]:
        begin = copies.begins[longest]
        found = tokenizer.decode(written[longest][begin : begin + copies.longest[longest]])
    own, theirs = copies.longest[: len(written)], copies.longest[len(written) :]
    return QualityRecord(
        prompts=source,
        sampling={key: value for key, value in sampling.to_dict().items() if value not in (None, [], {})},
        written=_writing(model, prompts, written, own if train else None),
        real=_writing(model, prompts, real, theirs if train else None) if real else None,
        seed=SEED,
        searched_tokens=copies.searched,
        longest_copy=found,
        samples=[(prompt, one.text) for prompt, one in zip(shown, made, strict=False)],
    )


def distinct(texts: Sequence[Sequence[int]], n: int) -> float:
    """Different n-grams of all `texts` as a share of all n-grams; 0 where there are none."""
    every = [gram for text in texts for gram in _grams(text, n)]
    return len(set(every)) / len(every) if every else 0.0


def repetition(text: Sequence[int]) -> tuple[int, int]:
    """4-grams of `text` that stood in it before, and all of them."""
    grams = _grams(text, REPEATED)
    return len(grams) - len(set(grams)), len(grams)


def _writing(
    model: Decoder, prompts: Sequence[Sequence[int]], texts: Sequence[Sequence[int]], copied: Sequence[int] | None
) -> WritingRecord:
    repeated = np.array([repetition(text) for text in texts], float).reshape(-1, 2)
    return WritingRecord(
        texts=len(texts),
        tokens=mean(np.array([len(text) for text in texts], float)),
        distinct={str(n): distinct(texts, n) for n in (1, 2, 3)},
        repetition=ratio(repeated[:, 0], repeated[:, 1]),
        perplexity=_perplexity(model, prompts, texts),
        copied=Measure() if copied is None else mean(np.array(copied, float)),
    )


def _perplexity(model: Decoder, prompts: Sequence[Sequence[int]], texts: Sequence[Sequence[int]]) -> Measure:
    """exp of the nats a token that the texts are to the model behind their prompts; of a long one, what fits."""
    room = model.arch.context
    asked = [Question(prompt, [text[:room]]) for prompt, text in zip(prompts, texts, strict=True) if len(text)]
    nats = dict(likelihoods(model, [part for question in asked for part in fitted(question, room)]))
    values = np.array([-nats[place][0].logprob for place in range(len(asked))])
    return ratio(values, np.array([len(question.answers[0]) for question in asked], float), exponential)


def _grams(text: Sequence[T], n: int) -> list[tuple[T, ...]]:
    return [tuple(text[place : place + n]) for place in range(len(text) - n + 1)]
