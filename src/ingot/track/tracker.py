"""The records of a run, one JSON object a line, and their copies elsewhere.

A resumed run's training and validation records are those of an unbroken one, each once and in order; starts, ends and
checkpoints are recorded as they happened.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ingot.files import disk_errors
from ingot.track.tracking import Mirror, Say, Tracking

METRICS = "metrics.jsonl"
OF_A_STEP = ("train", "health")  # kinds of record of which each step leaves one: made, or left out


class JsonLines:
    """A file of records, one JSON object a line; each is handed to the system before `log` returns.

    Opening it drops a last line that a kill cut short. A number that is not finite becomes null, for which JSON has a
    word. Raises UserError where the disk is full or not writable.
    """

    def __init__(self, path: Path):
        self.path = path
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+b", buffering=0)
            self._cut_at(_whole_lines_end(path))

    def log(self, record: Mapping[str, Any]) -> None:
        """Add one record. A line that the disk did not take whole is taken back."""
        line = json.dumps(_finite(record), ensure_ascii=False, allow_nan=False) + "\n"
        data = line.encode("utf-8", "backslashreplace")  # half a surrogate pair becomes the escape that JSON has for it
        before = self._file.seek(0, os.SEEK_END)
        with disk_errors(self.path):
            while data:
                try:
                    data = data[self._file.write(data) :]
                except OSError:
                    self._file.truncate(before)
                    raise

    def truncate_after(self, step: int) -> None:
        """Drop everything from the first record on that came after the record of `step` itself, or is no record.

        Evaluations and samples of `step` itself go, too: the run that goes on makes them again.
        """
        end = 0
        with self.path.open("rb") as file:
            for line in file:
                if not _is_record_until(line, step):
                    break
                end += len(line)
        self._cut_at(end)

    def records(self) -> Iterator[dict[str, Any]]:
        """The records that are there, from the first one on."""
        with self.path.open("rb") as file:
            yield from map(json.loads, file)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _cut_at(self, end: int) -> None:
        if end < self.path.stat().st_size:
            self._file.truncate(end)


class Tracker:
    """Where a run's metrics go: `metrics.jsonl` in its folder and, from `follow` on, the mirrors of it.

    A tracker that is not `active`, as on all ranks but the first, writes nothing.
    """

    def __init__(self, folder: Path, *, active: bool = True):
        self._lines = JsonLines(folder / METRICS) if active else None
        self._mirrors: list[tuple[str, Mirror]] = []

    def follow(self, trackers: Sequence[Tracking], say: Say) -> None:
        """Copy all records, those there are and those to come, to each of `trackers`.

        `say` is told in one line of a mirror that fails, then or later, and is left out from there on.
        """
        self._say = say
        if not self._lines:
            return
        goes_on = next(self._lines.records(), None) is not None
        for tracker in trackers:
            try:
                mirror = tracker.open(self._lines.path.parent, goes_on=goes_on, say=say)
                for record in self._lines.records():
                    mirror.log(record)
            except Exception as error:
                self._lost(tracker.kind, error)
            else:
                self._mirrors.append((tracker.kind, mirror))

    def log(self, record: Mapping[str, Any]) -> None:
        """Add one record."""
        if self._lines:
            self._lines.log(record)
            self._tell(lambda mirror: mirror.log(record))

    def truncate_after(self, step: int) -> None:
        """Forget all that came after the record of `step` itself, before a run goes on from there."""
        if self._lines:
            self._lines.truncate_after(step)
            self._tell(lambda mirror: mirror.rewind(step))

    def keep(self, step: int, model: Path) -> None:
        """Tell the mirrors that the checkpoint of `step` was saved, with the model's folder in it."""
        self._tell(lambda mirror: mirror.keep(step, model))

    def close(self) -> None:
        """Close the file, and the mirrors."""
        self._tell(lambda mirror: mirror.close())
        self._mirrors = []
        if self._lines:
            self._lines.close()

    def _tell(self, act: Callable[[Mirror], None]) -> None:
        for kind, mirror in list(self._mirrors):
            try:
                act(mirror)
            except Exception as error:
                self._mirrors.remove((kind, mirror))
                self._lost(kind, error)

    def _lost(self, kind: str, error: Exception) -> None:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        self._say(f"{kind} failed and is left out from here on: {reason}; {METRICS} has every record")


def _whole_lines_end(path: Path) -> int:
    """Where the last complete line of the file ends."""
    with path.open("rb") as file:
        return sum(len(line) for line in file if line.endswith(b"\n"))


def _is_record_until(line: bytes, step: int) -> bool:
    """Whether `line` is a whole record of a time before `step` ended: one without a step is of any time."""
    try:
        record = json.loads(line)
        began = record.get("step", -1) - (record.get("kind") in OF_A_STEP)
        return line.endswith(b"\n") and began < step
    except (ValueError, TypeError, AttributeError):
        return False


def _finite(value: Any) -> Any:
    """`value` with None for every number that is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
