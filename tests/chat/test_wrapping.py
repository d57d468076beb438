"""Lines end between words, however a text was cut into pieces, and no piece waits for long."""

from __future__ import annotations

from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingot.chat.wrapping import Wrapping

WORDS = st.text(st.sampled_from("abcé.,-'"), min_size=1, max_size=25)
GAPS = st.sampled_from([" ", " ", " ", "  ", "\t", "\n", "\n\n", " \n"])
TEXTS = st.lists(st.tuples(WORDS, GAPS), max_size=20).map(lambda pairs: "".join(word + gap for word, gap in pairs))
WIDTH = 12


def shown(pieces: list[str], width: int = WIDTH) -> list[str]:
    """What is shown for each piece, and at the end."""
    lines = Wrapping(lambda: width)
    return [*map(lines.add, pieces), lines.end()]


def cut(text: str, places: list[int]) -> list[str]:
    bounds = [0, *sorted(place for place in places if place < len(text)), len(text)]
    return [text[begin:end] for begin, end in pairwise(bounds)]


@given(TEXTS, st.lists(st.integers(0, 200)))
def test_words_stay_whole_lines_are_short_and_pieces_do_not_matter(text: str, places: list[int]):
    whole = "".join(shown([text]))
    assert "".join(shown(cut(text, places))) == whole
    assert whole.split() == text.split()
    kept = [line.rstrip() for line in whole.split("\n")]
    assert all(line.rstrip() in kept for line in text.split("\n") if len(line.expandtabs()) <= WIDTH)
    for line in whole.split("\n"):
        assert len(line.expandtabs()) <= WIDTH or len(line.split()) == 1


@given(TEXTS, st.lists(st.integers(0, 200)))
def test_nothing_waits_but_a_word_that_may_go_on(text: str, places: list[int]):
    pieces = cut(text, places)
    for read, seen in zip(accumulate(pieces), accumulate(shown(pieces)), strict=False):
        done, held = "".join(read.split()), "".join(seen.split())
        word = "" if not read or read[-1].isspace() else read.split()[-1]
        assert done.startswith(held) and len(done) - len(held) <= min(len(word), WIDTH)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("one two three four", ["one two", "three four"]),
        ("    so it is said", ["    so it is", "said"]),
        ("1234567890123456 and so on", ["1234567890123456", "and so on"]),
        ("見よ、東京は大きい ok", ["見よ、東京は", "大きい ok"]),
        ("😀😀😀😀😀😀😀", ["😀😀😀😀😀😀", "😀"]),
        ("a line \n\n  - of its own", ["a line", "", "  - of its", "own"]),
    ],
)
def test_where_lines_end(text: str, lines: list[str]):
    assert "".join(shown(list(text))) == "\n".join(lines)


def test_a_window_that_changes_counts_at_once():
    width = 20
    lines = Wrapping(lambda: width)
    first = lines.add("one two three four five six ")
    width = 8
    assert (
        first + lines.add("seven eight nine ten ") + lines.end()
        == "one two three four\nfive six\nseven\neight\nnine ten"
    )
