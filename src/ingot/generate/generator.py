"""A model and a tokenizer that continue texts: whole batches at once, or one text as one watches."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ingot.errors import UserError
from ingot.generate.cache import StaticCache
from ingot.generate.sampler import Sampler
from ingot.generate.sampling import Sampling
from ingot.model.decoder import Decoder
from ingot.tokenizer.tokenizer import Tokenizer

Reason = Literal["end", "length", "context"]
LONG_WORD = 40  # characters without a space that are taken for more than one word
UNFINISHED = "\N{REPLACEMENT CHARACTER}"  # stands for the bytes of a character that was cut short


@dataclass(frozen=True)
class Generation:
    """What a model wrote after a prompt. `ids` leaves out the end token."""

    prompt: str
    text: str
    ids: tuple[int, ...]
    reason: Reason
    """it ended the text itself, wrote max_new_tokens, or filled its context"""

    @property
    def excerpt(self) -> str:
        """Prompt and text in one line, to the last whole word and with an ellipsis where the model was cut short."""
        written = self.prompt + self.text
        line = " ".join(written.split())
        if self.reason == "end":
            return line
        head, _, word = line.rpartition(" ")
        cut = head and written[-1].isalnum() and len(word) < LONG_WORD  # a script may do without spaces
        return f"{head if cut else line.rstrip(UNFINISHED)} …"


@dataclass(frozen=True)
class Token:
    """One more token of one row; `reason` is set on the row's last."""

    row: int
    id: int
    reason: Reason | None


class Generator:
    """Continues texts. Every text begins as a document does in training, with the end token of the one before."""

    def __init__(self, model: Decoder, tokenizer: Tokenizer):
        """Raises UserError where the tokenizer has ids that the model does not know."""
        if tokenizer.vocabulary > model.arch.vocabulary:
            raise UserError(
                f"the tokenizer has {tokenizer.vocabulary:,} tokens and the model {model.arch.vocabulary:,}",
                where="generate",
                mend="use the tokenizer that the model was trained with",
            )
        self.model = model
        self.tokenizer = tokenizer

    def generate(
        self, prompts: Sequence[str], sampling: Sampling | Sequence[Sampling] | None = None
    ) -> list[Generation]:
        """Continue all `prompts` together, each as if it were alone; one sampling (none: the default), or one for each.

        Raises UserError for a prompt that is longer than the model's context.
        """
        sampling = sampling or Sampling()
        samplings = [sampling] * len(prompts) if isinstance(sampling, Sampling) else list(sampling)
        rows: list[list[Token]] = [[] for _ in prompts]
        for token in self.tokens([self._begin(prompt) for prompt in prompts], samplings):
            rows[token.row].append(token)
        return [self._finish(prompt, row) for prompt, row in zip(prompts, rows, strict=True)]

    def stream(self, prompt: str, sampling: Sampling | None = None) -> Iterator[str]:
        """The continuation of `prompt` piece by piece, in whole characters; together they are `generate`'s text."""
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        for token in self.tokens([self._begin(prompt)], [sampling or Sampling()]):
            piece = b"" if token.id == self.tokenizer.end else self.tokenizer.decode_bytes([token.id])
            if text := decoder.decode(piece, final=token.reason is not None):
                yield text

    def tokens(self, prompts: Sequence[Sequence[int]], samplings: Sequence[Sampling]) -> Iterator[Token]:
        """Continue ids by ids: the new tokens of all rows, in the order in which they come to be.

        A row ends after the end token, after its max_new_tokens, or when the model has read `context` tokens of it.
        """
        if not prompts:
            return
        for row, prompt in enumerate(prompts):
            self._check(row, prompt)
        was_training = self.model.training
        self.model.eval()
        try:
            yield from _Batch(self.model, self.tokenizer, prompts, samplings).run()
        finally:
            self.model.train(was_training)

    def _begin(self, prompt: str) -> list[int]:
        return [self.tokenizer.end, *self.tokenizer.encode(prompt)]

    def _check(self, row: int, prompt: Sequence[int]) -> None:
        context = self.model.arch.context
        if not prompt:
            raise UserError("a prompt needs a token", where=f"prompt {row}", mend="begin with the end token")
        if len(prompt) > context:
            raise UserError(
                f"the prompt has {len(prompt):,} tokens, and the model's context is {context:,}",
                where=f"prompt {row}",
                mend="shorten it",
            )

    def _finish(self, prompt: str, row: Sequence[Token]) -> Generation:
        ids = tuple(token.id for token in row if token.id != self.tokenizer.end)
        text = self.tokenizer.decode_bytes(ids).decode("utf-8", errors="replace")
        reason = row[-1].reason
        assert reason is not None
        return Generation(prompt, text, ids, reason)


