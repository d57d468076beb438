from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ingot.data.blocks import Bins, Slices, blocks_of
from ingot.data.cache import TokenCache, TokenView
from ingot.data.loader import IGNORED, Loader, TokenBatch, held_out_batches
from ingot.data.mix import Mixture
from ingot.data.order import Order
from ingot.data.packing import Packing
from ingot.errors import UserError
from ingot.tokenizer.tokenizer import Tokenizer

LENGTHS = [5, 1, 40, 17, 3, 2, 90, 33, 8, 64, 30]  # of documents: 293 tokens
SOURCES = [[50, 3, 9, 41, 20], [5, 1, 40, 17, 3, 2, 90, 33, 8, 64, 30], [32, 31, 33, 2, 100]]


def targets_of(batches: list[TokenBatch]) -> list[int]:
    return [target for batch in batches for target in batch.targets[batch.targets != IGNORED].tolist()]


def rows_of(batches: list[TokenBatch]) -> Counter:
    """The rows that have a target, as a multiset."""
    rows = [
        (tuple(inputs), tuple(targets))
        for batch in batches
        for inputs, targets in zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True)
    ]
    return Counter(row for row in rows if set(row[1]) != {IGNORED})


def plain(view: TokenView, seed: int = 1, **keywords: int | None) -> Loader:
    """Slices of 32 tokens of one stream."""
    blocks = Slices(view, 32)
    return Loader([blocks], Order([blocks.count], seed), **keywords)


@pytest.fixture(params=["slices", "best_fit", "mixture of slices", "staged mixture of best_fit"])
def make_loader(request: pytest.FixtureRequest, cache_of) -> Callable[..., Loader]:
    """Makes loaders over the same sources, of one of the ways to lay out and mix them."""
    kind = request.param
    cache = cache_of(SOURCES)
    blocks = blocks_of(cache, 32, kind.split()[-1], apart="mixture" in kind)
    weights = [[3, 1, 0], [1, 2, 2]] if kind.startswith("staged") else [[3, 1, 2]]
    mixture = Mixture(weights, [13] * (len(weights) - 1)) if "mixture" in kind else None
    order = Order([one.count for one in blocks], 1, mixture)
    return lambda **keywords: Loader(blocks, order, **keywords)


@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
@pytest.mark.parametrize("layout", ["slices", "best_fit"])
@pytest.mark.parametrize("length, micro_tokens", [(32, None), (8, 48), (16, 16)])
def test_every_token_is_a_target_once_an_epoch(
    view_of, tmp_path: Path, layout: str, ranks: int, length: int, micro_tokens: int | None
):
    view = view_of(LENGTHS, tmp_path)
    blocks = Slices(view, 32) if layout == "slices" else Bins(view, 32, Packing.of(view, 32, tmp_path, "packing"))
    order = Order([blocks.count], seed=1)
    loaders = [Loader([blocks], order, rank=rank, size=ranks, micro_tokens=micro_tokens) for rank in range(ranks)]
    for epoch in range(2):
        seen: list[int] = []
        for first in range(0, blocks.count, 4):
            begin = epoch * blocks.count + first
            end = epoch * blocks.count + min(first + 4, blocks.count)
            steps = [loader.read(begin, end, length) for loader in loaders]
            assert len({tuple(batch.inputs.shape for batch in step) for step in steps}) == 1  # no rank waits in vain
            seen += [target for step in steps for target in targets_of(step)]
        assert sorted(seen) == list(range(1, view.tokens))


@pytest.mark.parametrize("ranks", [1, 3])
@pytest.mark.parametrize("layout", ["slices", "best_fit"])
def test_a_change_of_the_mixture_repeats_and_loses_nothing(cache_of, layout: str, ranks: int):
    """Each source goes through its own epochs across the change, at rows of any length and in steps of any size."""
    cache = cache_of(SOURCES)
    blocks = blocks_of(cache, 32, layout, apart=True)
    order = Order([one.count for one in blocks], 1, Mixture([[3, 1, 0], [1, 2, 2]], [13]))
    loaders = [Loader(blocks, order, rank=rank, size=ranks) for rank in range(ranks)]
    seen: Counter[int] = Counter()
    for first in range(0, 60, 5):
        seen += Counter(target for loader in loaders for target in targets_of(loader.read(first, first + 5, 8)))
    epochs = order.shares(60)[1].tolist()
    end = 0
    for source, passes in zip(SOURCES, epochs, strict=True):
        begin, end = end, end + sum(source)
        assert begin not in seen  # a stream's very first token is no target
        assert {int(passes), math.ceil(passes)} >= {seen[token] for token in range(begin + 1, end)}
    assert seen[1] > 2  # the first source was gone through more than twice


