"""Continuous batching: requests come and go while the others are being answered, each as if it were alone."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from ingot.errors import UserError
from ingot.generate.layout import Layout, lay_out
from ingot.generate.lookup import Lookup
from ingot.generate.reader import Piece
from ingot.generate.sampler import Choice, Sampler
from ingot.generate.sampling import Sampling
from ingot.generate.token import Reason, Token
from ingot.generate.writer import Writer
from ingot.model.decoder import Decoder
from ingot.tokenizer.tokenizer import Tokenizer

CHUNK = 512  # tokens of prompts that are read in one step: longer, and those who are answered would wait


class _Request:
    """A text that is being continued in a row of the cache."""

    def __init__(self, number: int, row: int, prompt: Sequence[int], sampling: Sampling, writer: Writer):
        self.number, self.row, self.sampling, self.writer = number, row, sampling, writer
        self.ids = list(prompt)
        self.prompted = len(prompt)
        self.read = 0  # tokens in the cache
        self.lookup = Lookup()

    def next_piece(self, budget: int, last: int) -> Piece | None:
        """What to read next: a part of the prompt of at most `budget` tokens, or the last token and guesses after it.

        Guesses end before position `last`, and where the text may have no more tokens.
        """
        if self.read < self.prompted:
            end = min(self.prompted, self.read + budget)
            return Piece(self.row, self.read, self.ids[self.read : end], int(end == self.prompted)) if budget else None
        room = min(self.sampling.lookup, self.prompted + self.sampling.max_new_tokens - len(self.ids) - 1)
        guessed = self.lookup.guess(self.ids, max(0, min(room, last - len(self.ids)))) if room > 0 else []
        return Piece(self.row, self.read, [*self.ids[self.read :], *guessed], 1 + len(guessed))


class Batch:
    """Answers up to `slots` requests at once; each has its own settings, random stream and end.

    The one way to generate: `Generator.tokens` is a loop over it, and so is the server.
    """

    def __init__(
        self,
        model: Decoder | Layout,
        tokenizer: Tokenizer,
        *,
        slots: int,
        context: int | None = None,
        ends: Collection[int] | None = None,
    ):
        """`model`: a decoder as it is now, or weights that are laid out already; `context`: tokens of a text, at most
        and by default the model's; `ends`: the ids that end a text, by default the tokenizer's end token."""
        self.tokenizer, self.slots = tokenizer, slots
        self.context = min(context or model.arch.context, model.arch.context)
        self.ends = frozenset([tokenizer.end] if ends is None else ends)
        layout = lay_out(model) if isinstance(model, Decoder) else model
        self._reader = layout.reader(slots, self.context)
        self._sampler = Sampler(slots, tokenizer.vocabulary, self._reader.device)
        self._open: dict[int, _Request] = {}
        self._rows = list(range(slots))[::-1]  # without a request
        self._number = 0

    @property
    def free(self) -> int:
        """Slots without a request."""
        return len(self._rows)

    def add(self, prompt: Sequence[int], sampling: Sampling) -> int:
        """Begin a request; its number. Raises UserError for a prompt without tokens or with more than the context, and
        for a bias of an unknown token; RuntimeError where no slot is free."""
        self.check(prompt, sampling)
        if not self._rows:
            raise RuntimeError("no slot is free")
        row, number = self._rows.pop(), self._number
        self._number += 1
        self._sampler.place(row, sampling, prompt)
        self._open[number] = _Request(number, row, prompt, sampling, Writer(self.tokenizer, sampling.stop))
        return number

    def check(self, prompt: Sequence[int], sampling: Sampling) -> None:
        """Raises UserError for what `add` would refuse."""
        if not prompt:
            raise UserError("a prompt needs a token", where="prompt", mend="begin with the end token")
        if len(prompt) > self.context:
            raise UserError(
                f"the prompt has {len(prompt):,} tokens, and the model's context is {self.context:,}",
                where="prompt",
                mend="shorten it",
            )
        unknown = max(sampling.logit_bias, default=0)
        if unknown >= self.tokenizer.vocabulary:
            raise UserError(
                f"there is no token {unknown}; the vocabulary has {self.tokenizer.vocabulary:,}",
                where="logit_bias",
                mend="name token ids",
            )

    def cancel(self, request: int) -> None:
        """Free the slot of a request at once; nothing where it has ended or never was."""
        if found := self._open.pop(request, None):
            self._rows.append(found.row)

    def step(self) -> list[Token]:
        """Read a chunk of the new prompts and the last token of every other request; the tokens made, often one each.

        Guesses that prove right give a request several at once, in order.
        """
        pieces: list[tuple[_Request, Piece]] = []
        budget = CHUNK
        for request in self._open.values():
            if piece := request.next_piece(budget, self.context):
                budget -= len(piece.tokens) if request.read < request.prompted else 0
                pieces.append((request, piece))
        if not pieces:
            return []
        logits = self._reader.read([piece for _, piece in pieces])[:, : self.tokenizer.vocabulary]
        asking, line = [], 0
        for request, piece in pieces:
            request.read = piece.begin + len(piece.tokens)
            if piece.wanted:
                asking.append((request, piece.tokens[len(piece.tokens) - piece.wanted + 1 :], line))
            line += piece.wanted
        made = []
        while asking:  # once, and once more for each guess that proves right
            choices = self._sampler.choose(
                logits[[line for _, _, line in asking]], [request.row for request, _, _ in asking]
            )
            following = []
            for (request, guesses, line), choice in zip(asking, choices, strict=True):
                token = self._note(request, choice)
                made.append(token)
                if token.reason is None and guesses and guesses[0] == token.id:
                    following.append((request, guesses[1:], line + 1))
                else:
                    request.read = len(request.ids) - 1  # whatever else was read is forgotten
            asking = following
        return made

    def run(self) -> Iterator[Token]:
        """All tokens until every request has ended."""
        while self._open:
            yield from self.step()

    def _note(self, request: _Request, choice: Choice) -> Token:
        request.ids.append(choice.id)
        reason: Reason | None = None
        if choice.id in self.ends:
            reason = "end"
        elif len(request.ids) - request.prompted == request.sampling.max_new_tokens:
            reason = "length"
        elif len(request.ids) > self.context:
            reason = "context"
        token = Token(request.number, choice.id, reason, choice.logprob, choice.alternatives)
        if request.sampling.stop and reason != "end":
            request.writer.push(token)
            if request.writer.finished == "stop":
                token = Token(request.number, choice.id, "stop", choice.logprob, choice.alternatives)
        if token.reason:
            self.cancel(request.number)
        return token