class _Batch:
    """Rows that are continued in step until the last of them has ended. B rows, T positions, V vocabulary."""

    def __init__(
        self, model: Decoder, tokenizer: Tokenizer, prompts: Sequence[Sequence[int]], samplings: Sequence[Sampling]
    ):
        self.model, self.end, self.vocabulary = model, tokenizer.end, tokenizer.vocabulary
        self.prompts, self.samplings = prompts, samplings
        weight = model.head_weight
        self.device = weight.device
        self.slots = min(
            model.arch.context,
            max(len(prompt) + one.max_new_tokens for prompt, one in zip(prompts, samplings, strict=True)),
        )
        self.cache = StaticCache(model.arch, len(prompts), self.slots, dtype=weight.dtype, device=weight.device)
        self.sampler = Sampler(samplings, weight.device)
        self.lengths = torch.tensor([len(prompt) for prompt in prompts], device=self.device)  # tokens read, (B,)
        self.seen = torch.zeros(len(prompts), self.vocabulary, dtype=torch.bool, device=self.device)
        self.written = [0] * len(prompts)
        self.open = set(range(len(prompts)))

    def run(self) -> Iterator[Token]:
        """The tokens of all rows, one step of every open row after the other."""
        ids = self._read_prompts()
        while True:
            for row, chosen in enumerate(ids.tolist()):
                if row in self.open:
                    yield self._note(row, chosen)
            if not self.open:
                return
            ids = self._read_tokens(ids)

    def _note(self, row: int, chosen: int) -> Token:
        self.written[row] += 1
        reason: Reason | None = None
        if chosen == self.end:
            reason = "end"
        elif self.written[row] == self.samplings[row].max_new_tokens:
            reason = "length"
        elif len(self.prompts[row]) + self.written[row] > self.model.arch.context:
            reason = "context"
        if reason:
            self.open.remove(row)
        return Token(row, chosen, reason)

    @torch.inference_mode()
    def _read_prompts(self) -> Tensor:
        """Read all prompts, padded on the right up to the longest, and choose the first new ids (B,)."""
        tokens = torch.zeros(len(self.prompts), int(self.lengths.max()), dtype=torch.long)
        for row, prompt in enumerate(self.prompts):
            tokens[row, : len(prompt)] = torch.tensor(prompt)
            self.seen[row, list(prompt)] = True
        hidden = self.model.hidden(tokens.to(self.device), cache=self.cache)  # (B, T, D)
        rows = torch.arange(len(self.prompts), device=self.device)
        return self._choose(hidden[rows, self.lengths - 1])

    @torch.inference_mode()
    def _read_tokens(self, ids: Tensor) -> Tensor:
        """Read the ids (B,) chosen last and choose the next; an ended row writes its last slot over and over."""
        positions = self.lengths.clamp(max=self.slots - 1)
        hidden = self.model.hidden(ids[:, None], positions[:, None], cache=self.cache)  # (B, 1, D)
        self.lengths = self.lengths + 1
        return self._choose(hidden[:, 0])

    def _choose(self, hidden: Tensor) -> Tensor:
        logits = torch.nn.functional.linear(hidden, self.model.head_weight)[:, : self.vocabulary]
        ids = self.sampler.choose(logits, self.seen)
        self.seen.scatter_(1, ids[:, None], True)
        return ids
