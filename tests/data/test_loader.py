from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from ingot.data.cache import TokenCache
from ingot.data.loader import IGNORED, Loader, TokenBatch, held_out_batches
from ingot.data.order import Order
from ingot.tokenizer.tokenizer import Tokenizer

LENGTHS = [5, 1, 40, 17, 3, 2, 90, 33, 8, 64, 30]  # of documents: 293 tokens


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


@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
@pytest.mark.parametrize("length, micro_tokens", [(32, None), (8, 48), (16, 16)])
def test_every_token_is_a_target_once_an_epoch(
    view_of, tmp_path: Path, ranks: int, length: int, micro_tokens: int | None
):
    view = view_of(LENGTHS, tmp_path)
    order = Order(view.tokens, 32, seed=1)
    loaders = [Loader(view, order, rank=rank, size=ranks, micro_tokens=micro_tokens) for rank in range(ranks)]
    for epoch in range(2):
        seen: list[int] = []
        for first in range(0, order.epoch_blocks, 4):
            begin = epoch * order.epoch_blocks + first
            end = epoch * order.epoch_blocks + min(first + 4, order.epoch_blocks)
            steps = [loader.read(begin, end, length) for loader in loaders]
            assert len({tuple(batch.inputs.shape for batch in step) for step in steps}) == 1  # no rank waits in vain
            seen += [target for step in steps for target in targets_of(step)]
        assert sorted(seen) == list(range(1, view.tokens))


def test_inputs_precede_targets_and_positions_follow_the_documents(view_of, tmp_path: Path):
    view = view_of(LENGTHS, tmp_path)
    starts = set(view.starts.tolist())
    for length in (32, 8):
        for batch in Loader(view, Order(view.tokens, 32, seed=1)).read(0, 10, length):
            assert batch.inputs.dtype == batch.targets.dtype == batch.positions.dtype == torch.int64
            assert batch.target_count == (batch.targets != IGNORED).sum()
            rows = (batch.inputs.tolist(), batch.targets.tolist(), batch.positions.tolist())
            for inputs, targets, positions in zip(*rows, strict=True):
                expected = 0
                for place, (token, target, position) in enumerate(zip(inputs, targets, positions, strict=True)):
                    if target == IGNORED:  # padding behind the end of the stream
                        assert set(targets[place:]) == {IGNORED}
                        break
                    assert target == token + 1  # token i of this stream is i
                    expected = 0 if token in starts or place == 0 else expected + 1
                    assert position == expected
            assert batch.packed == (batch.positions != torch.arange(length)).any().item()


def test_rows_of_whole_documents_are_not_packed(view_of, tmp_path: Path):
    view = view_of([100], tmp_path)
    assert not any(batch.packed for batch in Loader(view, Order(100, 32, seed=1)).read(0, 4, 16))


def test_shorter_rows_hold_the_same_targets(view_of, tmp_path: Path):
    view = view_of(LENGTHS, tmp_path)
    loader = Loader(view, Order(view.tokens, 32, seed=1))
    assert targets_of(loader.read(3, 7, 32)) == targets_of(loader.read(3, 7, 4))
    with pytest.raises(ValueError, match="do not divide"):
        loader.read(0, 1, 5)


@pytest.mark.parametrize("before, after", [(1, 2), (3, 1), (2, 8), (8, 3)])
def test_a_resume_on_other_ranks_reads_the_same_rows(view_of, tmp_path: Path, before: int, after: int):
    view = view_of(LENGTHS, tmp_path)
    order = Order(view.tokens, 32, seed=1)

    def step(ranks: int, first: int) -> Counter:
        loaders = [Loader(view, order, rank=rank, size=ranks) for rank in range(ranks)]
        return rows_of([batch for loader in loaders for batch in loader.read(first, first + 6, 16)])

    for first in (0, 6, 12, 18):
        assert step(before, first) == step(after, first)


def test_reading_ahead_changes_nothing(view_of, tmp_path: Path):
    view = view_of(LENGTHS, tmp_path)
    order = Order(view.tokens, 32, seed=1)
    steps = [(0, 4, 8), (4, 8, 8), (8, 16, 32), (16, 24, 32), (0, 4, 8)]  # growing, then back as in a new run
    with Loader(view, order) as loader:
        for step in steps:
            assert rows_of(loader.take(*step)) == rows_of(Loader(view, order).read(*step))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("loader")]


def test_an_error_while_reading_ahead_is_raised_when_the_step_is_taken(view_of, tmp_path: Path, monkeypatch):
    view = view_of(LENGTHS, tmp_path)
    with Loader(view, Order(view.tokens, 32, seed=1)) as loader:
        sound = view.read
        monkeypatch.setattr(
            view,
            "read",
            lambda begin, end: sound(begin, end) if threading.main_thread() is threading.current_thread() else 1 / 0,
        )
        loader.take(0, 4, 32)
        with pytest.raises(ZeroDivisionError):
            loader.take(4, 8, 32)


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