@pytest.mark.parametrize("layout", ["slices", "best_fit"])
def test_inputs_precede_targets_and_positions_follow_the_documents(view_of, tmp_path: Path, layout: str):
    view = view_of(LENGTHS, tmp_path)
    blocks = Slices(view, 32) if layout == "slices" else Bins(view, 32, Packing.of(view, 32, tmp_path, "packing"))
    starts = set(view.starts.tolist())
    for length in (32, 8):
        for batch in Loader([blocks], Order([blocks.count], 1)).read(0, 10, length):
            assert batch.inputs.dtype == batch.targets.dtype == batch.positions.dtype == torch.int64
            assert batch.target_count == (batch.targets != IGNORED).sum()
            rows = (batch.inputs.tolist(), batch.targets.tolist(), batch.positions.tolist())
            for inputs, targets, positions in zip(*rows, strict=True):
                expected, before = 0, None
                for place, (token, target, position) in enumerate(zip(inputs, targets, positions, strict=True)):
                    if target == IGNORED:  # padding, or the last token of the stream, which nothing follows
                        assert set(targets[place:]) == {IGNORED}
                        break
                    assert target == token + 1  # token i of this stream is i
                    expected = 0 if token in starts or token - 1 != before else expected + 1
                    assert position == expected
                    before = token
            assert batch.packed == (batch.positions != torch.arange(length)).any().item()


def test_rows_of_whole_documents_are_not_packed(view_of, tmp_path: Path):
    view = view_of([100], tmp_path)
    assert not any(batch.packed for batch in plain(view).read(0, 4, 16))


@pytest.mark.parametrize("layout", ["slices", "best_fit"])
@pytest.mark.parametrize("apart", [False, True])
def test_only_what_the_mask_says_is_a_target(cache_of, layout: str, apart: bool):
    cache = cache_of(SOURCES, masked=[1])
    blocks = blocks_of(cache, 32, layout, apart=apart)
    order = Order([one.count for one in blocks], 1, Mixture([[one.count for one in blocks]]))
    targets = sorted(targets_of(Loader(blocks, order).read(0, sum(order.counts), 32)))
    begin, end = sum(SOURCES[0]), sum(SOURCES[0]) + sum(SOURCES[1])
    firsts = {0, begin, end} if apart else {0}
    assert targets == [
        token
        for token in range(cache.train.tokens)
        if token not in firsts and (not begin <= token < end or token % 3 == 0)
    ]


def test_held_out_targets_follow_the_mask_as_well(cache_of):
    view = cache_of([[40, 7]], masked=[0]).train
    targets = targets_of(list(held_out_batches(view, 16, 2)))
    assert targets == [token for token in range(1, 47) if token % 3 == 0 and token != 40]


def test_shorter_rows_hold_the_same_targets(make_loader):
    loader = make_loader()
    assert targets_of(loader.read(3, 7, 32)) == targets_of(loader.read(3, 7, 4))
    with pytest.raises(ValueError, match="do not divide"):
        loader.read(0, 1, 5)


@pytest.mark.parametrize("before, after", [(1, 2), (3, 1), (2, 8), (8, 3)])
def test_a_resume_on_other_ranks_reads_the_same_rows(make_loader, before: int, after: int):
    def step(ranks: int, first: int) -> Counter:
        loaders = [make_loader(rank=rank, size=ranks) for rank in range(ranks)]
        return rows_of([batch for loader in loaders for batch in loader.read(first, first + 6, 16)])

    for first in (0, 6, 12, 18):
        assert step(before, first) == step(after, first)


