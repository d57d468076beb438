"""The last task on a cache: what the groups came to is checked, moved into place and told; the index shows it whole."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from ingot.data.build.notes import sound, starts_file
from ingot.data.build.plan import Corpus, Group, Plan
from ingot.data.build.report import report_of
from ingot.data.cache import INDEX, REPORT, VIEWS, Shard, View
from ingot.data.drops import nothing_left
from ingot.errors import UserError
from ingot.files import disk_errors, flush, new_file, write_atomically
from ingot.tokenizer.tokenizer import Tokenizer


def join(plan: Plan, groups: Sequence[Group], made: Path) -> None:
    """Make a cache of `groups`, whose shards lie in the folder `made`. Interrupted anywhere, it can be done again.

    Raises UserError, and clears the folder, where nothing is left to train on and where a file changed meanwhile.
    """
    notes = sound(groups, [made, plan.folder], plan.tokenizer.dtype.itemsize)
    if not notes:
        return  # some are to be made again
    report = report_of(plan, groups, notes)
    if not report["train"]["documents"]:
        shutil.rmtree(plan.folder, ignore_errors=True)
        raise nothing_left(plan.corpus.name, report["dropped"], report["held_out"]["documents"])
    if plan.corpus.fingerprint(plan.folder.parent) != plan.inputs:
        shutil.rmtree(plan.folder, ignore_errors=True)
        raise UserError("a file changed while it was read", where="data.sources", mend="run the same command again")
    shards = {view: [note.shards[view] for note in notes if note.shards[view].tokens] for view in VIEWS}
    show(plan.folder, made, shards, plan.corpus, plan.tokenizer, report)


def show(
    folder: Path,
    made: Path,
    shards: Mapping[View, Sequence[Shard]],
    corpus: Corpus,
    tokenizer: Tokenizer,
    report: Mapping[str, Any],
) -> None:
    """Make `folder` a whole cache of the shards that lie in `made`; what shows it, the index, is written last."""
    starts = {view: _join_starts(made, shards[view], folder / f"{view}.starts") for view in VIEWS}
    names = [name for shard in chain.from_iterable(shards.values()) for name in shard.files]
    for name in names:
        _move(made, name, folder)
    flush([folder / name for name in names])
    write_atomically(folder / REPORT, json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    index = {
        "dtype": tokenizer.dtype.str,
        "tokenizer": tokenizer.fingerprint,
        "sources": [{"name": source.name, "identity": source.identity()} for source in corpus.sources],
        "shards": {view: [asdict(shard) for shard in shards[view]] for view in VIEWS},
        "starts": starts,
    }
    write_atomically(folder / INDEX, json.dumps(index, indent=1, ensure_ascii=False) + "\n")


def _move(made: Path, name: str, folder: Path) -> None:
    if (made / name).exists():  # else it was moved before the join was interrupted
        (made / name).replace(folder / name)


def _join_starts(made: Path, shards: Sequence[Shard], file: Path) -> str:
    """Write where the documents of the whole stream start; its digest."""
    digest, begin = xxhash.xxh3_128(), 0
    with new_file(file) as joined:
        for shard in shards:
            starts = np.fromfile(made / starts_file(shard.file), dtype="<i8") + begin
            with disk_errors(file):
                joined.write(starts.tobytes())
            digest.update(starts.tobytes())
            begin += shard.tokens
    return digest.hexdigest()
