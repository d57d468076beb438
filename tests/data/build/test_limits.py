from __future__ import annotations

import json
from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot.data.build import board, build
from ingot.data.build.board import Board
from ingot.data.build.limits import Quota
from ingot.data.build.plan import Corpus, Plan, groups_of
from ingot.data.cache import TokenCache
from ingot.data.clean import Cleaning
from ingot.data.source import HeldOut, Local
from ingot.files import make_folder
from ingot.tokenizer.tokenizer import Tokenizer

LIMIT = st.none() | st.integers(1, 60)
DOCUMENTS = st.lists(st.tuples(st.integers(1, 9), st.integers(2, 9)), max_size=12)


@given(DOCUMENTS, LIMIT, LIMIT, LIMIT)
def test_what_is_taken_is_what_one_document_after_the_other_takes(documents, most, size, tokens):
    taken, bytes_, count, full = 0, 0, 0, False
    for length, ids in documents:
        full = full or (size is not None and bytes_ + length > size)
        if full:
            break
        taken, bytes_, count = taken + 1, bytes_ + length, count + ids
        full = taken == most or bytes_ == size or (tokens is not None and count >= tokens)
    sizes, counts = (np.array([one[column] for one in documents], np.int64) for column in (0, 1))
    found, left, ended = Quota(most, size, tokens).taken(sizes, counts)
    assert (found, ended) == (taken, full)
    assert left == Quota(most, size, tokens).after(taken, bytes_, count)


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    """300 documents of 10 to 190 bytes, in parts and shards of a few kB; a few records are none."""
    path = tmp_path / "lines.jsonl"
    rows = [json.dumps({"text": f"{n} " + "word " * (1 + n * 7 % 37)}) if n % 11 else "no record" for n in range(300)]
    path.write_text("\n".join(rows))
    return path


@pytest.mark.parametrize(
    "limit", [{"max_documents": 1}, {"max_documents": 150}, {"max_bytes": 5_000}, {"target_tokens": 4_000}]
)
def test_a_limit_cuts_the_source_at_an_exact_document(
    small_units, lines: Path, tokenizer: Tokenizer, tmp_path: Path, limit: dict[str, int], monkeypatch
):
    made: list[str] = []
    make = board.make
    monkeypatch.setattr(board, "make", lambda plan, group, *rest: (made.append(group.name), make(plan, group, *rest)))
    whole = Corpus((Local(path=str(lines)),), HeldOut(share=0))
    texts = [json.loads(line)["text"] for line in lines.read_text().splitlines() if line.startswith("{")]
    counts = {
        "max_documents": [1] * len(texts),
        "max_bytes": [len(text.encode()) for text in texts],
        "target_tokens": [len(tokenizer.encode(text)) + 1 for text in texts],
    }
    [(name, most)] = limit.items()
    sums = list(accumulate(counts[name]))
    expected = sum(total <= most for total in sums) if name != "target_tokens" else sum(t < most for t in sums) + 1
    full = build(whole, tokenizer, tmp_path / "cache")
    groups = len(made)
    cut = build(Corpus((Local(path=str(lines), **limit),), HeldOut(share=0)), tokenizer, tmp_path / "cache")
    assert cut.train.documents == expected < full.train.documents
    assert cut.train.tokens == sum(counts["target_tokens"][:expected])
    assert cut.train.read(0, cut.train.tokens).tolist() == full.train.read(0, cut.train.tokens).tolist()
    assert len(made) - groups <= groups
    [source] = cut.report["sources"]
    assert source["limited"] and source["found"] == source["train"]["documents"] + sum(
        entry["count"] for entry in cut.report["dropped"].values()
    )


def test_a_limit_beyond_the_end_takes_all(small_units, lines: Path, tokenizer: Tokenizer, tmp_path: Path):
    full = build(Corpus((Local(path=str(lines)),), HeldOut()), tokenizer, tmp_path / "cache")
    cut = build(Corpus((Local(path=str(lines), max_bytes=10**9),), HeldOut()), tokenizer, tmp_path / "cache")
    assert cut.report["train"] == full.report["train"] and not cut.report["sources"][0]["limited"]


@settings(max_examples=6)
@given(
    seed=st.integers(0, 10**6),
    limit=st.sampled_from([{}, {"max_documents": 90}, {"max_bytes": 9_000}, {"target_tokens": 5_000}]),
    clean=st.sampled_from([Cleaning(), Cleaning(duplicates="exact", normalize="nfc")]),
)
def test_any_order_of_work_gives_the_same_bytes(tmp_path_factory, tokenizer: Tokenizer, seed, limit, clean):
    """What several processes may do, task by task: the order is theirs, and some work is done twice."""
    folder = tmp_path_factory.mktemp("order")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ingot.data.formats.PART_BYTES", 1000)
        patch.setattr("ingot.data.build.plan.SHARD_BYTES", (3000, 3000))
        for name in ("a", "b"):
            rows = [
                json.dumps({"text": f"{name if n % 5 else 'same'} {n % 70} " + "word " * (n % 7)}) for n in range(300)
            ]
            (folder / f"{name}.jsonl").write_text("\n".join(rows))
        sources = (Local(path=f"{folder}/a.jsonl", **limit), Local(path=f"{folder}/b.jsonl"))
        corpus = Corpus(sources, HeldOut(), clean)
        alone = build(corpus, tokenizer, folder / "alone")
        groups = groups_of([source.parts() for source in sources])
        target = folder / "shared" / alone.fingerprint
        plan = Plan(target, corpus, corpus.fingerprint(make(folder / "shared")), tokenizer, groups)
        make_folder(plan.work)
        boards, random = [Board(plan), Board(plan)], np.random.default_rng(seed)
        while tasks := boards[random.integers(2)].missing():
            task = tasks[random.integers(len(tasks))]
            task.do()
            if random.integers(4) == 0 and task.name.startswith("make"):
                task.do()
    for file in alone.folder.iterdir():
        assert file.read_bytes() == (target / file.name).read_bytes(), file.name
    TokenCache.open(target).verify()


def make(folder: Path) -> Path:
    folder.mkdir()
    return folder
