"""Best-fit packing: whole documents in blocks, the same files whoever makes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot.data import packing
from ingot.data.packing import Packing, best_fit

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


@settings(max_examples=200, deadline=None)
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
    blocks = [packed.pieces(block).tolist() for block in range(packed.count)]
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
