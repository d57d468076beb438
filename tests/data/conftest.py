from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from ingot.data import formats
from ingot.data.build import build, plan
from ingot.data.build.plan import Corpus
from ingot.data.cache import Shard, TokenCache, TokenView
from ingot.data.source import HeldOut, Local
from ingot.tokenizer.tokenizer import Tokenizer
from ingot.tokenizer.training import BPE

WORDS = ("the", "of", "and", "to", "in", "a", "is", "that", "for", "it", "as", "was", "with", "be", "by", "on", "not")


def prose(words: int, seed: int) -> str:
    """Random words in lines of ten."""
    chosen = np.random.default_rng(seed).choice(WORDS, words)
    return "\n".join(" ".join(chosen[row : row + 10]) for row in range(0, words, 10))


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return BPE(vocabulary=300).train(iter([prose(2000, seed=0)]))


@pytest.fixture
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts and shards of a few kB, so that a small corpus has many."""
    monkeypatch.setattr(formats, "PART_BYTES", 1000)
    monkeypatch.setattr(plan, "SHARD_BYTES", (3000, 3000))


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """A folder of 45 text files of unequal length, in two levels."""
    folder = tmp_path / "texts"
    for number in range(45):
        file = folder / ("deep" if number % 3 else "") / f"{number:03d}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(prose(20 + number * 29 % 400, seed=number) + " é😀")
    return folder


@pytest.fixture
def cached(tmp_path: Path, tokenizer: Tokenizer) -> Callable[..., TokenCache]:
    """Builds the cache of a path; `share` is held out."""

    def make(path: Path, share: float = 0.05, **fields: str) -> TokenCache:
        source = Local(path=str(path), **fields)
        return build(Corpus((source,), HeldOut(share=share)), tokenizer, tmp_path / "cache")

    return make


@pytest.fixture
def view_of() -> Callable[[list[int]], TokenView]:
    """A view over documents of the given numbers of tokens, the end token among them; token i of the stream is i."""

    def make(lengths: list[int], folder: Path) -> TokenView:
        tokens = np.arange(sum(lengths), dtype="<u4")
        cut = len(tokens) // 3  # shards need not end where documents do, for a reader
        shards = []
        for number, piece in enumerate((tokens[:cut], tokens[cut:])):
            (folder / f"{number}.bin").write_bytes(piece.tobytes())
            shards.append(Shard(f"{number}.bin", 0, len(piece), 0, 0, ""))
        return TokenView(folder, [shard for shard in shards if shard.tokens], np.cumsum([0, *lengths[:-1]]), "<u4")

    return make


@pytest.fixture
def cache_of(tmp_path: Path) -> Callable[..., TokenCache]:
    """A cache of sources with documents of the given numbers of tokens; token i of its stream is i, none is held out.

    In the sources that are `masked`, only every third token is a target with loss.
    """

    def make(sources: Sequence[Sequence[int]], masked: Sequence[int] = ()) -> TokenCache:
        lengths = [length for source in sources for length in source]
        ends = np.cumsum([sum(source) for source in sources]).tolist()
        shards = []
        for number, (begin, end) in enumerate(zip([0, *ends], ends, strict=False)):
            tokens, mask = np.arange(begin, end, dtype="<u4"), "masked" if number in masked else ""
            (tmp_path / f"{number}.bin").write_bytes(tokens.tobytes())
            (tmp_path / f"{number}.mask").write_bytes((tokens % 3 == 0).tobytes())
            shards.append(asdict(Shard(f"{number}.bin", number, end - begin, len(sources[number]), mask=mask)))
        (tmp_path / "train.starts").write_bytes(np.cumsum([0, *lengths[:-1]], dtype="<i8").tobytes())
        (tmp_path / "held_out.starts").write_bytes(b"")
        names = [{"name": f"source {number}"} for number in range(len(sources))]
        return TokenCache(tmp_path, {"sources": names, "dtype": "<u4", "shards": {"train": shards, "held_out": []}})

    return make
