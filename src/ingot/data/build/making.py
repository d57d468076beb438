"""One group's parts become one shard of each view: read, cleaned, spelt and written a batch at a time.

What a process holds is one batch and the longest record, however large the parts are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ingot.data.build.limits import Quota
from ingot.data.build.notes import Note
from ingot.data.build.plan import Group, Plan
from ingot.data.build.shards import shard_writers
from ingot.data.build.spelling import Speller
from ingot.data.cache import VIEWS
from ingot.data.document import Conversation, Document, Dropped, Record
from ingot.data.drops import Drops
from ingot.data.signatures import comparable, signatures
from ingot.files import new_file
from ingot.tokenizer.spelling import utf8_size

BATCH_BYTES = 2**20  # of text that is encoded at once
BATCH_RECORDS = 2**14  # at most: records may be short, or dropped
ROW = np.dtype([("part", "<u4"), ("held", "?"), ("bytes", "<i8"), ("offset", "<i8")])  # of a document


class Item(NamedTuple):
    """A record on its way into a shard."""

    part: int  # of the group
    held: bool
    size: int  # bytes of text; none where it is dropped
    record: Record


def make(plan: Plan, group: Group, quota: Quota, speller: Speller, folder: Path) -> None:
    """Write the group's shards, within `quota`, and then its note. Raises UserError for what can't be read."""
    note, drops, left = Note({}, quota=quota), Drops(), quota
    with (
        shard_writers(folder, group, flushed=False) as writers,
        _table(plan, group, folder) as put_rows,
    ):
        for batch in _batches(plan, group, speller):
            kept = [item for item in batch if not isinstance(item.record, Dropped)]
            tokens = speller.tokens(_records(kept))
            sizes = np.array([item.size for item in kept], np.int64)
            count, left, note.ended = left.taken(sizes, tokens.lengths)
            if note.ended:
                batch, kept, sizes = _until(batch, kept, count), kept[:count], sizes[:count]
                tokens = tokens.of(np.arange(len(tokens.lengths)) < count)
            held = np.array([item.held for item in kept], bool)
            for view, chosen in zip(VIEWS, (~held, held), strict=True):
                own = tokens.of(chosen)
                writers[view].put(own.ids, own.lengths, int(sizes[chosen].sum()), own.mask)
            put_rows(kept, held)
            _count(note, drops, group, batch)
            if note.ended:
                break
    note.shards = {view: writer.shard for view, writer in writers.items()}
    note.dropped = drops.found
    note.write(group, folder, flushed=False)


def _batches(plan: Plan, group: Group, speller: Speller) -> Iterator[list[Item]]:
    """The group's records in order, a few at a time."""
    corpus = plan.corpus
    source, cleans = corpus.sources[group.source], bool(corpus.clean.identity())
    batch: list[Item] = []
    waiting = 0
    for place, (number, part) in enumerate(group.parts):
        for index, found in enumerate(source.documents(part)):
            record = speller.fitting(corpus.clean.record(found) if cleans else found)
            size = text_bytes(record)
            batch.append(Item(place, corpus.held_out.holds(number, index), size, record))
            waiting += size
            if waiting >= BATCH_BYTES or len(batch) >= BATCH_RECORDS:
                yield batch
                batch, waiting = [], 0
    yield batch


def _records(items: list[Item]) -> list[Document | Conversation]:
    """Those that were not dropped."""
    return [item.record for item in items if not isinstance(item.record, Dropped)]


def text_bytes(record: Record) -> int:
    """Bytes of text."""
    if isinstance(record, Dropped):
        return 0
    if isinstance(record, Conversation):
        return sum(utf8_size(message.content) for message in record.messages)
    return utf8_size(record.text)


def _until(batch: list[Item], kept: list[Item], count: int) -> list[Item]:
    """`batch` up to the last one of `count` kept ones: what lies behind it was not taken, nor dropped."""
    if not count:
        return []
    last = kept[count - 1]
    return batch[: next(place for place, item in enumerate(batch) if item is last) + 1]


def _count(note: Note, drops: Drops, group: Group, batch: list[Item]) -> None:
    for item in batch:
        part = group.parts[item.part][1]
        if isinstance(item.record, Dropped):
            drops.add(part, item.record)
            note.found += item.record.records
            continue
        note.found += 1
        if isinstance(item.record, Conversation):
            note.messages_cut += item.record.cut
        if item.size > note.longest[0]:
            note.longest = (item.size, part.name, item.record.offset)


@contextmanager
def _table(plan: Plan, group: Group, folder: Path) -> Iterator[Callable[[list[Item], NDArray[np.bool_]], None]]:
    """Where the duplicates are to be left out: a writer of what that needs to know of each document of the group."""
    kind = plan.corpus.clean.duplicates
    if kind == "none":
        yield lambda items, held: None
        return
    stem = folder / group.name
    with new_file(stem.with_suffix(".rows")) as rows, new_file(stem.with_suffix(".signatures")) as signs:

        def put(items: list[Item], held: NDArray[np.bool_]) -> None:
            described = [(item.part, item.held, item.size, item.record.offset) for item in items]
            rows.write(np.array(described, ROW).tobytes())
            texts = [comparable(record) for record in _records(items)]
            signs.write(signatures(texts, held, kind == "near").tobytes())

        yield put
