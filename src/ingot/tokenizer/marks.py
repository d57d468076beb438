"""Marks in a text on its way through a chat template: what they hide there, and where they say a span begins and ends.

A mark is a noncharacter of Unicode, a random number and a sign. Nobody who writes a message knows the number.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping

HEAD, TAIL = "\ufdd0", "\ufdd1"  # noncharacters: no normalisation touches them, no template looks for them
BREAK, BEGIN, STOP = -1, -2, -3  # signs of marks; one that is not negative is the special token that the mark hides


class Marks:
    """Marks for one set of special tokens, given as names with their ids."""

    def __init__(self, special: Mapping[str, int]):
        self._key = f"{HEAD}{secrets.randbits(64)}"
        self._names = {token: name for name, token in special.items()}
        self._tokens = dict(special)
        longest_first = sorted(special, key=len, reverse=True)  # as the library finds them
        self.special = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
        self._found = re.compile(rf"{self._key}:(-?\d+){TAIL}|({self.special.pattern})")
        self._secret = re.compile(rf"{self._key}!(\d+){TAIL}")
        self._longest = max(map(len, special), default=0)
        self._heads = {name[:size] for name in special for size in range(1, len(name))}
        self._tails = {name[size:] for name in special for size in range(1, len(name))}
        self.begin, self.stop = self._mark(BEGIN), self._mark(STOP)

    def secret(self, token: int) -> str:
        """The name that `read` gives the special token of this id."""
        return f"{self._key}!{token}{TAIL}"

    def hide(self, text: str) -> str:
        """`text` with nothing in it that a template could take, or complete, to a special token."""
        core = self.special.sub(lambda found: self._mark(self._tokens[found[0]]), text.strip())
        size = range(1, min(self._longest, len(core) + 1))
        cuts = {len(core) - count + 1 for count in size if core[-count:] in self._heads}
        cuts |= {count - 1 for count in size if core[:count] in self._tails}
        if len(core) < self._longest and any(core in name for name in self._tokens):
            cuts.add(1)
        for cut in sorted(cuts, reverse=True):
            core = core[:cut] + self._mark(BREAK) + core[cut:]
        return self._within(text, core)

    def span(self, text: str) -> str:
        """`text` with marks where it begins and stops, white space around it apart, which templates may strip."""
        core = text.strip()
        return self._within(text, f"{self.begin}{core}{self.stop}") if core else text

    def parted(self, text: str) -> tuple[list[str], list[int]]:
        """What `read` gave, apart: the plain text before, between and behind special tokens, and their ids."""
        pieces = self._secret.split(text)
        return pieces[::2], list(map(int, pieces[1::2]))

    def read(self, rendered: str, size_of: Callable[[str], int] = len) -> tuple[str, list[tuple[int, int]]]:
        """What a template made of marked messages: without marks, special tokens under their secret names, and spans.

        A span is the (begin, end) of characters between two marks, or of whatever `size_of` counts.
        """
        pieces: list[str] = []
        spans: list[tuple[int, int]] = []
        at = size = begin = 0
        for found in self._found.finditer(rendered):
            sign = int(found[1] or 0)
            if found[2]:
                pieces += rendered[at : found.start()], self.secret(self._tokens[found[2]])
            else:
                pieces += rendered[at : found.start()], self._names[sign] if found[1] and sign >= 0 else ""
            size += size_of(pieces[-2]) + size_of(pieces[-1])
            at = found.end()
            if sign == BEGIN:
                begin = size
            elif sign == STOP:
                spans.append((begin, size))
        return "".join([*pieces, rendered[at:]]), spans

    def erase(self, rendered: str) -> str:
        """What a template made of marked messages, as it would be without marks."""
        return self._found.sub(lambda found: found[2] or self._names.get(int(found[1]), ""), rendered)

    def _mark(self, sign: int) -> str:
        return f"{self._key}:{sign}{TAIL}"

    @staticmethod
    def _within(text: str, core: str) -> str:
        begin = len(text) - len(text.lstrip())
        return text[:begin] + core + text[begin + len(text.strip()) :]
