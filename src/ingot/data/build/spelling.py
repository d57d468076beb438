"""Records as the tokens that stand for them in a shard: each document led by the end token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from ingot.data.document import Conversation, Document, Dropped, Record
from ingot.tokenizer.encoder import Encoder, encoder
from ingot.tokenizer.tokenizer import Tokenizer

if TYPE_CHECKING:
    from ingot.tokenizer.chat import ChatTemplate, Encoded


@dataclass(frozen=True)
class Tokens:
    """Documents one behind the other, each led by the end token."""

    ids: NDArray[Any]  # (total,)
    lengths: NDArray[np.int64]  # (documents,), the end tokens among them
    mask: NDArray[np.bool_] | None = None  # (total,): which are targets with loss; None: all

    def of(self, chosen: NDArray[np.bool_]) -> Tokens:
        """The `chosen` ones (documents,) alone."""
        if chosen.all():
            return self
        tokens = np.repeat(chosen, self.lengths)
        return Tokens(self.ids[tokens], self.lengths[chosen], None if self.mask is None else self.mask[tokens])


class Speller:
    """Records to tokens, by an encoder that is the fastest here: it changes the speed and never a token."""

    def __init__(self, tokenizer: Tokenizer, library: Encoder):
        self._tokenizer, self._encoder = tokenizer, library

    @classmethod
    def of(cls, tokenizer: Tokenizer, name: str) -> Self:
        """With the encoder of that name or, where it is not at hand or not known, with one that always is."""
        try:
            return cls(tokenizer, encoder(tokenizer, name))
        except (ImportError, KeyError):
            return cls(tokenizer, encoder(tokenizer))

    def fitting(self, record: Record) -> Record:
        """`record`; a conversation that the chat template refuses as dropped."""
        if isinstance(record, Conversation) and self._chat.refuses(record.messages):
            return Dropped("the chat template refuses it", record.offset)
        return record

    def tokens(self, records: Sequence[Document | Conversation]) -> Tokens:
        """All of `records`, in order. Raises UserError for a conversation that is not `fitting`."""
        texts = [record.text for record in records if isinstance(record, Document)]
        if len(texts) == len(records):
            return self._documents(texts)
        messages = [record.messages for record in records if isinstance(record, Conversation)]
        talks = iter(self._chat.encode_batch(messages, self._encoder))
        each = [
            self._documents([record.text]) if isinstance(record, Document) else self._led(next(talks))
            for record in records
        ]
        masks = [np.ones(len(one.ids), bool) if one.mask is None else one.mask for one in each]
        ids, lengths = (np.concatenate([getattr(one, key) for one in each]) for key in ("ids", "lengths"))
        return Tokens(ids, lengths, np.concatenate(masks))

    def _led(self, talk: Encoded) -> Tokens:
        ids, mask = talk
        if not len(ids) or ids[0] != self._tokenizer.end:  # a template may lead with another token, or with none
            ids, mask = np.insert(ids, 0, self._tokenizer.end), np.insert(mask, 0, False)
        return Tokens(ids, np.array([len(ids)]), mask)

    @cached_property
    def _chat(self) -> ChatTemplate:
        from ingot.tokenizer.chat import ChatTemplate  # loads a template engine, which most corpora can do without

        return ChatTemplate.of(self._tokenizer)

    def _documents(self, texts: Sequence[str]) -> Tokens:
        inner, counts = self._encoder.encode(texts)
        lengths = counts + 1
        follows = np.ones(len(inner) + len(counts), bool)
        follows[np.cumsum(lengths) - lengths] = False
        ids = np.full(len(follows), self._tokenizer.end, self._tokenizer.dtype)
        ids[follows] = inner
        return Tokens(ids, lengths)
