"""Leaving out the duplicates: decided once for the whole cache, then each group's shards are copied without them.

Texts are read and encoded before it is known which of them repeat others. That encodes some for nothing, but reads a
source only once, be it a slow one, and limits are exact: they count what is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingot.data.build.making import ROW
from ingot.data.build.notes import Note, sound, starts_file
from ingot.data.build.plan import Group, Plan
from ingot.data.build.shards import shard_writers
from ingot.data.build.spelling import Tokens
from ingot.data.cache import VIEWS, Shard, mask_file
from ingot.data.document import Dropped
from ingot.data.drops import Drops
from ingot.data.duplicates import REASONS, find
from ingot.files import write_atomically

DECIDED = "decided"  # file in the folder of decisions, there once all of them are
PIECE = 2**20  # tokens that are copied at once, or a longer document


def decide(plan: Plan, groups: Sequence[Group], made: Path, folder: Path) -> None:
    """Decide which documents of `groups`, made in the folder `made`, are left out: in `folder`, group by group."""
    if not sound(groups, [made], plan.tokenizer.dtype.itemsize):
        return  # some are to be made again
    clean = plan.corpus.clean
    files = [made / f"{group.name}.signatures" for group in groups]
    find(files, folder, clean.similarity if clean.duplicates == "near" else None)
    write_atomically(folder / DECIDED, "")


def keep(group: Group, fate: NDArray[np.uint8], made: Path, folder: Path, dtype: np.dtype[Any]) -> None:
    """Copy the shards of `group` from `made` to `folder` without documents whose `fate` is not 0, and then its note."""
    note, drops = Note.find(group, made), Drops()
    assert note, f"group {group.name} was decided on"
    rows = np.fromfile(made / f"{group.name}.rows", ROW)
    drops.merge(note.dropped)
    for row, reason in zip(rows[fate > 0].tolist(), fate[fate > 0].tolist(), strict=True):
        drops.add(group.parts[row[0]][1], Dropped(REASONS[reason], row[3]))
    with shard_writers(folder, group, flushed=True) as writers:
        for view, chosen in zip(VIEWS, (~rows["held"], rows["held"]), strict=True):
            sizes, kept = rows["bytes"][chosen], fate[chosen] == 0
            done = 0
            for piece in _pieces(made, note.shards[view], dtype):
                here = slice(done, done := done + len(piece.lengths))
                own = piece.of(kept[here])
                writers[view].put(own.ids, own.lengths, int(sizes[here][kept[here]].sum()), own.mask)
    note.shards, note.dropped = {view: writer.shard for view, writer in writers.items()}, drops.found
    note.longest = _longest(rows[fate == 0], group)
    note.write(group, folder, flushed=True)  # what it was made of may go now


def _longest(rows: NDArray[np.void], group: Group) -> tuple[int, str, int]:
    if not len(rows):
        return 0, "", 0
    part, _, size, offset = rows[np.argmax(rows["bytes"])].tolist()
    return size, group.parts[part][1].name, offset


def _pieces(folder: Path, shard: Shard, dtype: np.dtype[Any]) -> Iterator[Tokens]:
    """The documents of a shard, some at a time."""
    if not shard.documents:
        return
    path = folder / shard.file
    tokens = np.memmap(path, dtype, mode="r")
    mask = np.memmap(folder / mask_file(shard.file), bool, mode="r") if shard.mask else None
    ends = np.append(np.fromfile(folder / starts_file(shard.file), "<i8")[1:], shard.tokens)
    first = begin = 0
    while first < shard.documents:
        last = max(first + 1, int(np.searchsorted(ends, begin + PIECE, side="right")))
        end = int(ends[last - 1])
        lengths = np.diff(ends[first:last], prepend=begin)
        yield Tokens(np.asarray(tokens[begin:end]), lengths, None if mask is None else np.asarray(mask[begin:end]))
        first, begin = last, end
