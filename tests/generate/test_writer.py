"""The writer: whole characters, stop strings wherever tokens part them, and pieces that add up."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_models import END, ByteTokenizer

from ingot.generate.token import Reason, Token
from ingot.generate.writer import Writer


class Pieces(ByteTokenizer):
    """Every token is some bytes of the test's choice."""

    def __init__(self, pieces: list[bytes]):
        self.pieces = pieces

    def decode_bytes(self, ids):
        return b"".join(self.pieces[one] for one in ids)


def _write(pieces: list[bytes], stop: list[str], reason: Reason = "length") -> tuple[Writer, list[str]]:
    writer = Writer(Pieces(pieces), stop)
    last = len(pieces) - 1
    return writer, [writer.push(Token(0, place, reason if place == last else None)) for place in range(len(pieces))]


TEXTS = st.text(alphabet="abé€😀 \n", min_size=1, max_size=30)


@given(TEXTS, st.lists(st.integers(0, 120)), st.lists(st.text(alphabet="abé€ ", min_size=1, max_size=4), max_size=3))
def test_pieces_add_up_to_the_text_before_the_first_stop(text: str, cuts: list[int], stop: list[str]):
    data = text.encode()
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    pieces = [data[begin:end] for begin, end in pairwise(places)]
    writer, made = _write(pieces, stop)
    found = [place for place in map(text.find, stop) if place >= 0]
    # A stop string counts once it is whole, so of two that overlap the one that ends first wins.
    ends = [text.find(one) + len(one) for one in stop if one in text]
    if found:
        assert writer.finished == "stop"
        cut = writer.text
        assert text.startswith(cut) and any(text[len(cut) :].startswith(one) for one in stop)
        assert len(cut) <= min(ends)
        assert not any(one in cut for one in stop)
    else:
        assert (writer.finished, writer.text) == ("length", text)
    assert "".join(made) == writer.text
    assert "�" not in writer.text


def test_what_may_become_a_stop_string_is_held_back_until_it_is_sure():
    _, made = _write([b"one ", b"st", b"ay st", b"op ", b"more"], ["stop"])
    assert made == ["one ", "", "stay ", "", ""]
    _, made = _write([b"one st", b"o"], ["stop"])
    assert made == ["one ", "sto"]


def test_nothing_is_written_after_the_end():
    writer = Writer(Pieces([b"a", b"b"]), [])
    assert [writer.push(Token(0, 0, "end")), writer.push(Token(0, 1))] == ["", ""]
    assert (writer.finished, writer.text) == ("end", "")


@pytest.mark.parametrize("reason", ["end", "length"])
def test_bytes_that_are_no_character_become_the_replacement_character(reason: Reason):
    pieces = [b"a", b"\xff\xc3", b"b", b"\xf0\x9f", b""]
    writer, _ = _write(pieces, [], reason)
    assert writer.text == b"a\xff\xc3b\xf0\x9f".decode(errors="replace")


def test_the_end_token_is_no_text():
    writer = Writer(ByteTokenizer(), [])
    assert writer.push(Token(0, 65)) + writer.push(Token(0, END, "end")) == "A"
