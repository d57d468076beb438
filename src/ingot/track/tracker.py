"""The records of a run, one JSON object a line.

A resumed run's training and validation records are those of an unbroken one, each once and in order; starts, ends and
checkpoints are recorded as they happened.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ingot.files import disk_errors

METRICS = "metrics.jsonl"


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
        """Drop everything from the first record on that came after the training record of `step`, or is no record.

        Evaluations and samples of `step` itself go, too: the run that goes on makes them again.
        """
        end = 0
        with self.path.open("rb") as file:
            for line in file:
                if not _is_record_until(line, step):
                    break
                end += len(line)
        self._cut_at(end)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _cut_at(self, end: int) -> None:
        if end < self.path.stat().st_size:
            self._file.truncate(end)


class Tracker:
    """Where a run's metrics go: `metrics.jsonl` in its folder.

    A tracker that is not `active`, as on all ranks but the first, writes nothing.
    """

    def __init__(self, folder: Path, *, active: bool = True):
        self._lines = JsonLines(folder / METRICS) if active else None

    def log(self, record: Mapping[str, Any]) -> None:
        """Add one record."""
        if self._lines:
            self._lines.log(record)

    def truncate_after(self, step: int) -> None:
        """Forget all that came after the training record of `step`, before a run goes on from there."""
        if self._lines:
            self._lines.truncate_after(step)

    def close(self) -> None:
        """Close the file."""
        if self._lines:
            self._lines.close()


def _whole_lines_end(path: Path) -> int:
    """Where the last complete line of the file ends."""
    with path.open("rb") as file:
        return sum(len(line) for line in file if line.endswith(b"\n"))


def _is_record_until(line: bytes, step: int) -> bool:
    """Whether `line` is a whole record of a time before `step` ended: one without a step is of any time."""
    try:
        record = json.loads(line)
        began = record.get("step", -1) - (record.get("kind") == "train")
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
