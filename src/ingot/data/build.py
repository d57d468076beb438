"""Building a token cache: groups of parts become shards, each written whole or not at all, by one process or many.

The plan (which parts make which shard) depends on the inputs alone, so the cache is the same to the byte however many
processes worked on it and wherever they were stopped. What a group came to is noted in `groups/` once its shards are
on the disk; a later build goes on behind it. `index.json` is written last.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingot.data.cache import INDEX, VIEWS, Shard, TokenCache, View
from ingot.data.digests import Digests
from ingot.data.document import Document, Dropped, Part
from ingot.data.drops import Drops, nothing_left
from ingot.data.formats import FilePart
from ingot.data.source import HeldOut, Source
from ingot.distributed import single_threaded
from ingot.errors import UserError
from ingot.files import DRAFT, write_atomically
from ingot.tokenizer.tokenizer import Tokenizer

LAYOUT = 1  # of the folder; another layout is another fingerprint
SHARD_BYTES = (4 * 2**20, 64 * 2**20)  # of text in a shard: at least, at most
SHARDS = 64  # between these bounds, a corpus is cut into about so many
POOL_BYTES = 64 * 2**20  # below this, starting processes costs more than they save: the encoder has threads
BATCH_BYTES = 2**20  # of text that is encoded at once

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Group:
    """The parts of one source that make one shard of each view."""

    number: int
    source: int
    parts: tuple[tuple[int, Part], ...]  # each with its number in the source

    @property
    def size(self) -> int:
        """Bytes of the files that the group covers."""
        return sum(part.size for _, part in self.parts)


@dataclass(frozen=True)
class Plan:
    """All that a process needs to make any group; small, and sent to each process once."""

    folder: Path
    sources: Sequence[Source]
    held_out: HeldOut
    tokenizer: Tokenizer


def inputs(sources: Sequence[Source], held_out: HeldOut, digests: Digests) -> str:
    """What is read and what is kept back, as a fingerprint: the files' content counts, their place and time do not."""
    described = [{"source": source.identity(), "content": source.content(digests)} for source in sources]
    return fingerprint({"sources": described, "held_out": held_out.to_dict()})


