"""Messages as they come from a user, and what of a conversation a model's context holds."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ingot.errors import UserError, nearest
from ingot.generate.sampling import Sampling
from ingot.tokenizer.chat import ROLES, ChatTemplate

ROOM = 4  # a part of the context, one in so many, is kept free for the answer, or max_new_tokens where that is less
DEFAULTS = {"temperature": 0.7, "top_p": 0.95, "max_new_tokens": 256}  # of an answer, where nothing else is asked for


class Message(NamedTuple):
    """What one side of a conversation says: `role` is system, user or assistant."""

    role: str
    content: str


class Prompt(NamedTuple):
    """What a model reads before it answers."""

    ids: list[int]
    dropped: int  # oldest messages that had no room


def as_messages(values: Any, where: str = "messages") -> list[Message]:
    """`values`, mappings such as `{"role": "user", "content": "Hello"}`, as messages. Raises UserError."""
    if isinstance(values, (str, Mapping)) or not isinstance(values, Sequence):
        mend = 'give a list such as [{"role": "user", "content": "Hello"}]'
        raise UserError("a conversation is a list of messages", where=where, mend=mend)
    if not values:
        raise UserError("a conversation without messages", where=where, mend="give it one")
    return [_message(value, f"{where}[{place}]") for place, value in enumerate(values)]


def _message(value: Any, where: str) -> Message:
    if isinstance(value, Message):
        return value
    if not isinstance(value, Mapping):
        raise UserError("a message is a mapping of role and content", where=where)
    if unknown := [str(key) for key in value if key not in Message._fields]:
        raise UserError(f"there is no key {unknown[0]!r}", where=where, mend=nearest(unknown[0], Message._fields))
    for key in Message._fields:
        if not isinstance(value.get(key), str):
            raise UserError(f"a message needs a text as its {key}", where=where, mend=f'add "{key}": "…"')
    if value["role"] not in ROLES:
        raise UserError(f"the role {value['role']!r:.40}", where=where, mend=nearest(value["role"], ROLES))
    return Message(value["role"], value["content"])


def prompt_of(template: ChatTemplate, messages: Sequence[Message], context: int, sampling: Sampling) -> Prompt:
    """`messages` with room for an answer in `context` tokens: the oldest go where they have to, the system's stay.

    Raises UserError where the last question alone does not fit, and for messages that the template refuses.
    """
    whole = template.prompt(messages)
    room = min(sampling.max_new_tokens, max(1, context // ROOM))
    if len(whole) + room <= context:
        return Prompt(whole, 0)
    system = next((place for place, message in enumerate(messages) if message.role != "system"), len(messages))
    begins = [place for place in range(system, len(messages)) if messages[place].role == "user"] or [system]

    def kept(begin: int) -> list[int]:
        return template.prompt([*messages[:system], *messages[begin:]])

    found = bisect_left(begins, True, key=lambda begin: len(kept(begin)) + room <= context)
    begin = begins[min(found, len(begins) - 1)]
    ids = kept(begin)
    if len(ids) > context:
        told = " with the system message" if system else ""
        what = f"the last message{told} has {len(ids):,} tokens, and the model's context is {context:,}"
        raise UserError(what, where="messages", mend="shorten it")
    return Prompt(ids, begin - system)
