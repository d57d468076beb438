from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot.data.order import Order, permute


@settings(max_examples=60, deadline=None)
@given(size=st.integers(1, 5000), seed=st.integers(0, 2**64))
def test_permute_is_a_bijection(size: int, seed: int):
    assert np.array_equal(np.sort(permute(np.arange(size), size, seed)), np.arange(size))


@pytest.mark.parametrize("size", [1, 2, 3, 255, 256, 257, 2**16, 2**16 + 1, 99_991])
def test_permute_is_a_bijection_at_the_edges(size: int):
    assert np.array_equal(np.sort(permute(np.arange(size), size, seed=3)), np.arange(size))


@settings(max_examples=60, deadline=None)
@given(
    size=st.integers(2**40, 2**62), indices=st.lists(st.integers(0, 2**40 - 1), unique=True, min_size=1, max_size=50)
)
def test_permute_of_sizes_that_no_memory_holds(size: int, indices: list[int]):
    found = permute(indices, size, seed=1)
    assert len(set(found.tolist())) == len(indices)
    assert ((found >= 0) & (found < size)).all()
    assert [int(permute(index, size, seed=1)) for index in indices] == found.tolist()  # one by one, as in a batch


def test_permute_keeps_shape_and_refuses_what_is_outside():
    assert permute(np.arange(12).reshape(3, 4), 12, seed=1).shape == (3, 4)
    assert permute(5, 12, seed=1).shape == ()
    with pytest.raises(ValueError, match="outside"):
        permute(12, 12, seed=1)


def test_permute_leaves_no_order_behind():
    """Against what chance gives: few fixed points, no correlation, neighbours far apart, each place equally likely."""
    size = 10_000
    shuffled = permute(np.arange(size), size, seed=5)
    assert (shuffled == np.arange(size)).sum() < 8
    assert abs(np.corrcoef(shuffled, np.arange(size))[0, 1]) < 0.04
    assert abs(np.abs(np.diff(shuffled)).mean() / size - 1 / 3) < 0.02
    firsts = np.array([int(permute(0, 10, seed)) for seed in range(2000)])
    counts = np.bincount(firsts, minlength=10)
    assert ((counts - 200) ** 2 / 200).sum() < 35  # chi-squared with 9 degrees: one in 10,000 is above 33.7


@settings(max_examples=60, deadline=None)
@given(tokens=st.integers(2, 3000), length=st.integers(1, 100), first=st.integers(0, 100), count=st.integers(0, 30))
def test_blocks_are_a_function_of_their_number(tokens: int, length: int, first: int, count: int):
    order = Order(tokens, length, seed=9)
    together = order.begins(first, first + count)
    assert together.tolist() == [int(order.begins(block, block + 1)[0]) for block in range(first, first + count)]


@settings(max_examples=60, deadline=None)
@given(tokens=st.integers(2, 3000), length=st.integers(1, 100), epoch=st.integers(0, 3))
def test_an_epoch_is_a_tiling(tokens: int, length: int, epoch: int):
    order = Order(tokens, length, seed=9)
    begins = order.begins(epoch * order.epoch_blocks, (epoch + 1) * order.epoch_blocks)
    assert np.sort(begins).tolist() == list(range(0, tokens - 1, length))


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = [Order(10_001, 10, seed).begins(epoch * 1000, (epoch + 1) * 1000) for seed in (7, 8) for epoch in (0, 1)]
    assert len({order.tobytes() for order in orders}) == 4
