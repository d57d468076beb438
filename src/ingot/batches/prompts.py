"""Prompts from a file, or from a program: a text, or a mapping of a prompt or messages and options of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ingot.chat.context import Message, as_messages
from ingot.errors import UserError, nearest
from ingot.generate.sampling import Sampling

SUFFIXES = (".txt", ".jsonl")
PROMPT, MESSAGES = "prompt", "messages"


@dataclass(frozen=True)
class Entry:
    """One thing to be continued: a text or, where there are `messages`, the answer to a conversation."""

    prompt: str
    """the text, or the last thing said"""
    where: str
    """the place to look for a mistake"""
    messages: tuple[Message, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    """of sampling, beyond those of all prompts"""


def read_prompts(path: Path) -> list[Entry]:
    """The prompts in a file, in order: .txt: every line that is not blank; .jsonl: a text or a mapping in each line.

    Raises UserError with file and line for what is no prompt, and for a file that can't be read or holds none.
    """
    if path.suffix.lower() not in SUFFIXES:
        mend = f"give {' or '.join(SUFFIXES)}"
        raise UserError(f"prompts are not read from a {path.suffix or 'file without an ending'}", str(path), mend)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"the file can't be read ({error.strerror})", where=str(path), mend="check it") from None
    values = [_value(line, where, path.suffix.lower()) for line, where in _lines(data, path)]
    if not values:
        raise UserError("there is no prompt in this file", where=str(path), mend="put one in each line")
    return [_entry(value, where) for value, where in values]


def prompts_of(values: Sequence[Any]) -> list[Entry]:
    """Prompts as a program gives them. Raises UserError that names the first that is none."""
    if isinstance(values, (str, Mapping)) or not isinstance(values, Sequence):
        raise UserError("a list of prompts is expected", where="prompts", mend='give one such as ["Once", "We must"]')
    return [_entry(value, f"prompts[{place}]") for place, value in enumerate(values)]


def _lines(data: bytes, path: Path) -> Iterator[tuple[str, str]]:
    """Every line that is not blank, as text, and where it is."""
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        where = f"{path}:{number}"
        try:
            text = line.removesuffix(b"\r").decode("utf-8")
        except UnicodeDecodeError:
            raise UserError("invalid UTF-8", where=where, mend="save the file as UTF-8") from None
        if text.strip():
            yield text, where


def _value(line: str, where: str, suffix: str) -> tuple[Any, str]:
    if suffix == ".txt":
        return line, where
    try:
        return json.loads(line), where
    except (ValueError, RecursionError) as error:
        reason = getattr(error, "msg", "it lies too deep")
        mend = 'a line is such as {"prompt": "Once"}'
        raise UserError(f"not valid JSON: {reason}", where=where, mend=mend) from None


def _entry(value: Any, where: str) -> Entry:
    if isinstance(value, str):
        return Entry(value, where)
    if not isinstance(value, Mapping):
        raise UserError("a prompt is a text or a mapping", where=where, mend='such as {"prompt": "Once"}')
    known = [PROMPT, MESSAGES, *Sampling.model_fields]
    if unknown := [str(key) for key in value if key not in known]:
        raise UserError(f"there is no key {unknown[0]!r}", where=where, mend=nearest(unknown[0], known))
    if (PROMPT in value) == (MESSAGES in value):
        raise UserError("a mapping needs a prompt or messages, one of the two", where=where)
    options = {key: option for key, option in value.items() if key in Sampling.model_fields}
    if MESSAGES in value:
        messages = as_messages(value[MESSAGES], f"{where}: {MESSAGES}")
        return Entry(messages[-1].content, where, tuple(messages), options)
    if not isinstance(value[PROMPT], str):
        raise UserError("a prompt is a text", where=f"{where}: {PROMPT}", mend="put it in quotes")
    return Entry(value[PROMPT], where, options=options)