def test_reading_ahead_changes_nothing(make_loader):
    steps = [(0, 4, 8), (4, 8, 8), (8, 16, 32), (16, 24, 32), (0, 4, 8)]  # growing, then back as in a new run
    with make_loader() as loader:
        for step in steps:
            assert rows_of(loader.take(*step)) == rows_of(make_loader().read(*step))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("loader")]


def test_an_error_while_reading_ahead_is_raised_when_the_step_is_taken(view_of, tmp_path: Path, monkeypatch):
    view = view_of(LENGTHS, tmp_path)
    with plain(view) as loader:
        sound = view.read
        monkeypatch.setattr(
            view,
            "read",
            lambda begin, end: sound(begin, end) if threading.main_thread() is threading.current_thread() else 1 / 0,
        )
        loader.take(0, 4, 32)
        with pytest.raises(ZeroDivisionError):
            loader.take(4, 8, 32)


@pytest.mark.parametrize("layout", ["slices", "best_fit"])
def test_a_source_without_text_is_named(cache_of, layout: str):
    cache = cache_of([[20, 30], [1]])
    with pytest.raises(UserError, match="source 1: nothing to train on"):
        blocks_of(cache, 32, layout, apart=True)
    assert len(blocks_of(cache, 32, layout, apart=False)) == 1


@pytest.mark.parametrize("length, rows", [(7, 4), (64, 3), (1, 5)])
def test_held_out_text_is_scored_to_the_byte(cached, texts: Path, tokenizer: Tokenizer, length: int, rows: int):
    cache: TokenCache = cached(texts, share=0.25)
    view, sizes = cache.held_out, tokenizer.token_bytes()
    scored: list[int] = []
    for batch in held_out_batches(view, length, rows):
        assert batch.inputs.shape == (rows, length) and not batch.packed
        assert (batch.positions == torch.arange(length)).all()
        real = batch.targets != IGNORED
        assert torch.equal(real, real.cumprod(1).bool())  # padded on the right alone
        assert (batch.inputs[:, 1:][real[:, 1:]] == batch.targets[:, :-1][real[:, 1:]]).all()
        scored += targets_of([batch])
    stream = view.read(0, view.tokens).tolist()
    assert scored == [token for token in stream if token != tokenizer.end]
    assert sizes[scored].sum() == view.bytes


def test_held_out_documents_lead_with_the_end_token(cached, texts: Path, tokenizer: Tokenizer):
    view = cached(texts, share=0.25).held_out
    batch = next(held_out_batches(view, length=10_000, rows=view.documents))
    assert (batch.inputs[:, 0] == tokenizer.end).all()
    texts_scored = [tokenizer.decode(row[row != IGNORED].tolist()) for row in batch.targets]
    files = sorted(texts.rglob("*.txt"))
    assert texts_scored == [file.read_text() for file in files[::4]]


@pytest.mark.parametrize("ranks", [2, 3, 8])
def test_ranks_share_the_held_out_text(cached, texts: Path, ranks: int):
    view = cached(texts, share=0.25).held_out
    shares = [list(held_out_batches(view, 16, 2, rank=rank, size=ranks)) for rank in range(ranks)]
    assert len({len(share) for share in shares}) == 1
    together = rows_of([batch for share in shares for batch in share])
    assert together == rows_of(list(held_out_batches(view, 16, 2)))


def test_a_part_of_the_held_out_text_is_spread_over_it(view_of, tmp_path: Path):
    view = view_of([101] * 20, tmp_path)
    some = list(held_out_batches(view, 10, 4, max_tokens=400))
    first_targets = [row[0].item() for batch in some for row in batch.targets]
    assert len(first_targets) == 40
    assert np.diff(first_targets).min() > 40 and first_targets[-1] > 0.9 * view.tokens
    assert len(list(held_out_batches(view, 10, 4, max_tokens=10**9))) == 50


def test_nothing_held_out_gives_no_batches(cached, texts: Path):
    assert list(held_out_batches(cached(texts, share=0).held_out, 8, 2)) == []