def fingerprint(value: Any) -> str:
    """SHA-256 of a JSON value, shortened to 16 hexadecimal digits: a name for a folder."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def build(
    sources: Sequence[Source],
    tokenizer: Tokenizer,
    held_out: HeldOut,
    folder: Path,
    *,
    workers: int = 0,
    progress: Progress = lambda done, total: None,
) -> TokenCache:
    """The token cache of `sources` in `folder/<fingerprint>`: found, gone on with, or made by `workers` processes.

    0 workers: as many as there are cores. `progress` is told bytes done and bytes in all. Raises UserError where
    nothing is left to train on, a file can't be read, or one changed meanwhile.
    """
    digests = Digests(folder / "digests.json")
    name = inputs(sources, held_out, digests)
    end = [tokenizer.fingerprint, tokenizer.end]
    target = folder / fingerprint({"layout": LAYOUT, "inputs": name, "tokenizer": end})
    if not TokenCache.exists(target):
        groups = _groups([source.parts() for source in sources])
        plan = Plan(target, sources, held_out, tokenizer)
        _make_all(plan, groups, workers or os.cpu_count() or 1, progress)
        if inputs(sources, held_out, digests) != name:
            shutil.rmtree(target)
            raise UserError("a file changed while it was read", where="data.sources", mend="run the same command again")
        _join(plan, groups)
    shutil.rmtree(target / "groups", ignore_errors=True)
    return TokenCache.open(target)


def _groups(parts: Sequence[Sequence[Part]]) -> list[Group]:
    """Cut each source, in order, into groups of about the same size."""
    least, most = SHARD_BYTES
    full = min(most, max(least, sum(part.size for part in chain.from_iterable(parts)) // SHARDS))
    groups: list[Group] = []
    for source, own in enumerate(parts):
        taken: list[tuple[int, Part]] = []
        size = 0
        for number, part in enumerate(own):
            taken.append((number, part))
            size += part.size
            if size >= full or number == len(own) - 1:
                groups.append(Group(len(groups), source, tuple(taken)))
                taken, size = [], 0
    return groups


def _make_all(plan: Plan, groups: Sequence[Group], workers: int, progress: Progress) -> None:
    """Make the groups that are not made yet."""
    missing = [group for group in groups if not _note(plan.folder, group).exists()]
    total = sum(group.size for group in groups)
    done = total - sum(group.size for group in missing)
    workers = min(workers, len(missing))
    made: Iterator[Group]
    if workers > 1 and total - done >= POOL_BYTES:
        made = _make_in_processes(plan, missing, workers)
    else:
        made = (_make(plan, group) for group in missing)
    for group in made:
        done += group.size
        progress(done, total)


def _make_in_processes(plan: Plan, groups: Sequence[Group], workers: int) -> Iterator[Group]:
    context = multiprocessing.get_context("spawn")  # a fork would copy the locks of threads that it does not copy
    pool = ProcessPoolExecutor(workers, context, initializer=_begin_worker, initargs=(plan,))
    try:
        for future in as_completed([pool.submit(_work, group) for group in groups]):
            yield future.result()
    except BrokenProcessPool:
        what = "a process that prepared data was ended from outside, perhaps for want of memory"
        raise UserError(what, where=str(plan.folder), mend="run the same command again: it goes on") from None
    finally:
        pool.shutdown(cancel_futures=True)


class _Worker:
    """What a worker process was given when it began: a tokenizer is too large to be sent with each group."""

    plan: Plan


def _begin_worker(plan: Plan) -> None:
    single_threaded()  # there is a process for each core already
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which waits for the groups under way
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _Worker.plan = plan


def _end_with_parent() -> None:
    """A killed parent can't end its workers, and an idle worker would wait for it for ever."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def _work(group: Group) -> Group:
    return _make(_Worker.plan, group)


def _make(plan: Plan, group: Group) -> Group:
    """Write the shards of one group, then the note that it is made."""
    source, dropped = plan.sources[group.source], Drops()
    writers = {view: _ShardWriter(plan.tokenizer) for view in VIEWS}
    for number, part in group.parts:
        for place_in_part, record in enumerate(source.documents(part)):
            if isinstance(record, Dropped):
                dropped.add(part, record)
            elif isinstance(record, Document):
                held = plan.held_out.holds(number, place_in_part)
                writers["held_out" if held else "train"].add(record.text)
    shards = {view: asdict(writer.write(plan.folder, view, group)) for view, writer in writers.items()}
    write_atomically(_note(plan.folder, group), json.dumps({"shards": shards, "dropped": dropped.found}))
    return group


class _ShardWriter:
    """Gathers the documents of one shard, encoded a batch at a time: [end] + ids, one after another."""

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._end = np.array([tokenizer.end], tokenizer.dtype)
        self._waiting: list[str] = []
        self._waiting_bytes = self._bytes = 0
        self._pieces: list[NDArray[Any]] = []
        self._lengths: list[int] = []

    def add(self, text: str) -> None:
        """Take one document."""
        self._waiting.append(text)
        self._waiting_bytes += len(text.encode())
        if self._waiting_bytes >= BATCH_BYTES:
            self._encode()

    def write(self, folder: Path, view: View, group: Group) -> Shard:
        """Put the shard, if there is anything in it, and its document starts on the disk."""
        self._encode()
        file = f"{view}-{group.number:05d}.bin"
        tokens = np.concatenate([self._end[:0], *self._pieces])
        content = tokens.tobytes()
        if content:
            write_atomically(folder / file, content)
            starts = np.cumsum([0, *self._lengths[:-1]], dtype="<i8")
            write_atomically(_starts(folder, view, group.number), starts.tobytes())
        digest = hashlib.sha256(content).hexdigest()
        return Shard(file, group.source, len(tokens), len(self._lengths), self._bytes, digest)

    def _encode(self) -> None:
        batch = self._tokenizer.encode_batch(self._waiting)
        self._lengths += [len(ids) + 1 for ids in batch]
        if batch:  # one array for the batch: a million small ones would weigh more than their tokens
            self._pieces.append(np.concatenate([piece for ids in batch for piece in (self._end, ids)]))
        self._bytes += self._waiting_bytes
        self._waiting, self._waiting_bytes = [], 0


