"""Text that comes in pieces, in lines that end between words."""

from __future__ import annotations

from collections.abc import Callable

from rich.cells import cell_len


class Wrapping:
    """Lines of at most `width` columns: a gap that a line ends at becomes a line break, all else stays as it is.

    A word is held until it has ended. One that is longer than a line is left to the terminal, and a letter of two
    columns, as in scripts without gaps, is a word of its own.
    """

    def __init__(self, width: Callable[[], int]):
        self._width = width  # asked anew for each word: people change their windows
        self._column, self._gap, self._word = 0, "", ""  # what is shown of the line; what is held

    def add(self, piece: str) -> str:
        """What can be shown now that `piece` has come."""
        return "".join(map(self._next, piece))

    def end(self) -> str:
        """What is left: the last word, once nothing follows."""
        gap, word = self._gap, self._word
        if not word:
            return ""
        self._gap = self._word = ""
        column = len((" " * self._column + gap).expandtabs()) + cell_len(word)
        if self._column and column > self._width() and (gap or _is_wide(word[0])):
            self._column = cell_len(word)
            return f"\n{word}"
        self._column = column
        return gap + word

    def _next(self, letter: str) -> str:
        if letter == "\n":
            line = f"{self.end()}\n"
            self._column, self._gap = 0, ""
            return line
        goes_on = not (letter.isspace() or _is_wide(letter) or cell_len(self._word) >= self._width())
        before = "" if goes_on else self.end()
        if letter.isspace():
            self._gap += letter
        else:
            self._word += letter
        return before


def _is_wide(letter: str) -> bool:
    return cell_len(letter) > 1
