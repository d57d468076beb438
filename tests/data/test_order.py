from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot.data.mix import Mixture
from ingot.data.order import Order, permute


@settings(max_examples=60)
@given(size=st.integers(1, 5000), seed=st.integers(0, 2**64))
def test_permute_is_a_bijection(size: int, seed: int):
    assert np.array_equal(np.sort(permute(np.arange(size), size, seed)), np.arange(size))


@pytest.mark.parametrize("size", [1, 2, 3, 255, 256, 257, 2**16, 2**16 + 1, 99_991])
def test_permute_is_a_bijection_at_the_edges(size: int):
    assert np.array_equal(np.sort(permute(np.arange(size), size, seed=3)), np.arange(size))


@settings(max_examples=60)
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


@settings(max_examples=60)
@given(counts=st.lists(st.integers(1, 60), min_size=1, max_size=4), first=st.integers(0, 200), count=st.integers(0, 30))
def test_blocks_are_a_function_of_their_number(counts: list[int], first: int, count: int):
    order = Order(counts, 9, Mixture([range(1, len(counts) + 1)]))
    together = np.stack(order.places(first, first + count))
    alone = [np.stack(order.places(block, block + 1)) for block in range(first, first + count)]
    assert np.array_equal(together, np.concatenate([np.zeros((2, 0)), *alone], axis=1))


@settings(max_examples=60)
@given(counts=st.lists(st.integers(1, 60), min_size=1, max_size=4), blocks=st.integers(0, 400))
def test_every_set_is_gone_through_epoch_by_epoch(counts: list[int], blocks: int):
    sets, numbers = Order(counts, 9, Mixture([range(1, len(counts) + 1)])).places(0, blocks)
    for place, count in enumerate(counts):
        own = numbers[sets == place]
        for epoch in range(0, len(own), count):
            part = np.sort(own[epoch : epoch + count])
            assert np.array_equal(part, np.arange(count) if len(part) == count else np.unique(part))


def test_epochs_seeds_and_sets_have_orders_of_their_own():
    orders = [Order([1000], seed).places(epoch * 1000, (epoch + 1) * 1000)[1] for seed in (7, 8) for epoch in (0, 1)]
    sets, numbers = Order([1000, 1000], 7, Mixture([[1, 1]])).places(0, 2000)
    orders += [numbers[sets == place] for place in (0, 1)]
    assert np.array_equal(orders[4], orders[0])  # the first set of a mixture goes as a set alone does
    assert len({order.tobytes() for order in orders}) == 5


def test_the_order_stays_what_it_was():
    """A run that was begun with an earlier version goes on in the same order; the values are those of version 0.1."""
    sets, numbers = Order([10], seed=1).places(0, 25)
    assert not sets.any()
    assert numbers.tolist() == [0, 5, 2, 4, 8, 6, 1, 3, 7, 9, 9, 4, 2, 8, 6, 5, 0, 7, 3, 1, 6, 5, 8, 4, 9]
    far = Order([9766], seed=2**31).places(0, 30_000)[1] * 1024
    digest = hashlib.sha256(far.astype("<i8").tobytes()).hexdigest()
    assert digest == "b74a57a14bb2705f39dfb601334e2722f0d84df85c1cf21dd6a883721589e397"


def test_shares_and_epochs_over_a_run():
    shares, epochs = Order([10, 40], 1, Mixture([[3, 1]])).shares(80)
    assert shares.tolist() == [0.75, 0.25] and epochs.tolist() == [6, 0.5]