def _join(plan: Plan, groups: Sequence[Group]) -> None:
    """Join what the groups came to: document starts of the whole stream, and the index."""
    notes = [json.loads(_note(plan.folder, group).read_bytes()) for group in groups]
    drops = Drops()
    for note in notes:
        drops.merge(note["dropped"])
    dropped = drops.placed(part for group in groups for _, part in group.parts)
    shards = {view: [Shard(**note["shards"][view]) for note in notes] for view in VIEWS}
    if not sum(shard.documents for shard in shards["train"]):
        shutil.rmtree(plan.folder)
        where = ", ".join(source.name for source in plan.sources)
        raise nothing_left(where, dropped, sum(shard.documents for shard in shards["held_out"]))
    for view in VIEWS:
        write_atomically(plan.folder / f"{view}.starts", _joined_starts(plan.folder, view, shards[view]))
    for draft in plan.folder.glob(f"{DRAFT}*"):  # of a process that was killed
        draft.unlink(missing_ok=True)
    index = {
        "dtype": plan.tokenizer.dtype.str,
        "tokenizer": plan.tokenizer.fingerprint,
        "shards": {view: [asdict(shard) for shard in shards[view] if shard.tokens] for view in VIEWS},
        "report": _report(plan.sources, groups, shards) | {"dropped": dropped},
    }
    write_atomically(plan.folder / INDEX, json.dumps(index, indent=1, ensure_ascii=False))


def _joined_starts(folder: Path, view: View, shards: Sequence[Shard]) -> bytes:
    pieces, begin = [np.zeros(0, "<i8")], 0
    for number, shard in enumerate(shards):
        if shard.tokens:
            pieces.append(np.fromfile(_starts(folder, view, number), dtype="<i8") + begin)
        begin += shard.tokens
    return np.concatenate(pieces).tobytes()


def _report(sources: Sequence[Source], groups: Sequence[Group], shards: dict[View, list[Shard]]) -> dict[str, Any]:
    """What went into the cache, as a whole, by view and by source."""
    described = []
    for number, source in enumerate(sources):
        parts = [part for group in groups if group.source == number for _, part in group.parts]
        own = {view: _totals([shard for shard in shards[view] if shard.source == number]) for view in VIEWS}
        files = dict.fromkeys(part.name for part in parts)
        fields = sorted({part.field for part in parts if isinstance(part, FilePart)} - {""})
        size = sum(part.size for part in parts)
        described.append({"name": source.name, "files": len(files), "file_bytes": size, "fields": fields} | own)
    return {"train": _totals(shards["train"]), "held_out": _totals(shards["held_out"]), "sources": described}


def _totals(shards: Sequence[Shard]) -> dict[str, float]:
    tokens, size = sum(shard.tokens for shard in shards), sum(shard.bytes for shard in shards)
    documents = sum(shard.documents for shard in shards)
    return {"documents": documents, "bytes": size, "tokens": tokens, "bytes_per_token": size / max(1, tokens)}


def _note(folder: Path, group: Group) -> Path:
    return folder / "groups" / f"{group.number:05d}.json"


def _starts(folder: Path, view: View, number: int) -> Path:
    return folder / "groups" / f"{view}-{number:05d}.starts"
