"""Live streaming: the same rows whatever makes them, every document once an epoch, and nothing lost by a stop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingot.checkpoint.state import load_state, save_state
from ingot.data.blocks import blocks_of
from ingot.data.build import build
from ingot.data.build.plan import Corpus
from ingot.data.build.spelling import Speller
from ingot.data.cache import TokenCache
from ingot.data.clean import Cleaning
from ingot.data.document import Document, Dropped, Part, Record
from ingot.data.hub import Hub
from ingot.data.live.layouts import Blocks
from ingot.data.live.loader import LiveLoader
from ingot.data.live.plan import LivePlan
from ingot.data.live.prepare import prepare_live
from ingot.data.live.reading import Reading
from ingot.data.live.slot import Slot
from ingot.data.loader import IGNORED, TokenBatch
from ingot.data.mix import Mixture
from ingot.data.packing import best_fit, cut_up
from ingot.data.source import Conversations, HeldOut, Local, Source
from ingot.errors import UserError
from ingot.hub import Unreachable
from ingot.tokenizer.tokenizer import Tokenizer
from ingot.tokenizer.training import BPE

LENGTH = 32
Plans = Callable[..., LivePlan]


def is_worker(process: psutil.Process) -> bool:
    """Whether it is a live worker; one that another test has left to its end is none any more."""
    try:
        return "ingot.data.workers" in " ".join(process.cmdline())
    except (psutil.ZombieProcess, psutil.NoSuchProcess):
        return False


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    """Two files of lines, some too short, one no JSON."""
    folder = tmp_path / "lines"
    folder.mkdir()
    for file in range(2):
        texts = [f"line {file} {number} " * 9 if number % 7 else "no" for number in range(120)]
        found = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        (folder / f"{file}.jsonl").write_text(found + "{\n")
    return folder


@pytest.fixture
def plan_of(texts: Path, lines: Path, tokenizer: Tokenizer) -> Plans:
    """Makes plans of many small text files and two files of lines, or of `sources`; a fifth is held out."""

    def make(*sources: Source, asked: tuple[Source, ...] = (), held_out: float = 0.2, **values: Any) -> LivePlan:
        given = sources or (Local(path=str(texts)), Local(path=str(lines)))
        corpus = Corpus(given, HeldOut(share=held_out), Cleaning(min_length=5), asked)
        defaults = {"encoder": "tokenizers", "length": LENGTH, "layout": "slices", "seed": 3, "apart": False}
        return LivePlan(corpus, tokenizer, **{**defaults, "shuffled": 20 * LENGTH, **values})

    return make


def rows(batches: Sequence[TokenBatch]) -> list[Any]:
    """Inputs, targets and positions of each row."""
    arrays = [(batch.inputs.tolist(), batch.targets.tolist(), batch.positions.tolist()) for batch in batches]
    return [row for each in arrays for row in zip(*each, strict=True)]


def wanted_of(plan: LivePlan) -> Counter[str]:
    """The texts to train on, found without any of the code under test."""
    corpus, found = plan.corpus, Counter[str]()
    for source in corpus.sources:
        for number, part in enumerate(source.parts()):
            for index, record in enumerate(source.documents(part)):
                if isinstance(record, Document) and len(record.text) >= 5 and not corpus.held_out.holds(number, index):
                    found[record.text] += 1
    return found


def read_epoch(reading: Reading, epoch: int) -> Iterator[str]:
    while reading.state()["epoch"] == epoch:
        for record in reading._some():  # `batch` looks on where there is none, into the next epoch
            assert isinstance(record, Document)
            yield record.text


@pytest.mark.parametrize("slots", [1, 2, 3, 8, 16])
def test_every_document_is_read_once_an_epoch_by_one_of_the_slots(small_units, plan_of: Plans, slots: int):
    """With few parts for each slot, and with many; never a held-out one."""
    plan = plan_of()
    wanted = wanted_of(plan)
    speller = Speller.of(plan.tokenizer, plan.encoder)
    readings = [Reading(plan, 0, slot, slots, speller, print) for slot in range(slots)]
    orders = []
    for epoch in range(2):
        orders.append([list(read_epoch(reading, epoch)) for reading in readings])
        assert Counter(text for order in orders[-1] for text in order) == wanted
    assert orders[0] != orders[1]
    states = [reading.state() for reading in readings]
    assert sum(state["found"] for state in states) == 2 * sum(
        len(list(source.documents(part))) for source in plan.corpus.sources for part in source.parts()
    )
    assert sum(state["dropped"]["not JSON"]["count"] for state in states if "not JSON" in state["dropped"]) == 4


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(1, 30), min_size=1, max_size=8), slot=st.integers(0, 2), layout=st.booleans())
def test_a_slot_that_stands_anew_at_any_place_gives_the_same_blocks(small_units, plan_of, tmp_path, cuts, slot, layout):
    plan = plan_of(layout="best_fit" if layout else "slices")
    whole: list[Any] = []
    Slot(plan, slot, 3).draw([0] * sum(cuts), whole.append)
    pieces: list[Any] = []
    state = None
    for count in cuts:
        one = Slot(plan, slot, 3)
        if state:
            one.load_state(state)
        one.draw([0] * count, pieces.append)
        state = one.state()
    assert np.array_equal(np.stack(whole), np.stack(pieces))


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("layout", ["slices", "best_fit"])
def test_background_processes_give_the_rows_of_a_plain_loop(plan_of: Plans, layout: str, apart: bool):
    plan = plan_of(layout=layout, apart=apart)
    mixture = Mixture([[3, 1], [1, 2]], [21]) if apart else None
    with LiveLoader(plan, mixture, micro_tokens=64) as loader:
        for first, end, length in [(0, 8, 32), (8, 16, 32), (16, 31, 16), (31, 32, 8), (40, 62, 32)]:
            taken = loader.take(first, end, length)
            assert rows(taken) == rows(loader.read(first, end, length))
            assert {batch.inputs.numel() for batch in taken} == {min(64, (end - first) * 32)}
        with pytest.raises(ValueError, match="was taken before"):
            loader.take(50, 60, 32)


@pytest.fixture
def talks(tmp_path: Path) -> Path:
    folder = tmp_path / "talks"
    folder.mkdir()
    for number in range(9):
        turns = [("user", f"what is {number}?"), ("assistant", f"it is {number} " * number + ".")] * 2
        messages = [{"role": role, "content": content} for role, content in turns]
        (folder / f"{number}.jsonl").write_text(json.dumps({"messages": messages}))
    return folder


@pytest.mark.parametrize("layout", ["slices", "best_fit"])
def test_the_same_documents_make_the_blocks_of_a_cache(small_units, plan_of: Plans, lines, talks, tmp_path, layout):
    """With the targets that have a loss, in whatever batches the documents come."""
    plan = plan_of(Local(path=str(lines)), Conversations(path=str(talks)), layout=layout, held_out=0)
    cache = build(plan.corpus, plan.tokenizer, tmp_path / "cache")
    (wanted,) = blocks_of(cache, LENGTH, layout, apart=False)
    last = cache.train.tokens - int(cache.train.starts[-1])  # which a cache packs by itself, knowing its end late
    plan = replace(plan, shuffled=(cache.train.tokens - last) // LENGTH * LENGTH)  # a window is all others
    records = [
        record
        for source in plan.corpus.sources
        for part in source.parts()
        for record in map(plan.corpus.clean.record, source.documents(part))
        if not isinstance(record, Dropped)
    ]
    blocks, speller, found = Blocks(plan), Speller.of(plan.tokenizer, plan.encoder), []
    cuts = [0, 1, 2, 30, 31, 100, len(records) - (layout == "best_fit")]
    for begin, end in pairwise(cuts):
        found += [*blocks.put(speller.tokens(records[begin:end]))]
    pieces = cut_up(np.array([cache.train.starts[-1], cache.train.tokens]), LENGTH, cache.train.mask)
    rest = 1 if layout == "slices" else int(best_fit(pieces["size"] + pieces["led"], LENGTH).max(initial=-1)) + 1
    assert len(found) == wanted.count - rest > 100
    for number, block in enumerate(found):
        inputs, targets, starts = np.zeros(LENGTH, np.int64), np.full(LENGTH, IGNORED), np.zeros(LENGTH, bool)
        wanted.fill(number, inputs, targets, starts)
        mine = np.where(block["loss"], block["target"].astype(np.int64), IGNORED)
        ends = (block["target"] == plan.tokenizer.end) if layout == "best_fit" else np.zeros(LENGTH, bool)
        assert np.array_equal(block["input"], inputs) and np.array_equal(block["start"], starts)
        assert np.array_equal(mine[~ends], targets[~ends])  # a cache knows what the next document is, packed or not


def state_of(loaders: Sequence[LiveLoader]) -> dict[str, Any]:
    """The state of all ranks, as the main one has it."""
    others: list[Any] = []
    for loader in loaders[1:]:
        assert loader.state(lambda own: others.append(own) or []) == {"feeds": {}}
    return loaders[0].state(lambda own: [own, *others])


def test_a_state_goes_on_bitwise_on_any_ranks_that_share_the_slots(plan_of: Plans, tmp_path: Path):
    plan, mixture = plan_of(apart=True), Mixture([[2, 1]])
    steps = [(first, first + 8) for first in range(0, 48, 8)]

    def union(loaders: Sequence[LiveLoader], some: Sequence[tuple[int, int]]) -> list[Counter[Any]]:
        return [Counter(repr(row) for loader in loaders for row in rows(loader.take(*step, LENGTH))) for step in some]

    def on(ranks: int, state: Any = None) -> list[LiveLoader]:
        loaders = [LiveLoader(plan, mixture, rank=rank, size=ranks) for rank in range(ranks)]
        for loader in loaders if state else []:
            loader.load_state(state)
        return loaders

    two = on(2)
    whole = union(two, steps[:3])
    save_state(tmp_path / "state", {"data": state_of(two)})
    whole += union(two, steps[3:])  # taking a state changes nothing
    for loader in two:
        loader.close()
    state = load_state(tmp_path / "state")["data"]
    for ranks in (1, 4):
        loaders = on(ranks, state)
        assert state_of(loaders)["blocks"] == 24
        assert union(loaders, steps[3:]) == whole[3:]
        for loader in loaders:
            loader.close()
    with pytest.raises(UserError, match=r"in 4 slots, which 3 ranks can't share evenly; go on with 1, 2 or 4;"):
        on(3, state)
    assert sum(count for step in whole for count in step.values()) == 48
    assert len(set().union(*whole)) > 40


def test_what_cannot_be_read_is_one_line_and_the_state_before_it_goes_on(small_units, plan_of: Plans, texts: Path):
    plan = plan_of(Local(path=str(texts)))
    hidden = sorted(texts.rglob("*.txt"))[3]
    content = hidden.read_bytes()
    with LiveLoader(plan) as loader:
        whole = [rows(loader.take(first, first + 8, LENGTH)) for first in range(0, 160, 8)]
    with LiveLoader(plan) as loader:
        taken = [rows(loader.take(0, 8, LENGTH))]
        hidden.unlink()
        with pytest.raises(UserError, match=f"{hidden}: this file was listed and is gone now"):
            for first in range(8, 10_000, 8):
                taken.append(rows(loader.take(first, first + 8, LENGTH)))
        state = loader.state()
    hidden.write_bytes(content)
    assert state["blocks"] == 8 * len(taken) < 160
    with LiveLoader(plan) as loader:
        loader.load_state(state)
        taken += [rows(loader.take(first, first + 8, LENGTH)) for first in range(8 * len(taken), 160, 8)]
    assert taken == whole


def test_a_process_that_is_killed_is_one_line(plan_of: Plans):
    with LiveLoader(plan_of()) as loader:
        loader.take(0, 8, LENGTH)
        workers = [child for child in psutil.Process().children() if is_worker(child)]
        assert len(workers) == 2
        for worker in workers:  # which are the parent's to answer
            worker.send_signal(signal.SIGTERM)
            worker.send_signal(signal.SIGINT)
        loader.take(8, 16, LENGTH)
        workers[0].kill()
        with pytest.raises(UserError, match="a process that reads the text has ended by signal 9"):
            for first in range(16, 10_000, 8):
                loader.take(first, first + 8, LENGTH)
    assert not any(worker.is_running() for worker in workers)


def test_no_process_outlives_a_parent_that_is_killed(plan_of: Plans, texts: Path, tmp_path: Path):
    script = tmp_path / "parent.py"
    script.write_text(
        textwrap.dedent(f"""
        import time
        from ingot.data.build.plan import Corpus
        from ingot.data.live.feed import Feed
        from ingot.data.live.plan import LivePlan
        from ingot.data.source import HeldOut, Local
        from ingot.tokenizer.training import BPE

        tokenizer = BPE(vocabulary=300).train(iter(["the of and"]))
        corpus = Corpus((Local(path={str(texts)!r}),), HeldOut(share=0))
        plan = LivePlan(corpus, tokenizer, "tokenizers", 32, "slices", 1, False)
        feeds = [Feed(plan, slot, 2) for slot in range(2)]
        for feed in feeds:
            feed.ask([0])
            feed.wait(1)
        print("taken", flush=True)
        time.sleep(60)
        """)
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout and process.stdout.readline() == "taken\n"
        workers = psutil.Process(process.pid).children()
    finally:
        process.kill()
        process.wait()
    assert len(workers) >= 2
    deadline = time.monotonic() + 10
    while any(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)


class Flaky(Local, name="flaky"):
    """A source that goes away for good in the middle of its second part."""

    def documents(self, part: Part) -> Iterator[Record]:
        """The records of the part, as far as they can be had."""
        for number, record in enumerate(super().documents(part)):
            if part.name.endswith("/1.jsonl") and number == 50:
                raise Unreachable("the hub answers HTTP 503", where=part.name)
            yield record


def test_a_fallback_takes_the_place_of_a_source_that_goes_away(
    plan_of: Plans, lines: Path, texts: Path, tmp_path: Path
):
    fallback = [Local(path=str(tmp_path / "nowhere")), Local(path=str(texts))]
    asked = Hub(dataset="someone/lines", fallback=fallback)
    plan = plan_of(Flaky(path=str(lines)), asked=(asked,), held_out=0)
    said: list[str] = []

    def reading() -> Reading:
        return Reading(plan, 0, 0, 1, Speller.of(plan.tokenizer, plan.encoder), said.append)

    one = reading()
    found = list(read_epoch(one, 0))
    wanted = [json.loads(line)["text"] for line in (lines / "1.jsonl").read_text().splitlines()[:50]]
    assert [text for text in found if text.startswith("line 1")] == [text for text in wanted if len(text) >= 5]
    assert said[-1].endswith(f"the hub answers HTTP 503; {texts} takes its place from here on")
    assert "there is no such file or folder" in said[0]
    again = reading()
    again.load_state(json.loads(json.dumps(one.state())))
    assert Counter(read_epoch(again, 1)) == Counter(file.read_text() for file in texts.rglob("*.txt"))

    plan = plan_of(Flaky(path=str(lines)), asked=(Hub(dataset="someone/lines"),), held_out=0)
    with pytest.raises(Unreachable, match="HTTP 503"):
        list(read_epoch(reading(), 0))


def test_a_corpus_that_gives_nothing_is_one_line(plan_of: Plans, lines: Path, tmp_path: Path):
    (tmp_path / "one.txt").write_text("the of and")
    plan = plan_of(Local(path=str(tmp_path / "one.txt")), held_out=0)
    Slot(plan, 0, 2).draw([0], lambda block: None)
    with pytest.raises(
        UserError, match=r"no document is left to train on \(there are too few records\); .*data.live=false"
    ):
        Slot(plan, 1, 2).draw([0], lambda block: None)
    for file in lines.glob("*.jsonl"):
        file.write_text(file.read_text().replace('"text": "', '"body": 1, "text": "'))
    plan = plan_of(Local(path=str(lines), field="body"))
    with pytest.raises(UserError, match=r"dropped: no text in the field 'body', 1 dropped: not JSON"):
        Slot(plan, 0, 2).draw([0], lambda block: None)


def test_preparing_keeps_held_out_text_and_nothing_else(lines: Path, texts: Path, tmp_path: Path):
    sources = [Local(path=str(lines)), Local(path=str(texts))]
    said: list[str] = []

    def prepared() -> Any:
        return prepare_live(
            sources, HeldOut(share=0.2), BPE(vocabulary=300), tmp_path / "cache", Cleaning(), said.append
        )

    live = prepared()
    assert said[-1].startswith("held out: 5") and said[-1].endswith(" read")
    corpus = Corpus(tuple(sources), HeldOut(share=0.2))
    whole = build(corpus, live.tokenizer, tmp_path / "whole")
    assert live.cache.train.tokens == 0 and live.cache.sources == whole.sources

    def documents(cache: TokenCache) -> Counter[tuple[int, ...]]:
        view = cache.held_out
        bounds = [*view.starts.tolist(), view.tokens]
        return Counter(tuple(view.read(*pair).tolist()) for pair in pairwise(bounds))

    assert documents(live.cache) == documents(whole)
    stamp = (live.cache.folder / "index.json").stat().st_mtime_ns
    assert prepared().cache.fingerprint == live.cache.fingerprint
    assert (live.cache.folder / "index.json").stat().st_mtime_ns == stamp
    assert not (live.cache.folder / "work").exists()
    (lines / "1.jsonl").write_text((lines / "1.jsonl").read_text() + '{"text": "more"}\n')
    assert prepared().cache.fingerprint != live.cache.fingerprint


def test_targets_without_loss_stay_out(plan_of: Plans, tmp_path: Path):
    messages = [{"role": "user", "content": "what?"}, {"role": "assistant", "content": "that " * 30}]
    (tmp_path / "talk.jsonl").write_text((json.dumps({"messages": messages}) + "\n") * 30)
    with LiveLoader(plan_of(Conversations(path=str(tmp_path / "talk.jsonl")))) as loader:
        (batch,) = loader.read(0, 8, LENGTH)
    assert 0 < batch.target_count == (batch.targets != IGNORED).sum() < batch.targets.numel()
