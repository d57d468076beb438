"""An export beside what it was made from: ids of texts, logits along a text, and what the likeliest tokens write.

T tokens compared, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ingot.chat.context import Message
from ingot.convert.samples import samples
from ingot.errors import UserError
from ingot.generate.generator import Generator
from ingot.generate.sampling import Sampling
from ingot.model.decoder import Decoder
from ingot.tokenizer.chat import ChatTemplate
from ingot.tokenizer.tokenizer import Tokenizer

WRITTEN = 64  # tokens
PROMPT = "The"
TALK = (Message("user", "Hello"), Message("assistant", "Hi."), Message("user", "How <|are|> you?\n"))


@dataclass(frozen=True)
class Own:
    """What ingot makes of a model: the text that it writes, and how it rates every token along it."""

    texts: list[str]
    ids: list[list[int]]
    """of `texts`"""
    path: list[int]
    """the prompt, and what is written behind it by the likeliest token"""
    read: int
    """tokens of the prompt"""
    rated: Tensor
    """natural logarithms of the probabilities (T, V) of every token behind the prompt"""
    known: int
    """tokens of the tokenizer: ingot writes no others, where a model has more"""

    @property
    def written(self) -> list[int]:
        """What is written behind the prompt."""
        return self.path[self.read :]


@dataclass(frozen=True)
class Verdict:
    """What a comparison found; `line` tells it."""

    texts: int
    written: int
    parted: str
    """where the two wrote different texts, and why they could: two tokens as likely as can be told, say; else empty"""
    difference: float
    """root mean square of the differences of log-probabilities, as a share of their own spread"""
    bound: float

    @property
    def line(self) -> str:
        """In one line."""
        same = self.parted or f"the same {self.written} tokens written"
        return f"{self.texts} texts with the same ids, {same}, logits apart by {self.difference:.1e} of their spread"


@torch.inference_mode()
def own_reading(model: Decoder, tokenizer: Tokenizer, length: int = WRITTEN) -> Own:
    """What `model` makes of the samples and of a short prompt, which the token that leads documents stands before."""
    texts = samples()
    prompt = [tokenizer.end, *tokenizer.encode(PROMPT)]
    length = min(length, model.arch.context - len(prompt))
    if length < 1:
        raise UserError(f"a context of {model.arch.context} tokens is too short to compare in", where="export")
    sampling = Sampling(temperature=0, max_new_tokens=length)
    made = Generator(model, tokenizer, ends=()).complete([prompt], [sampling])[0]
    path = [*prompt, *made.ids][: len(prompt) + length]
    logits = model.eval()(torch.tensor([path], device=model.head_weight.device))[0].float().cpu()
    rated = rate(logits, path, len(prompt))
    return Own(texts, [tokenizer.encode(text) for text in texts], path, len(prompt), rated, tokenizer.vocabulary)


def rate(logits: Tensor, path: Sequence[int], read: int) -> Tensor:
    """(positions, V) -> (T, V): log-probabilities of what follows the prompt, one row for each token of the path."""
    return torch.log_softmax(logits.double(), -1)[read - 1 : len(path) - 1]


def check_ids(own: Own, theirs: Sequence[Sequence[int]], who: str) -> None:
    """Raises UserError with the first text of which `who` makes other ids."""
    for text, ours, other in zip(own.texts, own.ids, theirs, strict=True):
        if list(other) != ours:
            pairs = enumerate(zip(ours, other, strict=False))
            at = next((place for place, (one, two) in pairs if one != two), min(len(ours), len(other)))
            theirs_there, ours_there = list(other)[at : at + 4], ours[at : at + 4]
            what = f"{who} reads {text[:60]!r} as other tokens: {theirs_there} in place of {ours_there}"
            raise UserError(what, where="export", mend="its tokenizer can't be represented there")


def judge(own: Own, written: Sequence[int], apart: Tensor, bound: float, who: str) -> Verdict:
    """The verdict on a text `written` by `who`, and on differences `apart` of its log-probabilities from our own.

    Raises UserError where the logits are further apart than `bound`, or the texts differ although they need not.
    """
    spread = float(own.rated.std())
    difference = float(apart.square().mean().sqrt()) / spread
    if not difference <= bound:
        what = f"the logits of {who} are apart by {difference:.1e} of their spread, and {bound:.0e} is the bound"
        raise UserError(what, where="export", mend="nothing was written; tell us about it")
    parted = ""
    for place, (ours, theirs) in enumerate(zip(own.written, written, strict=False)):
        if ours != theirs:
            gap = float(own.rated[place, ours] - own.rated[place, theirs])
            if gap > 2 * max(float(apart.abs().max()), bound * spread):
                what = f"{who} writes another text from token {place} on, where {theirs} follows in place of {ours}"
                raise UserError(what, where="export", mend="nothing was written; tell us about it")
            why = f"two are as likely as each other within {gap:.1e}"
            if theirs >= own.known:
                why = "one that the tokenizer lacks is the likeliest"
            parted = f"the same text up to token {place}, where {why}"
            break
    return Verdict(len(own.texts), min(len(own.written), len(written)), parted, difference, bound)


def say(tokenizer: Tokenizer) -> str:
    """A conversation, as a tokenizer's template spells it."""
    return ChatTemplate.of(tokenizer).render(TALK, add_generation_prompt=True)


def check_chat(tokenizer: Tokenizer, theirs: str, who: str) -> None:
    """Raises UserError where `who` spells a conversation otherwise; the leading token may be missing: some add it."""
    ours = say(tokenizer)
    begin = tokenizer.decode([tokenizer.end])
    if theirs not in (ours, ours.removeprefix(begin)):
        what = f"{who} spells a conversation as {theirs[:150]!r} in place of {ours[:150]!r}"
        raise UserError(what, where="export", mend="its chat template can't be represented there")
