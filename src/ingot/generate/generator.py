"""A model and a tokenizer that continue texts: whole batches at once, or one text as one watches."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from ingot.errors import UserError
from ingot.generate.batch import Batch
from ingot.generate.layout import Layout, lay_out
from ingot.generate.sampling import Sampling
from ingot.generate.token import Generation, Token
from ingot.generate.weights import Quantize, read_as
from ingot.generate.writer import Writer
from ingot.model.decoder import Decoder
from ingot.tokenizer.tokenizer import Tokenizer

SLOTS = 16  # texts that are continued together; more wait until one of them has ended


class Generator:
    """Continues texts. Every text begins as a document does in training, with the end token of the one before."""

    def __init__(
        self,
        model: Decoder,
        tokenizer: Tokenizer,
        ends: Collection[int] | None = None,
        quantize: Quantize | None = None,
    ):
        """`ends`: the ids that end a text, by default the tokenizer's end token; `quantize`: narrower numbers for the
        weights.

        Raises UserError where the tokenizer has ids that the model does not know, and for codes that are to be other
        ones.
        """
        read_as(model, quantize)
        if tokenizer.vocabulary > model.arch.vocabulary:
            raise UserError(
                f"the tokenizer has {tokenizer.vocabulary:,} tokens and the model {model.arch.vocabulary:,}",
                where="generate",
                mend="use the tokenizer that the model was trained with",
            )
        self.model = model
        self.tokenizer = tokenizer
        self.ends = frozenset([tokenizer.end] if ends is None else ends)
        self.quantize = quantize
        self._layout: Layout | None = None
        self._laid_out_at: list[tuple[int, int]] = []

    def generate(
        self, prompts: Sequence[str], sampling: Sampling | Sequence[Sampling] | None = None
    ) -> list[Generation]:
        """Continue all `prompts` together, each as if it were alone; one sampling (none: the default), or one for each.

        Raises UserError for a prompt that is longer than the model's context.
        """
        sampling = sampling or Sampling()
        samplings = [sampling] * len(prompts) if isinstance(sampling, Sampling) else list(sampling)
        made = self.complete([self._begin(prompt) for prompt in prompts], samplings)
        return [replace(one, prompt=prompt) for one, prompt in zip(made, prompts, strict=True)]

    def stream(self, prompt: str, sampling: Sampling | None = None) -> Iterator[str]:
        """The continuation of `prompt` piece by piece, in whole characters; together they are `generate`'s text."""
        sampling = sampling or Sampling()
        writer = Writer(self.tokenizer, sampling.stop)
        for token in self.tokens([self._begin(prompt)], [sampling]):
            if piece := writer.push(token):
                yield piece

    def complete(self, prompts: Sequence[Sequence[int]], samplings: Sequence[Sampling]) -> list[Generation]:
        """Continue ids, which are read as they are, each by its sampling; a Generation's `prompt` is their text."""
        made = dict(self.completed(prompts, samplings))
        return [made[place] for place in range(len(prompts))]

    def completed(
        self, prompts: Sequence[Sequence[int]], samplings: Sequence[Sampling]
    ) -> Iterator[tuple[int, Generation]]:
        """What `complete` gives, each with its prompt's place, in the order in which they end."""
        rows: list[list[Token]] = [[] for _ in prompts]
        for token in self.tokens(prompts, samplings):
            place = token.request
            rows[place].append(token)
            if token.reason:
                yield place, self._finish(prompts[place], samplings[place], rows[place])

    def tokens(self, prompts: Sequence[Sequence[int]], samplings: Sequence[Sampling]) -> Iterator[Token]:
        """Continue ids by ids: the new tokens of all prompts, in the order in which they come to be; a token's
        `request` is its prompt's place.

        A text ends after an end token, before a stop string, after its max_new_tokens, or when it fills the context.
        """
        if not prompts:
            return
        needed = max(len(prompt) + one.max_new_tokens for prompt, one in zip(prompts, samplings, strict=True))
        batch = self.batch(min(len(prompts), SLOTS), context=needed)
        for place, (prompt, sampling) in enumerate(zip(prompts, samplings, strict=True)):
            _named(place, batch, prompt, sampling)
        places: dict[int, int] = {}
        while len(places) < len(prompts) or batch.free < batch.slots:
            while batch.free and len(places) < len(prompts):
                place = len(places)
                places[batch.add(prompts[place], samplings[place])] = place
            for token in batch.step():
                yield replace(token, request=places[token.request])

    def batch(self, slots: int, context: int | None = None) -> Batch:
        """A batch of this model that answers up to `slots` requests at once."""
        return Batch(self.layout, self.tokenizer, slots=slots, context=context, ends=self.ends)

    @property
    def layout(self) -> Layout:
        """The weights as they are read; laid out anew where the model has learned since."""
        now = [(one.data_ptr(), 0 if one.is_inference() else one._version) for one in self.model.parameters()]
        if self._layout is None or now != self._laid_out_at:
            self._layout, self._laid_out_at = lay_out(self.model, self.quantize), now
        return self._layout

    def _begin(self, prompt: str) -> list[int]:
        return [self.tokenizer.end, *self.tokenizer.encode(prompt)]

    def _finish(self, prompt: Sequence[int], sampling: Sampling, made: Sequence[Token]) -> Generation:
        writer = Writer(self.tokenizer, sampling.stop)
        for token in made:
            writer.push(token)
        ids = tuple(token.id for token in made if token.reason != "end")
        reason = made[-1].reason
        assert reason is not None
        return Generation(self.tokenizer.decode(prompt), writer.text, ids, reason, tuple(made))


def _named(place: int, batch: Batch, prompt: Sequence[int], sampling: Sampling) -> None:
    """Check a prompt before any is begun. Raises UserError that says which of them is wrong."""
    try:
        batch.check(prompt, sampling)
    except UserError as error:
        raise UserError(error.what, where=f"prompt {place}", mend=error.mend) from None
