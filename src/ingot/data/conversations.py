"""Conversations as they lie in data sets: the shapes of their records, and messages in turn made of each.

A shape is named by the fields that it reads. One field holds the messages as a list (`messages`, `conversations` …);
several, joined by `+`, hold a request, perhaps more of it, and the answer to it (`instruction+input+output`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from ingot.data.document import Conversation, Dropped, Message, unwritable

LISTS = ("messages", "conversations", "conversation", "dialogue", "dialog", "turns")  # in order of preference
PAIRS = (  # the first is asked, the last answers; what is between them may be missing; in order of preference
    ("instruction", "input", "output"),  # Alpaca
    ("instruction", "context", "response"),  # Dolly
    ("prompt", "completion"),
    ("prompt", "response"),
    ("question", "answer"),
    ("question", "response"),  # OpenOrca
)
SYSTEM = ("system", "system_prompt")  # fields beside a shape that hold a system message
ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
}
ROLE_FIELDS = ("role", "from")
SPEAKER_FIELDS = ("sender", "speaker")  # a person's name: who speaks first is the user, who answers the assistant
TEXT_FIELDS = ("content", "value", "text")
CALL_FIELDS = ("tool_calls", "function_call")
NOTHING = "no conversation in the record"


class _Unfit(Exception):
    """Why a record gives no conversation; few different words, since reports count by them."""


def recognise(record: Mapping[str, Any]) -> str | None:
    """The shape of `record` that `as_record` reads, as the names of its fields; None: there is no conversation."""
    for name in LISTS:
        items = _items(record.get(name))
        if items is not None and (not items or _is_message(items[0])):
            return name
    for first, *between, last in PAIRS:
        if isinstance(record.get(first), str) and isinstance(record.get(last), str):
            return "+".join((first, *between, last))
    return None


def as_record(record: Any, offset: int, shape: str = "") -> Conversation | Dropped:
    """The conversation in `record`, or why there is none; `shape` names its fields, empty: it is recognised.

    Messages without text are left out, neighbours of one role joined by a line break, and what follows the
    assistant's last turn is cut off (`Conversation.cut` counts it).
    """
    if not isinstance(record, Mapping):
        return Dropped(NOTHING, offset)
    shape = shape or recognise(record) or ""
    try:
        messages = _in_turn(_said(record, shape))
    except _Unfit as unfit:
        return Dropped(str(unfit), offset)
    last = max((place for place, message in enumerate(messages, 1) if message.role == "assistant"), default=0)
    kept = messages[:last]
    if sum(message.role != "system" for message in kept) < 2:
        return Dropped("fewer than two turns", offset)
    return Conversation(tuple(kept), offset, cut=len(messages) - last)


def _in_turn(messages: Sequence[Message]) -> list[Message]:
    """`messages` without those that say nothing; neighbours of one role are one."""
    speaking = [message for message in messages if message.content and not message.content.isspace()]
    return [
        Message(role, "\n".join(message.content for message in group))
        for role, group in groupby(speaking, key=lambda message: message.role)
    ]


def _said(record: Mapping[str, Any], shape: str) -> list[Message]:
    fields = shape.split("+")
    if len(fields) > 1:
        messages = _asked_and_answered([_text("" if record.get(field) is None else record[field]) for field in fields])
    else:
        items = _items(record.get(shape))
        if items is None:
            raise _Unfit(NOTHING)
        messages = _listed(items)
    if not messages or messages[0].role != "system":
        system = (record.get(field) for field in SYSTEM)
        messages = [Message("system", _text(text)) for text in system if isinstance(text, str)] + messages
    return messages


def _asked_and_answered(texts: Sequence[str]) -> list[Message]:
    *request, answer = texts
    asked = "\n\n".join(text for text in request if text and not text.isspace())
    return [Message("user", asked), Message("assistant", answer)]


def _listed(items: Sequence[Any]) -> list[Message]:
    """Messages of a list: bare texts in turn, or mappings that say who speaks, perhaps in groups."""
    flat = [message for item in items for message in (item if isinstance(item, list) else [item])]
    if all(isinstance(message, str) for message in flat):
        return [Message(("user", "assistant")[place % 2], _text(text)) for place, text in enumerate(flat)]
    if not all(isinstance(message, Mapping) for message in flat):
        raise _Unfit("a message that is not text")
    roles = _roles([_speaker(message) for message in flat])
    return [Message(role, _content(message)) for role, message in zip(roles, flat, strict=True)]


def _speaker(message: Mapping[str, Any]) -> tuple[str, bool]:
    """Who speaks, and whether it is a role, not a name."""
    for field in (*ROLE_FIELDS, *SPEAKER_FIELDS):
        if isinstance(name := message.get(field), (str, int)):
            return str(name), field in ROLE_FIELDS
    raise _Unfit("a message of nobody")


def _roles(speakers: Sequence[tuple[str, bool]]) -> list[str]:
    names = list(dict.fromkeys(name for name, _ in speakers))
    known = {name: ROLES[name.lower()] for name in names if name.lower() in ROLES}
    if len(known) < len(names):
        if known or any(is_role for _, is_role in speakers):
            raise _Unfit("a role that is none of system, user and assistant")
        if len(names) > 2:
            raise _Unfit("more than two people speak")
        known = dict(zip(names, ("user", "assistant"), strict=False))
    return [known[name] for name, _ in speakers]


def _content(message: Mapping[str, Any]) -> str:
    """The text of a message; OpenAI's list of parts when all of them are text."""
    if any(message.get(field) for field in CALL_FIELDS):
        raise _Unfit("a message that calls a tool")
    content = next((message[field] for field in TEXT_FIELDS if message.get(field) is not None), None)
    if isinstance(content, list):
        parts = [part.get("text") if isinstance(part, Mapping) else None for part in content]
        return "".join(map(_text, parts))
    return _text(content)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise _Unfit("a message that is not text")
    if reason := unwritable(value):
        raise _Unfit(reason)
    return value


def _items(value: Any) -> list[Any] | None:
    """A list of messages; a column of a csv file holds it spelled as JSON."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, list) else None


def _is_message(item: Any) -> bool:
    first = item[0] if isinstance(item, list) and item else item
    return isinstance(first, str) or (
        isinstance(first, Mapping)
        and any(field in first for field in (*ROLE_FIELDS, *SPEAKER_FIELDS))
        and any(field in first for field in TEXT_FIELDS)
    )
