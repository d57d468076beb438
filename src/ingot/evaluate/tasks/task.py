"""The kinds of task: how a record becomes a question with its answer. Prompts are Jinja templates over its fields."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from jinja2 import StrictUndefined, TemplateError, UndefinedError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import Field, field_validator

from ingot.config.config import Choice

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
JINJA = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)


class Unusable(Exception):
    """A record that makes no item; the text says why, in words that many records can share."""


@dataclass(frozen=True)
class Item:
    """A question: contexts (one, or one for each answer), answers, and which is right or what has to come out."""

    contexts: tuple[str, ...]
    answers: tuple[str, ...]
    """what is scored behind the context, the space before it included"""
    gold: int = 0
    choices: tuple[str, ...] = ()
    """the answers as the task names them, by whose lengths they are normalised"""
    expected: str = ""

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Context and answer, for each answer."""
        contexts = self.contexts * len(self.answers) if len(self.contexts) == 1 else self.contexts
        return list(zip(contexts, self.answers, strict=True))


class Task(Choice):
    """What a record is asked, in Jinja: `{{field}}` is a field of the record."""

    primary: ClassVar[str]
    """the metric to compare by"""

    @abstractmethod
    def item(self, record: Mapping[str, Any]) -> Item:
        """The question that `record` makes. Raises Unusable."""

    def render(self, template: str, record: Mapping[str, Any]) -> str:
        """`template` with the record's fields put in. Raises Unusable for a field that is not there."""
        try:
            return str(self._compiled[template].render(record))
        except UndefinedError as error:
            raise Unusable(f"missing field: {_short(error)}".removesuffix(" is undefined")) from None
        except Exception as error:  # a template is a program, and a record may be anything
            raise Unusable(f"unfit for the template: {_short(error)}") from None

    @cached_property
    def _compiled(self) -> _Templates:
        return _Templates()


class _Templates(dict[str, Any]):
    def __missing__(self, template: str) -> Any:
        self[template] = JINJA.from_string(template)
        return self[template]


def _check(value: Any) -> Any:
    for template in value if isinstance(value, list) else [value]:
        try:
            JINJA.from_string(template)
        except TemplateError as error:
            raise ValueError(f"not a template: {error}") from None
    return value


class MultipleChoice(Task, name="multiple_choice"):
    """One of several answers is right; the model chooses the likeliest, as a whole or by length.

    Scores acc, acc_norm (log-likelihood per character) and acc_bytes (per byte), as lm-evaluation-harness 0.4.
    """

    primary: ClassVar[str] = "acc_norm"

    context: str | list[str]
    """what stands before every answer; a list: before each of them"""
    options: str | list[str]
    """templates, one an answer; or one Jinja expression that gives a list, such as `choices.text`"""
    answer: str = "{{answer}}"
    """which is right: its number from 0 on, its letter (A is the first), or its text"""
    delimiter: str = " "
    """between context and answer"""

    _templates = field_validator("context", "answer")(_check)

    def item(self, record: Mapping[str, Any]) -> Item:
        """The question that `record` makes."""
        choices = self._options(record)
        if len(choices) < 2 or not all(choices):
            raise Unusable("fewer than two choices, or an empty one")
        templates = self.context if isinstance(self.context, list) else [self.context]
        contexts = tuple(self.render(template, record) for template in templates)
        if len(contexts) not in (1, len(choices)):
            raise Unusable("not as many contexts as choices")
        gold = _place(self.render(self.answer, record).strip(), choices)
        return Item(contexts, tuple(self.delimiter + choice for choice in choices), gold, tuple(choices))

    @cached_property
    def _listed(self) -> Callable[..., Any]:
        assert isinstance(self.options, str)
        return JINJA.compile_expression(self.options, undefined_to_none=False)

    def _options(self, record: Mapping[str, Any]) -> list[str]:
        if isinstance(self.options, list):
            return [self.render(template, record) for template in self.options]
        try:
            found = self._listed(**record)
        except Exception as error:
            raise Unusable(f"unfit for the template: {_short(error)}") from None
        if isinstance(found, StrictUndefined):
            raise Unusable(f"missing field: {self.options!r}")
        if isinstance(found, str | Mapping) or not isinstance(found, Sequence):
            raise Unusable("the choices are no list")
        return [str(one) for one in found]


class Cloze(Task, name="cloze"):
    """The end of a text, which the model gets right where each of its tokens is the likeliest.

    Scores acc and perplexity (of whole answers), as lm-evaluation-harness does for LAMBADA.
    """

    primary: ClassVar[str] = "acc"

    context: str
    """the text up to its end"""
    answer: str = "{{answer}}"
    """the end"""
    delimiter: str = " "
    """between the two"""

    _templates = field_validator("context", "answer")(_check)

    def item(self, record: Mapping[str, Any]) -> Item:
        """The question that `record` makes."""
        answer = self.render(self.answer, record)
        if not answer:
            raise Unusable("an empty answer")
        return Item((self.render(self.context, record),), (self.delimiter + answer,), choices=(answer,))


class ExactMatch(Task, name="exact_match"):
    """The model writes, always the likeliest token, and what it wrote is compared: scores exact_match."""

    primary: ClassVar[str] = "exact_match"

    context: str
    """what the model goes on from"""
    answer: str = "{{answer}}"
    """what has to come out"""
    stop: list[str] = ["\n"]
    """where the writing ends"""
    max_new_tokens: int = Field(default=64, gt=0)
    """tokens to write at most"""
    extract: str = ""
    """regular expression whose last match in what was written counts; empty: all of it"""
    ignore: list[str] = []
    """regular expressions that are taken out of both sides"""
    ignore_case: bool = False
    """whether capital letters count as small ones"""

    _templates = field_validator("context", "answer")(_check)

    @field_validator("extract", "ignore")
    @classmethod
    def _patterns(cls, value: Any) -> Any:
        for pattern in value if isinstance(value, list) else [value]:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"not a regular expression: {error}") from None
        return value

    def item(self, record: Mapping[str, Any]) -> Item:
        """The question that `record` makes."""
        expected = self.normal(self.render(self.answer, record))
        if not expected:
            raise Unusable("an empty answer")
        return Item((self.render(self.context, record),), (), expected=expected)

    def right(self, written: str, item: Item) -> bool:
        """Whether what was written is the answer."""
        if self.extract:
            found = [match[0] for match in re.finditer(self.extract, written)]
            written = found[-1] if found else ""
        return self.normal(written) == item.expected

    def normal(self, text: str) -> str:
        """`text` without what is ignored."""
        for pattern in self.ignore:
            text = re.sub(pattern, "", text)
        text = text.strip()
        return text.lower() if self.ignore_case else text


class Text(Task, name="perplexity"):
    """Texts, each predicted from its first token on. Scores loss, perplexity and bits_per_byte."""

    primary: ClassVar[str] = "bits_per_byte"

    text: str = "{{text}}"
    """what is predicted"""

    _templates = field_validator("text")(_check)

    def item(self, record: Mapping[str, Any]) -> Item:
        """The text that `record` makes."""
        text = self.render(self.text, record)
        if not text:
            raise Unusable("an empty text")
        return Item((text,), ())


def _place(answer: str, choices: Sequence[str]) -> int:
    """Which of `choices` an answer means. Raises Unusable."""
    if answer in choices and not answer.isdigit():
        return choices.index(answer)
    place = int(answer) if answer.isdigit() else LETTERS.find(answer) if len(answer) == 1 else -1
    if not 0 <= place < len(choices):
        raise Unusable("the answer is none of the choices")
    return place


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:120]
