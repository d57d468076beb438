"""The program that talks: messages from a terminal or a pipe, answers as they are written."""

from __future__ import annotations

import shutil
import sys
from typing import Protocol

from ingot.chat.session import Model, Pieces, Session
from ingot.chat.typed import Piped, Said, Typed, said
from ingot.chat.wrapping import Wrapping
from ingot.errors import UserError
from ingot.generate.sampling import Sampling

# What a model writes must not steer the terminal: line breaks and tabs alone keep their meaning.
TAME = {code: "\N{REPLACEMENT CHARACTER}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


class LanguageModel(Model, Protocol):
    """What the program tells of a model, beside what a session needs."""

    name: str
    tuned: bool

    @property
    def context(self) -> int:
        """Tokens that a text may have."""


def talk(model: LanguageModel, sampling: Sampling, system: str = "") -> None:
    """Talk until the input ends or /exit; Ctrl-C stops an answer. Into a pipe, answers alone are written.

    Raises UserError where the messages come from a pipe: in a terminal it is told, and the conversation goes on.
    """
    session, interactive = Session(model, sampling, system), sys.stdin.isatty()
    if not model.tuned:
        told = f"{model.name} was not tuned on conversations: it will go on writing rather than answer; "
        told += f"a recipe with `start: {model.name}` and conversations, such as demo-chat, tunes it"
        print(told, file=sys.stderr)
    if interactive:
        print(f"{model.name}, context {model.context:,} tokens. /help lists the commands, Ctrl-D leaves.\n")
    for words in said(Typed() if interactive else Piped()):
        if not interactive:
            _reply(session, words, interactive)
        else:
            try:
                _reply(session, words, interactive)
            except UserError as error:
                print(f"! {error}\n")
            except KeyboardInterrupt:
                print("\n(stopped)\n")
        if session.over:
            return


def _reply(session: Session, words: Said, interactive: bool) -> None:
    """Write what comes of `words`; in a terminal with a blank line behind it."""
    reply = session.command(words.text) if words.command else session.answer(words.text)
    if isinstance(reply, str):
        print(reply, end="\n\n" if interactive and reply else "\n" if reply else "")
        return
    wrote = _write(reply)
    print("" if wrote else "(no answer)")
    if not interactive:
        return
    if session.dropped:
        print(f"(the context is full: it has not read the oldest {session.dropped} messages)")
    print()


def _write(pieces: Pieces) -> bool:
    """Write an answer as it comes to be; whether there was any. The rest is given up where Ctrl-C stops it."""
    wrote, lines = False, Wrapping(lambda: shutil.get_terminal_size().columns) if sys.stdout.isatty() else None
    try:
        for piece in pieces:
            print(lines.add(piece.translate(TAME)) if lines else piece, end="", flush=True)
            wrote = True
    finally:
        pieces.close()  # what was written so far is kept
        print(lines.end() if lines else "", end="", flush=True)
    return wrote
