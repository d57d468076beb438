"""A conversation as token ids and loss mask, by one Jinja template: that of `tokenizer_config.json`, or the built-in.

What people write can't forge a special token. The template is rendered with every special token that a message spells
hidden behind a mark, so those that the rendered text shows are the template's own. These are then spelled in a way
that no message contains, and a twin of the tokenizer knows them by that spelling alone. It encodes the text as a whole:
the ids are those of transformers' `apply_chat_template` wherever there was nothing to forge. Byte-level tokenizers cut
a text at special tokens before anything else, so what is between them can as well be encoded apart, and much faster.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import tokenizers
from numpy.typing import NDArray

from ingot.errors import UserError
from ingot.tokenizer.byte_pairs import pattern
from ingot.tokenizer.encoder import Encoder
from ingot.tokenizer.marks import Marks
from ingot.tokenizer.rendering import Template
from ingot.tokenizer.spelling import utf8_size
from ingot.tokenizer.template import PLAIN_TEMPLATE, TEMPLATE, source_of
from ingot.tokenizer.tokenizer import Tokenizer

ROLES = ("system", "user", "assistant")


class Turn(Protocol):
    """A message: `role` is system, user or assistant."""

    @property
    def role(self) -> str:
        """Who speaks."""

    @property
    def content(self) -> str:
        """What is said."""


T = TypeVar("T", bound=Turn)


class _Message(NamedTuple):
    role: str
    content: str


class Encoded(NamedTuple):
    """A conversation's ids (T,), in the tokenizer's dtype, and which of them are learned (T,), as booleans."""

    ids: NDArray[Any]
    mask: NDArray[np.bool_]


class ChatTemplate:
    """How a tokenizer spells conversations; `source` is the Jinja template."""

    def __init__(self, tokenizer: Tokenizer, source: str):
        """Raises UserError for a template that is not valid Jinja."""
        self.source = source
        self._tokenizer = tokenizer
        self._marks = Marks(tokenizer.special)
        self._template = Template(source, _named_tokens(tokenizer), self._marks)
        self._twin = under_secret_names(json.loads(tokenizer.content), tokenizer.special, self._marks)

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> ChatTemplate:
        """By the template that the tokenizer brings, else by a built-in one. Raises UserError for a broken one."""
        return cls(tokenizer, source_of(tokenizer))

    def refuses(self, messages: Sequence[Turn]) -> bool:
        """Whether `encode` raises UserError for `messages`; the built-in templates never do for a conversation."""
        if self.source in (TEMPLATE, PLAIN_TEMPLATE):
            return False
        try:
            self._rendered(messages, learn=True)
        except UserError:
            return True
        return False

    def render(self, messages: Sequence[Turn], add_generation_prompt: bool = False) -> str:
        """The conversation as text, for people and other programs: a forged special token looks like a real one.

        Raises UserError where the template refuses the messages, such as roles in an order that it does not know.
        """
        return self._marks.erase(self._rendered(messages, add_generation_prompt))

    def prompt(self, messages: Sequence[Turn]) -> list[int]:
        """The ids that an answer to `messages` begins behind. Raises UserError as `render` does."""
        text, _ = self._marks.read(self._rendered(messages, add_generation_prompt=True))
        return self._twin.encode(text, add_special_tokens=False).ids

    def encode(self, messages: Sequence[Turn]) -> Encoded:
        """A whole conversation as ids, the template's leading token among them, and which of them are learned.

        Learned are the assistant's texts and the tokens that end them. Raises UserError as `render` does.
        """
        return self.encode_batch([messages])[0]

    def encode_batch(self, conversations: Sequence[Sequence[Turn]], library: Encoder | None = None) -> list[Encoded]:
        """Each of `conversations` as `encode` gives it; on all cores, and where that changes nothing by `library`."""
        if library and self._sizes is not None:
            return self._encode_apart(conversations, library, self._sizes)
        read = [self._marks.read(self._rendered(messages, learn=True)) for messages in conversations]
        found = self._twin.encode_batch([text for text, _ in read], add_special_tokens=False)
        encoded = []
        for encoding, (_, spans) in zip(found, read, strict=True):
            begins, ends = np.array(encoding.offsets, np.int64).reshape(-1, 2).T
            encoded.append(Encoded(np.array(encoding.ids, self._tokenizer.dtype), _covered(begins, ends, spans)))
        return encoded

    def _encode_apart(
        self, conversations: Sequence[Sequence[Turn]], library: Encoder, sizes: NDArray[np.int64]
    ) -> list[Encoded]:
        """By `library`, from special token to special token; what tokens cover follows from their `sizes` in bytes."""
        plain: list[str] = []
        parted, spans = [], []
        for messages in conversations:
            text, learned = self._marks.read(self._rendered(messages, learn=True), utf8_size)
            pieces, special = self._marks.parted(text)
            parted.append((len(pieces), special))
            spans.append(learned)
            plain += pieces
        ids, counts = library.encode(plain)
        ends, at, begin, encoded = np.cumsum(counts), 0, 0, []
        for (count, special), learned in zip(parted, spans, strict=True):
            own = ends[at : at + count] - begin
            whole = np.insert(ids[begin : begin + own[-1]], own[:-1], special)
            after = np.cumsum(sizes[whole])
            encoded.append(Encoded(whole, _covered(after - sizes[whole], after, learned)))
            at, begin = at + count, begin + int(own[-1])
        return encoded

    @cached_property
    def _sizes(self) -> NDArray[np.int64] | None:
        """Bytes of text that each id stands for, secret names included; None: text can't be encoded in parts."""
        described = json.loads(self._tokenizer.content)
        flags = ("single_word", "lstrip", "rstrip", "normalized")  # with which a token looks at its neighbours
        plain = all(token["special"] and not any(map(token.get, flags)) for token in described["added_tokens"])
        if not plain or described["normalizer"] or not self._tokenizer.exact or not pattern(described["pre_tokenizer"]):
            return None
        sizes = self._tokenizer.token_bytes()
        for token in self._tokenizer.special.values():
            sizes[token] = utf8_size(self._marks.secret(token))
        return sizes

    @cached_property
    def stops(self) -> tuple[int, ...]:
        """The tokens that end an answer: the end of a document, and what the template ends a turn by.

        Raises UserError for a template that refuses a question and its answer.
        """
        ids, mask = self.encode([_Message("user", "?"), _Message("assistant", "!")] * 2)
        stops, last = [self._tokenizer.end], self._tokenizer.end
        for token, learned, goes_on in zip(ids.tolist(), mask, [*mask[1:], False], strict=True):
            if learned and token in self._tokenizer.special.values():
                last = token
            if learned and not goes_on:
                stops.append(last)
        return tuple(dict.fromkeys(stops))

    def cut(self, messages: Sequence[T], tokens: int) -> list[T]:
        """The most of `messages`, from the front and up to an answer, of which `encode` makes at most `tokens` ids.

        Empty where not even the first answer fits.
        """
        ids, mask = self.encode(messages)
        if len(ids) <= tokens:
            return list(messages)
        answers = [place for place, message in enumerate(messages, 1) if message.role == "assistant"]
        ends = np.flatnonzero(mask & ~np.append(mask[1:], False)) + 1
        fit = len(answers)
        if len(ends) == len(answers):  # a run of what is learned may hold a token behind its turn, so perhaps one more
            fit = min(fit, int(np.searchsorted(ends, tokens, "right")) + 1)
        while fit and len(self.encode(messages[: answers[fit - 1]]).ids) > tokens:
            fit -= 1
        return list(messages[: answers[fit - 1]]) if fit else []

    def _rendered(self, messages: Sequence[Turn], add_generation_prompt: bool = False, learn: bool = False) -> str:
        if not messages:
            raise UserError("a conversation without messages", where="messages", mend="give it one")
        for place, message in enumerate(messages):
            if message.role not in ROLES:
                what = f"the role {message.role!r:.40}"
                raise UserError(what, where=f"message {place}", mend=f"a role is {', '.join(ROLES)}")
            try:
                message.content.encode("utf-8")
            except UnicodeEncodeError:
                what = "the text holds half a surrogate pair, which UTF-8 can't hold"
                raise UserError(what, where=f"message {place}", mend="remove it, or decode the text anew") from None
        said = [{"role": message.role, "content": message.content} for message in messages]
        return self._template.render(said, add_generation_prompt, learn)

    def __reduce__(self) -> tuple[Any, ...]:
        return ChatTemplate, (self._tokenizer, self.source)


