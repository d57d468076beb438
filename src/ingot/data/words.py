"""Texts as numbers that can be counted: kinds of characters, and each run of a few words as a hash, in any script.

A word is a run of letters and digits. In scripts that set no spaces between words (Han, kana, Thai and others) each
character is a word. What a character is comes from the Unicode 3.2 tables that every Python carries, and not from the
interpreter's own, which grow: so a text comes to the same on every machine. What is newer counts as a letter.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingot.data.bits import mixed

SPACE, SYMBOL, DIGIT, LETTER, ALONE = range(5)  # kinds of characters; ALONE: a letter that is a word of its own
PIECE = 2**18  # characters that are worked on at once; a longer text is cut there, words included

# Code points [first, end) of scripts without spaces; all from 0x10000 on are taken so as well, but for emoji.
_SPACELESS = (
    *((0x0E00, 0x0F00), (0x1000, 0x10A0), (0x1780, 0x1800), (0x1950, 0x1AB0)),  # Thai, Lao, Burmese, Khmer, Tai
    *((0x2E80, 0x3130), (0x3190, 0xA4D0), (0xF900, 0xFB00), (0xFF66, 0xFFA0)),  # kana, Han, Yi
)
_EMOJI = (0x1F000, 0x1FC00)
_TABLE = 0x10001
_ALONE_BIT = np.uint64(2**63)
_CASED = 0x0590  # Latin, Greek, Cyrillic and Armenian lie below: their capitals are settled for good
_BASE, _STEP = 0x9E3779B97F4A7C15, np.uint64(0xD6E8FEB86659FD93)  # odd, so that no bit is lost


def kinds(text: str) -> NDArray[np.int64]:
    """How many characters of each kind `text` has: (5,)."""
    counts = np.zeros(5, np.int64)
    for begin in range(0, len(text), PIECE):
        counts += np.bincount(_kinds(_points(text[begin : begin + PIECE])), minlength=5)
    return counts


def runs(texts: Sequence[str], length: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Every run of `length` words of each text as a hash, repeats included, in order: (all,), and counts (texts,).

    Capitals equal small letters. A text of fewer words is one run, and one without any word is one run of hash 0.
    """
    found, counts = [np.zeros(0, np.uint64)], np.zeros(len(texts), np.int64)
    for first, pieces in _batches(texts):
        hashes, own = _runs(pieces, length)
        found.append(hashes)
        counts[first : first + len(own)] += own
    return np.concatenate(found), counts


def _batches(texts: Sequence[str]) -> Iterator[tuple[int, Sequence[str]]]:
    """Neighbouring texts of about `PIECE` characters together, and a longer one's pieces one by one, by first index."""
    first = size = 0
    for index, text in enumerate(texts):
        if size and size + len(text) >= PIECE:
            yield first, texts[first:index]
            first, size = index, 0
        size += len(text) + 1
        if size > PIECE:  # then `text` stands alone
            for begin in range(0, len(text), PIECE):
                yield index, [text[begin : begin + PIECE]]
            first, size = index + 1, 0
    if first < len(texts):
        yield first, texts[first:]


def _runs(texts: Sequence[str], length: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    ends = np.cumsum([len(text) + 1 for text in texts])
    points = _points("\n".join([*texts, ""]))  # a space behind each text, so that no word spans two
    begins, words = _words(points)
    last = np.searchsorted(begins, ends)
    counts = np.diff(last, prepend=0)  # words of each text
    # Behind each text stand so many zeros that no run of words reaches into the next.
    behind = np.arange(len(texts)) * length
    row = np.zeros(len(words) + length * len(texts), np.uint64)
    row[np.arange(len(words)) + np.repeat(behind, counts)] = words
    hashes = np.zeros(len(row) - length + 1, np.uint64)
    for place in range(length):
        hashes *= _STEP
        hashes += row[place : place + len(hashes)]
    taken = np.maximum(counts - length + 1, 1)
    chosen = np.arange(taken.sum()) + np.repeat(last - counts + behind - np.cumsum(taken) + taken, taken)
    return mixed(hashes[chosen]), taken


def _words(points: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Where each word begins, and its hash: the polynomial of its characters modulo 2**64, spread over all bits."""
    values = _value_table()[_within_table(points)]
    alone = values >= _ALONE_BIT
    some_alone = alone.any()
    if some_alone:
        values[alone] += points[alone]  # beyond the table there is but one value
        values[_emoji(points)] = 0
    inside = values != 0
    starts = inside.copy()
    starts[1:] &= ~inside[:-1]
    if some_alone:
        starts |= alone & inside
        starts[1:] |= alone[:-1] & inside[1:]
    begins = np.flatnonzero(starts)
    if not len(begins):
        return begins, np.zeros(0, np.uint64)
    powers, inverse = _powers(PIECE + 1)
    values *= powers[: len(values)]  # by place in all the text, which the word's own place takes back
    return begins, mixed(np.add.reduceat(values, begins) * inverse[begins])


@cache
def _powers(count: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """The first powers of the base, and of its inverse, modulo 2**64."""
    powers, inverse = np.full((2, count), 1, np.uint64)
    powers[1:], inverse[1:] = _BASE, pow(_BASE, -1, 2**64)
    return np.cumprod(powers, dtype=np.uint64), np.cumprod(inverse, dtype=np.uint64)


def _points(text: str) -> NDArray[Any]:
    """The code points of `text`: uint8 where all are ASCII, else uint32."""
    if text.isascii():
        return np.frombuffer(text.encode("ascii"), np.uint8)
    return np.frombuffer(text.encode("utf-32-le"), "<u4")


def _kinds(points: NDArray[Any]) -> NDArray[np.uint8]:
    found = _kind_table()[_within_table(points)]
    if points.dtype != np.uint8:
        found[_emoji(points)] = SYMBOL
    return found


def _emoji(points: NDArray[Any]) -> NDArray[np.bool_]:
    return (points >= _EMOJI[0]) & (points < _EMOJI[1])


def _within_table(points: NDArray[Any]) -> NDArray[Any]:
    """Where in a table the code points stand: all above 0xFFFF in its last row."""
    return points if points.dtype == np.uint8 else np.minimum(points, _TABLE - 1)


@cache
def _kind_table() -> NDArray[np.uint8]:
    """The kind of each code point below 0x10000, and behind them that of all others: (_TABLE,)."""
    of = {"Z": SPACE, "P": SYMBOL, "S": SYMBOL, "N": DIGIT, "L": LETTER, "M": LETTER}
    categories = [unicodedata.ucd_3_2_0.category(chr(point)) for point in range(_TABLE - 1)]
    table = np.array([SPACE if name in ("Cc", "Cf") else of.get(name[0], LETTER) for name in categories], np.uint8)
    for begin, end in _SPACELESS:
        table[begin:end][table[begin:end] == LETTER] = ALONE
    return np.append(table, np.uint8(ALONE))


@cache
def _value_table() -> NDArray[np.uint64]:
    """What each character counts for in its word's hash: its small letter; 0 for what parts words: (_TABLE,)."""
    values = np.arange(_TABLE, dtype=np.uint64)
    for point in range(_CASED):
        small = chr(point).lower()
        values[point] = ord(small) if len(small) == 1 else point
    table = _kind_table()
    values[table < DIGIT] = 0
    values[table == ALONE] += _ALONE_BIT
    return values
