from __future__ import annotations

import re
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot.data import words
from ingot.data.words import ALONE, DIGIT, LETTER, SPACE, SYMBOL, kinds, runs

TEXT = st.text(st.one_of(st.sampled_from("aAéÉ9 .,\n-日本กขก\U0001f600\U00020000ж\0"), st.characters(codec="utf-8")))


def kind(char: str) -> int:
    return int(np.flatnonzero(kinds(char))[0])


def split(text: str) -> list[str]:
    """The words of a text, character by character."""
    found, word = [], ""
    for char in text:
        inside = kind(char) >= DIGIT
        if word and (not inside or kind(char) == ALONE):
            found.append(word)
            word = ""
        if kind(char) == ALONE:
            found.append(char)
        elif inside:
            word += char.lower() if ord(char) < 0x590 and len(char.lower()) == 1 else char
    return [*found, word] if word else found


@settings(max_examples=100)
@given(texts=st.lists(TEXT, max_size=6), length=st.integers(1, 5), piece=st.sampled_from([1000, 2**18]))
def test_runs_are_equal_where_their_words_are(texts: list[str], length: int, piece: int):
    expected = []
    for text in texts:
        found = split(text)
        expected.append([tuple(found[i : i + length]) for i in range(max(1, len(found) - length + 1))])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(words, "PIECE", piece)
        hashes, counts = runs(texts, length)
    assert counts.tolist() == [len(own) for own in expected]
    flat = [run for own in expected for run in own]
    assert len({*zip(flat, hashes.tolist(), strict=True)}) == len({*flat}) == len({*hashes.tolist()})
    assert [run == () for run in flat] == (hashes == 0).tolist()


def test_a_long_text_is_cut_without_a_loss(monkeypatch: pytest.MonkeyPatch):
    text = " ".join(f"word{number}" for number in range(2000))
    whole, counts = runs(["first", text, "last"], 3)
    monkeypatch.setattr(words, "PIECE", 1000)
    cut, cut_counts = runs(["first", text, "last"], 3)
    assert counts.tolist() == [1, 1998, 1]
    assert cut[0] == whole[0] and cut[-1] == whole[-1]
    assert len(np.intersect1d(cut, whole)) > 0.9 * len(whole)
    assert 1950 < cut_counts[1] <= 2020


def test_kinds_are_what_unicode_says_but_for_what_is_new_to_it():
    of = {"Z": SPACE, "P": SYMBOL, "S": SYMBOL, "N": DIGIT, "L": LETTER, "M": LETTER}
    for point in [*range(0x3000), 0xFF21, 0x1F600]:
        category = unicodedata.category(chr(point))
        if unicodedata.ucd_3_2_0.category(chr(point)) == category and category[0] in of:
            assert {ALONE: LETTER}.get(kind(chr(point)), kind(chr(point))) == of[category[0]], hex(point)
    assert [kind(char) for char in "日ก\U00020000한ह"] == [ALONE, ALONE, ALONE, LETTER, LETTER]
    assert [kind(char) for char in "😀、\0\n\u200b"] == [SYMBOL, SYMBOL, SPACE, SPACE, SPACE]
    assert kind("ि") == LETTER  # a vowel sign of Hindi, which `\w` of Python takes for no letter
    assert not re.match(r"\w", "ि")


def test_hashes_are_the_same_on_every_machine():
    hashes, counts = runs(["The quick brown fox — jumps OVER it.", "日本語のテキスト", "...", ""], 3)
    assert counts.tolist() == [5, 6, 1, 1]
    assert hashes[[0, 4, 5, 10, 11]].tolist() == [
        8219414733003220010,
        2867770433382399501,
        4707311149950899877,
        4685419110654649413,
        0,
    ]
