"""What a person types or a pipe brings, as messages and commands."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import IO, NamedTuple, Protocol

from ingot.errors import UserError

BLOCK = '"""'  # stands alone before and after a message of several lines
MORE = "\\"  # at the end of a line: the message goes on


class Said(NamedTuple):
    """A message, or a command without its slash."""

    text: str
    command: bool


class Lines(Protocol):
    """Where lines come from."""

    def read(self, more: bool) -> str:
        """The next line; `more`: of a message that goes on. Raises EOFError where there is none."""


def said(lines: Lines) -> Iterator[Said]:
    """All that is said, blank lines left out; Ctrl-C in a terminal gives up what was being typed."""
    while True:
        try:
            found = _next(lines)
        except EOFError:
            return
        except KeyboardInterrupt:
            if not isinstance(lines, Typed):
                raise
            print("\n(Ctrl-D or /exit leaves)")
            continue
        if found.text:
            yield found


def _next(lines: Lines) -> Said:
    """A line; or a message of lines that end in a backslash, or of all lines between two of three quotes."""
    line = lines.read(False)
    if line.strip() == BLOCK:
        return Said("\n".join(_block(lines)).strip(), False)
    if line.startswith("/") and not line.startswith("//"):
        return Said(line[1:].strip() or "help", True)
    pieces = [line.removeprefix("/") if line.startswith("//") else line]
    while pieces[-1].endswith(MORE):
        pieces[-1] = pieces[-1].removesuffix(MORE)
        try:
            pieces.append(lines.read(True))
        except EOFError:
            break
    return Said("\n".join(pieces).strip(), False)


def _block(lines: Lines) -> Iterator[str]:
    with contextlib.suppress(EOFError):
        while (line := lines.read(True)).strip() != BLOCK:
            yield line


class Typed:
    """Lines from the terminal, with editing and a history of this session."""

    def __init__(self) -> None:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  # input() edits lines once it is imported

    def read(self, more: bool) -> str:
        """As `Lines.read`."""
        try:
            return input(". " if more else "> ")
        except EOFError:
            print()
            raise
        except UnicodeDecodeError:
            print("! that was no UTF-8; nothing was said")
            return ""


class Piped:
    """Lines from a pipe or a file. Raises UserError for what is no UTF-8."""

    def __init__(self, file: IO[bytes] | None = None):
        self._file, self._number = file or sys.stdin.buffer, 0

    def read(self, more: bool) -> str:
        """As `Lines.read`."""
        line = self._file.readline()
        self._number += 1
        if not line:
            raise EOFError
        try:
            return line.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            where = f"standard input, line {self._number}"
            raise UserError("invalid UTF-8", where=where, mend="give text in UTF-8") from None
