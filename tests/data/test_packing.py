"""Best-fit packing: whole documents in blocks, the same files whoever makes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot.data import packing
from ingot.data.blocks import Bins, blocks_of
from ingot.data.packing import Packing, best_fit, cut_up
from ingot.errors import UserError
from ingot.model.objective import IGNORED

SIZES = st.integers(1, 40).flatmap(lambda room: st.tuples(st.just(room), st.lists(st.integers(1, room), max_size=80)))


def free_by_hand(sizes: list[int], room: int) -> list[int]:
    """The free room of each bin by best-fit decreasing, one piece after the other; sorted."""
    free: list[int] = []
    for size in sorted(sizes, reverse=True):
        fitting = [place for place, left in enumerate(free) if left >= size]
        if not fitting:
            free.append(room)
        free[min(fitting, key=free.__getitem__, default=-1)] -= size
    return sorted(free)


@settings(max_examples=200)
@given(SIZES)
def test_bins_are_those_of_best_fit_decreasing(case: tuple[int, list[int]]):
    room, sizes = case
    bins = best_fit(np.array(sizes, np.int64), room)
    fill = np.bincount(bins, weights=sizes).astype(int)
    assert sorted((room - fill).tolist()) == free_by_hand(sizes, room)


def test_little_is_padded():
    """Lengths as those of web documents, cut at the block."""
    sizes = np.random.default_rng(1).lognormal(6, 1, 30_000).clip(2, 2048).astype(int)
    assert sizes.sum() / ((best_fit(sizes, 2048).max() + 1) * 2048) > 0.999


@pytest.mark.parametrize("window", [1, 3, 100])
def test_every_token_is_in_one_piece_and_short_documents_are_whole(view_of, tmp_path: Path, monkeypatch, window: int):
    monkeypatch.setattr(packing, "WINDOW", window)
    lengths = [5, 1, 40, 17, 3, 2, 90, 33, 8, 64, 30, 32, 1, 1]
    view, length = view_of(lengths, tmp_path), 32
    packed = Packing.of(view, length, tmp_path, "packing")
    blocks = [packed.pieces(block)[["begin", "size"]].tolist() for block in range(packed.count)]
    assert not any(packed.pieces(block)["led"].any() for block in range(packed.count))
    assert all(0 < sum(size for _, size in pieces) <= length for pieces in blocks)
    assert all(pieces == sorted(pieces) for pieces in blocks)
    covered = sorted(piece for pieces in blocks for piece in pieces)
    assert [begin for begin, _ in covered] == np.cumsum([0, *(size for _, size in covered[:-1])]).tolist()
    assert sum(size for _, size in covered) == view.tokens
    whole = {(begin, size) for begin, size in zip(view.starts.tolist(), lengths, strict=True) if size <= length}
    assert whole <= set(covered)
    assert len(covered) == sum(-(-size // length) for size in lengths)  # nothing is cut that need not be


def test_a_packing_is_made_once_and_again_where_it_is_not_whole(view_of, tmp_path: Path):
    view = view_of([5, 40, 17, 3, 90], tmp_path)
    Packing.of(view, 32, tmp_path, "packing")
    files = sorted(tmp_path.glob("packing.*"))
    made = [(file.read_bytes(), file.stat().st_ino) for file in files]
    Packing.of(view, 32, tmp_path, "packing")
    assert [(file.read_bytes(), file.stat().st_ino) for file in files] == made
    for file in files:
        file.write_bytes(file.read_bytes()[:-8])
        Packing.of(view, 32, tmp_path, "packing")
        assert [file.read_bytes() for file in files] == [content for content, _ in made]
    files[0].unlink()
    Packing.of(view, 32, tmp_path, "packing")
    assert [file.read_bytes() for file in files] == [content for content, _ in made]
    assert sorted(tmp_path.glob("packing.*")) == files and not list(tmp_path.glob(".draft*"))


# --- conversations ----------------------------------------------------------------------------------------------------

TURNS = st.tuples(st.integers(1, 12), st.integers(1, 12))  # tokens of a question, of its answer
TALKS = st.lists(st.tuples(st.lists(TURNS, min_size=1, max_size=8), st.integers(0, 3)), min_size=1, max_size=6)


def spelt(turns: list[tuple[int, int]], rest: int) -> list[bool]:
    """Which tokens of a conversation are learned: the end token leads it, `rest` tokens follow its last answer."""
    return [False, *(flag for asked, said in turns for flag in [False] * asked + [True] * said), *[False] * rest]


@settings(max_examples=200)
@given(TALKS, st.integers(2, 40))
def test_conversations_are_cut_behind_answers_and_lose_only_what_fits_nowhere(talks: list, length: int):
    masks = [spelt(*talk) for talk in talks]
    learned = np.array([flag for mask in masks for flag in mask])
    bounds = np.cumsum([0, *map(len, masks)])
    pieces = cut_up(bounds, length, lambda begin, end: learned[begin:end])
    kept = np.zeros(len(learned), int)
    for begin, size, led in pieces.tolist():
        assert size + led <= length
        assert led == (begin not in bounds)
        assert not led or (learned[begin - 1] and not learned[begin])  # right behind an answer
        end = begin + size
        assert end in bounds or (learned[end - 1] and not learned[end])
        kept[begin:end] += 1
    assert kept.max(initial=0) <= 1
    for start, (turns, rest) in zip(bounds[:-1].tolist(), talks, strict=True):
        place = start + 1
        if 1 + sum(asked + said for asked, said in turns) + rest <= length:
            assert kept[start : start + 1 + sum(map(sum, turns)) + rest].all()  # a short one is whole
            continue
        for asked, said in turns:
            fits = asked + said + 1 <= length  # led by the end token, its own or the one put there
            assert (kept[place : place + asked + said] == fits).all()
            place += asked + said


def test_a_block_leads_what_goes_on_with_the_end_token_and_the_counts_say_so(cache_of, tmp_path: Path):
    """The fixture learns every third token: answers of one token each, so a turn has three."""
    cache = cache_of([[8, 50, 20], [30]], masked=[0])  # a first token that is learned makes a text: 8 and 30
    (blocks,) = blocks_of(cache, 16, "best_fit", apart=False)
    assert isinstance(blocks, Bins)
    assert blocks.cuts == (2, 4, 0)
    led, learned = [], []
    for number in range(blocks.count):
        inputs, targets, starts = np.zeros(16, int), np.full(16, IGNORED), np.zeros(16, bool)
        blocks.fill(number, inputs, targets, starts)
        learned += targets[targets != IGNORED].tolist()
        for place in np.flatnonzero(starts):
            if inputs[place] == 0 and inputs[place + 1] != 1:
                led.append(int(inputs[place + 1]))
                assert targets[place] == IGNORED
    assert sorted(led) == [22, 37, 52, 73]
    assert sorted(learned) == [token for token in range(1, 108) if token >= 78 or token % 3 == 0]


def test_where_no_answer_fits_it_says_so_and_leaves_nothing_behind(cache_of, tmp_path: Path):
    cache = cache_of([[4], [40]], masked=[1])
    with pytest.raises(
        UserError, match=r"no answer fits, with what it answers, into 2 tokens; take a longer model\.con"
    ):
        blocks_of(cache, 2, "best_fit", apart=True)
    assert not list(tmp_path.glob("*packing-2-1*"))
