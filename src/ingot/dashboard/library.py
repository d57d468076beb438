"""All runs below a folder, followed while they go on: a quick first look at once, all of each in the background."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ingot.dashboard.run import RunRecord
from ingot.errors import UserError

STUDY = "sweep.json"  # in a folder of runs that belong together
MARKS = ("metrics.jsonl", "recipe.yaml")  # files by which a run's folder is known
PATIENCE = 1.0  # seconds that reading in the background waits for answers to be given
SHOWN = 10  # runs of a first view: the newest


class Library:
    """The runs of a folder by their names; those of a sweep are called `sweep/run`."""

    def __init__(self, folder: Path):
        """Raises UserError where there is no such folder."""
        if not folder.is_dir():
            raise UserError("there is no such folder", where=str(folder), mend="give --runs the folder of all runs")
        self.folder = folder
        self._runs: dict[str, RunRecord] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="reader")
        self._waiting: set[str] = set()
        self._asked = 0
        self._quiet = threading.Condition()

    def begin(self) -> None:
        """Look at all runs in the background, before anyone asks."""
        self._reader.submit(lambda: [self.look(run) for run in self.runs()])

    def close(self) -> None:
        """End the reading in the background."""
        self._reader.shutdown(wait=False, cancel_futures=True)

    @contextlib.contextmanager
    def asking(self) -> Iterator[None]:
        """While entered someone waits for an answer: what is read in the background stands still."""
        with self._quiet:
            self._asked += 1
        try:
            yield
        finally:
            with self._quiet:
                self._asked -= 1
                self._quiet.notify_all()

    def _let_others_go_first(self) -> None:
        with self._quiet:
            self._quiet.wait_for(lambda: not self._asked, timeout=PATIENCE)

    def runs(self) -> list[RunRecord]:
        """All runs there are now, the newest first."""
        there = dict(self._there())
        with self._lock:
            self._runs = {name: self._runs.get(name) or RunRecord(folder, name) for name, folder in there.items()}
            found = list(self._runs.values())
        return sorted(found, key=lambda run: (-_made(run.folder), run.name))

    def run(self, name: str) -> RunRecord | None:
        """The run of that name."""
        return next((run for run in self.runs() if run.name == name), None)

    def look(self, run: RunRecord) -> RunRecord:
        """Bring `run` up to date, or, where that takes long, begin to and show meanwhile what can be told at once."""
        with self._lock:
            lock = self._locks.setdefault(run.name, threading.Lock())
        if lock.acquire(blocking=not run.journal.sampled):  # one that is being read shows what it showed
            try:
                run.look()
            finally:
                lock.release()
        if run.journal.sampled:
            self._read_later(run, lock)
        return run

    def studies(self) -> dict[str, Path]:
        """The sweeps by their names."""
        return {path.parent.name: path for path in sorted(self.folder.glob(f"[!.]*/{STUDY}"))}

    def _read_later(self, run: RunRecord, lock: threading.Lock) -> None:
        def read() -> None:
            try:
                with lock:
                    self._let_others_go_first()
                    run.refresh(self._let_others_go_first)
            finally:
                self._waiting.discard(run.name)

        with self._lock:
            if run.name not in self._waiting:
                self._waiting.add(run.name)
                self._reader.submit(read)

    def _there(self) -> Iterator[tuple[str, Path]]:
        for folder in _folders(self.folder):
            if any((folder / mark).exists() for mark in MARKS):
                yield folder.name, folder
            elif (folder / STUDY).exists():
                for inner in _folders(folder):
                    if any((inner / mark).exists() for mark in MARKS):
                        yield f"{folder.name}/{inner.name}", inner


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _made(folder: Path) -> float:
    """When the run began, as far as files tell: its recipe is written then, and its folder changes with every file."""
    for name in MARKS:
        try:
            return (folder / name).stat().st_mtime
        except OSError:
            continue
    return 0.0
