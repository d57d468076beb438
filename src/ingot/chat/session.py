"""A conversation under way: what was said, how answers are sampled, and the commands that change either."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from ingot.chat.context import Message, Prompt, as_messages
from ingot.config.check import validate
from ingot.config.text import parse_yaml
from ingot.errors import UserError, nearest
from ingot.files import write_atomically
from ingot.generate.sampling import Sampling

SETTINGS = {  # commands that set an option of sampling: the option, and what it may be
    "temperature": ("temperature", "a number, 0 or above"),
    "top_k": ("top_k", "a whole number, 0 or above"),
    "top_p": ("top_p", "a number above 0, at most 1"),
    "min_p": ("min_p", "a number from 0 to 1"),
    "repetition_penalty": ("repetition_penalty", "a number from 0.01 to 100"),
    "seed": ("seed", "a whole number, 0 or above, or none"),
    "max": ("max_new_tokens", "a whole number, 1 or above"),
}


Pieces = Generator[str, None, None]  # of an answer; closed early, what was written so far is kept


class Model(Protocol):
    """What a session needs of a language model."""

    def prompt(self, messages: Sequence[Message], sampling: Sampling) -> Prompt:
        """What the model reads of `messages` before it answers."""

    def answer(self, prompt: Prompt, sampling: Sampling) -> Iterator[str]:
        """What the model writes after `prompt`, piece by piece."""


class Session:
    """Messages in turn, the system's first if there is one, the last one the assistant's."""

    def __init__(self, model: Model, sampling: Sampling, system: str = ""):
        self.sampling = sampling
        self.messages: list[Message] = [Message("system", system)] if system else []
        self.dropped = 0
        """oldest messages that had no room in the last prompt"""
        self.over = False
        self._model = model
        self._own: set[Path] = set()  # files that the session wrote or read, which it may write again
        self._retries = 0

    def answer(self, text: str) -> Pieces:
        """The answer to `text` piece by piece. What was said is kept, also where the reader leaves early.

        Raises UserError, and keeps nothing, for a text that the model can't read; nothing is kept of no answer either.
        """
        self._retries = 0
        return self._answer([*self.messages, Message("user", text)])

    def retry(self) -> Pieces:
        """Another answer to the last message. Raises UserError where there is none."""
        if not self.messages or self.messages[-1].role != "assistant":
            raise UserError("there is no answer yet", mend="say something first")
        self._retries += 1
        return self._answer(self.messages[:-1])

    def _answer(self, messages: list[Message]) -> Pieces:
        seed = self.sampling.seed
        settings = self.sampling.model_copy(update={} if seed is None else {"seed": seed + self._retries})
        prompt = self._model.prompt(messages, settings)
        self.dropped = prompt.dropped
        return self._said(messages, self._model.answer(prompt, settings))

    def _said(self, messages: list[Message], pieces: Iterator[str]) -> Pieces:
        said: list[str] = []
        try:
            for piece in pieces:
                said.append(piece)
                yield piece
        finally:
            if said:
                self.messages = [*messages, Message("assistant", "".join(said))]

    # --- commands -----------------------------------------------------------------------------------------------------

    def command(self, line: str) -> str | Pieces:
        """Do what a line such as `temperature 0.5` says: what to tell of it, or an answer. Raises UserError."""
        word, _, rest = line.partition(" ")
        if word == "retry":
            return self.retry()
        if word in SETTINGS:
            return self._set(word, rest.strip())
        if word not in COMMANDS:
            near = nearest(f"/{word}", [f"/{known}" for known in (*COMMANDS, *SETTINGS)])
            raise UserError(f"there is no command /{word}", mend=f"{near} (a message may begin with //)")
        return COMMANDS[word][0](self, rest.strip())

    def _set(self, word: str, text: str) -> str:
        name, allowed = SETTINGS[word]
        if text:
            try:
                value = None if text == "none" else parse_yaml(text)
                self.sampling = validate(Sampling, self.sampling.to_dict() | {name: value}, where="")
            except UserError:
                raise UserError(f"it must be {allowed}, not {text!r}", where=f"/{word}") from None
        value = getattr(self.sampling, name)
        return f"{word} {'none' if value is None else f'{value:g}'}"

    def _help(self, _: str) -> str:
        rows = [(f"/{name} {what}".rstrip(), meaning) for name, (_, what, meaning) in COMMANDS.items()]
        rows.append(("/temperature, …", f"show or set: {', '.join(SETTINGS)}"))
        rows += [("Ctrl-C", "stops an answer"), ('\\ or """', 'a line that ends in \\, or lines between """, go on')]
        return "\n".join(f"{command:18} {meaning}" for command, meaning in rows)

    def _reset(self, _: str) -> str:
        self.messages = [message for message in self.messages[:1] if message.role == "system"]
        return "a new conversation"

    def _system(self, text: str) -> str:
        told = [message for message in self.messages if message.role != "system"]
        if not text:
            self.messages = told
            return "no system message"
        self.messages = [Message("system", text), *told]
        return "the system message is set"

    def _save(self, name: str) -> str:
        path = _named(name, "/save talk.json")
        if not self.messages:
            raise UserError("nothing was said yet")
        if path.exists() and path not in self._own:
            raise UserError("this file is there already", where=str(path), mend="choose another name")
        said = [{"messages": [message._asdict() for message in self.messages]}]  # as a source of conversations reads it
        write_atomically(path, json.dumps(said, ensure_ascii=False, indent=1) + "\n")
        self._own.add(path)
        return f"saved in {path}"

    def _load(self, name: str) -> str:
        path = _named(name, "/load talk.json")
        self.messages = read_messages(path)
        self._own.add(path)
        return f"{len(self.messages)} messages from {path}"

    def _show(self, _: str) -> str:
        if not self.messages:
            raise UserError("nothing was said yet")
        return "\n".join(f"{message.role}: {message.content}" for message in self.messages)

    def _exit(self, _: str) -> str:
        self.over = True
        return ""


Command = Callable[[Session, str], Any]
COMMANDS: dict[str, tuple[Command, str, str]] = {
    "help": (Session._help, "", "this list"),
    "retry": (lambda session, _: session.retry(), "", "another answer to the last message"),
    "reset": (Session._reset, "", "begin a new conversation; the system message stays"),
    "system": (Session._system, "TEXT", "set the system message; without a text: none"),
    "show": (Session._show, "", "all that was said"),
    "save": (Session._save, "FILE", "save the conversation as JSON"),
    "load": (Session._load, "FILE", "go on with a saved conversation"),
    "exit": (Session._exit, "", "leave, as Ctrl-D does"),
}


def read_messages(path: Path) -> list[Message]:
    """The conversation in a JSON file: a list of messages, or what `/save` wrote. Raises UserError."""
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"the file can't be read ({error.strerror})", where=str(path), mend="check it") from None
    except UnicodeDecodeError:
        raise UserError("invalid UTF-8", where=str(path), mend="save the file as UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"not valid JSON: {getattr(error, 'msg', error)}", where=str(path)) from None
    value = value[0] if isinstance(value, list) and len(value) == 1 else value
    return as_messages(value.get("messages") if isinstance(value, dict) else value, where=f"{path}: messages")


def _named(name: str, such: str) -> Path:
    if not name:
        raise UserError("a file is needed", mend=f"such as {such}")
    return Path(name).expanduser()
