"""Making a token cache, or finding it made: planned here, made by this process and any others, and opened."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import psutil

from ingot.data.build.board import Board
from ingot.data.build.claims import helpers, work_off
from ingot.data.build.plan import Corpus, Plan, cache_folder, groups_of
from ingot.data.cache import TokenCache
from ingot.distributed import cores
from ingot.files import make_folder
from ingot.tokenizer.tokenizer import Tokenizer

PROCESS_BYTES = 512 * 2**20  # of memory that a process may take: the encoder's words, a batch, the longest record
POOL_BYTES = 64 * 2**20  # of files: below this, starting helpers costs more than they save

Progress = Callable[[Board], None]


def build(
    corpus: Corpus,
    tokenizer: Tokenizer,
    folder: Path,
    *,
    workers: int = 0,
    progress: Progress = lambda board: None,
) -> TokenCache:
    """The token cache of `corpus` in `folder/<fingerprint>`: found, gone on with, or made by `workers` processes.

    0 workers: as many as there are cores and memory for. Any number of processes may call this at once, on any machine
    that sees the folder: they share the work, and the cache is the same to the byte. `progress` is called now and then.
    Raises UserError where nothing is left to train on, a file can't be read, or one changed meanwhile.
    """
    inputs = corpus.fingerprint(folder)
    parts = [source.parts() for source in corpus.sources]
    target = cache_folder(folder, corpus, inputs, tokenizer, chain.from_iterable(parts))
    if not TokenCache.exists(target):
        groups = groups_of(parts)
        plan = Plan(target, corpus, inputs, tokenizer, groups)
        make_folder(plan.work)
        board = Board(plan)
        standing = board.standing()
        crew = min(workers or _affordable(), len(groups)) if standing.total - standing.done >= POOL_BYTES else 1
        with helpers(_work, plan, crew - 1):
            work_off(board.missing, plan.work, lambda: progress(board))
    shutil.rmtree(target / "work", ignore_errors=True)
    return TokenCache.open(target)


def _affordable() -> int:
    """How many processes this machine has cores and memory for."""
    return max(1, min(cores(), psutil.virtual_memory().available // PROCESS_BYTES))


def _work(plan: Plan) -> None:
    """What a helper does: the same, and quietly."""
    work_off(Board(plan).missing, plan.work, lambda: None)