def _named_tokens(tokenizer: Tokenizer) -> dict[str, str]:
    """What a template can call `bos_token`, `eos_token` and so on."""
    end = next(name for name, token in tokenizer.special.items() if token == tokenizer.end)
    named = {"eos_token": end}
    for key, value in tokenizer.settings.items():
        content = value.get("content") if isinstance(value, Mapping) else value
        if key.endswith("_token") and isinstance(content, str):
            named[key] = content
    return named


def under_secret_names(description: dict[str, Any], special: Mapping[str, int], marks: Marks) -> tokenizers.Tokenizer:
    """The same tokenizer, its special tokens under names by `marks`: what they were called is plain text to it."""
    secret = {name: marks.secret(token) for name, token in special.items()}
    for token in description["added_tokens"]:
        token["content"] = secret.get(token["content"], token["content"])
    model = description["model"]
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        model["vocab"] = {secret.get(name, name): token for name, token in vocabulary.items()}
    else:
        model["vocab"] = [[secret.get(name, name), score] for name, score in vocabulary]
    if model.get("unk_token"):
        model["unk_token"] = secret.get(model["unk_token"], model["unk_token"])
    return tokenizers.Tokenizer.from_str(
        json.dumps(description | {"post_processor": None, "truncation": None, "padding": None})
    )


def _covered(begins: NDArray[np.int64], ends: NDArray[np.int64], spans: Sequence[tuple[int, int]]) -> NDArray[np.bool_]:
    """Which tokens, from `begins` to `ends` in the text (T,), stand for a part of one of the spans."""
    mask = np.zeros(len(begins), np.bool_)
    first, behind = np.array(spans, np.int64).reshape(-1, 2).T
    chosen = zip(np.searchsorted(ends, first, "right"), np.searchsorted(begins, behind, "left"), strict=True)
    for begin, end in chosen:
        mask[begin:end] = True
    return mask
