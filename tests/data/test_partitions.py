from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot.data import partitions
from ingot.data.partitions import LongArray, Partitions


@settings(max_examples=20)
@given(counts=st.lists(st.integers(0, 40), max_size=5), most=st.integers(1, 30), seed=st.integers(0, 99))
def test_equal_rows_meet_in_the_order_in_which_they_came(
    tmp_path_factory: pytest.TempPathFactory, counts: list[int], most: int, seed: int
):
    generator = np.random.default_rng(seed)
    rows = np.column_stack(
        [generator.integers(2**64, size=sum(counts), dtype=np.uint64), np.arange(sum(counts), dtype=np.uint64)]
    )
    rows[generator.random(len(rows)) < 0.3, 0] = 2**63  # more than a part's share
    found = Partitions(tmp_path_factory.mktemp("partitions") / "rows", 2, len(rows), most)
    for piece in np.split(rows, np.cumsum(counts)):
        found.add(piece)
    parts = [list(chunks) for chunks in found]
    assert all(len(chunk) <= most for chunks in parts for chunk in chunks)
    joined = [np.concatenate(chunks) for chunks in parts]
    assert all((np.diff(part[:, 1].astype(np.int64)) > 0).all() for part in joined)
    firsts = [set(part[:, 0].tolist()) for part in joined]
    assert len(set().union(*firsts)) == sum(map(len, firsts))
    together = np.concatenate([np.zeros((0, 2), np.uint64), *joined])
    assert np.array_equal(together[np.argsort(together[:, 1])], rows)


def test_rows_are_taken_by_their_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(partitions, "NEIGHBOURS", 7)
    rows = np.arange(300, dtype=np.uint16).reshape(100, 3)
    array = LongArray(tmp_path / "rows", 3)
    assert list(array.pieces(8)) == [] and array.take(np.arange(0)).shape == (0, 3)
    for piece in np.split(rows, [1, 1, 60]):
        array.append(piece)
    numbers = np.array([0, 1, 6, 7, 20, 21, 98, 99])
    assert np.array_equal(array.take(numbers), rows[numbers])
    assert [first for first, _ in array.pieces(40)] == [0, 40, 80]
    assert np.array_equal(np.concatenate([piece for _, piece in array.pieces(40)]), rows)
