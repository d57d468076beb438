"""What a run's metrics.jsonl says, in a memory that does not grow with the steps: courses, events, last words."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ingot.dashboard.charts import AXES, Kind, keys_of
from ingot.dashboard.follow import Record
from ingot.dashboard.series import Array, Buckets, Course, column, columns, number, rows

LATEST = ("step", "tokens", "seconds", "loss")
WHERE = [axis for axis in AXES if axis != "flops"]  # axes that records tell; FLOPs are added up
SPEAKING = ("train", "validation", "end")  # kinds of record that say how far the run is


class Journal:
    """Records in the order in which they were written. `sampled`: not all of them, for a first look."""

    def __init__(self, *, sampled: bool = False):
        self.sampled = sampled
        self.courses: dict[Kind, Course] = {kind: Course(list(AXES), keys_of(kind)) for kind in ("train", "system")}
        self.events: list[Record] = []
        """all but the records of training steps and of the machine"""
        self.count = 0
        """of all records"""
        self.flops = 0.0
        """spent on the steps recorded; 0 where a run did not say"""
        self._latest = dict.fromkeys(LATEST, math.nan)
        self._step, self._loss = 0.0, math.nan

    def add(self, records: Sequence[Record]) -> None:
        """Take note of records that follow."""
        self.count += len(records)
        kinds = [record.get("kind") for record in records]
        train = [record for record, kind in zip(records, kinds, strict=True) if kind == "train"]
        system = [record for record, kind in zip(records, kinds, strict=True) if kind == "system"]
        others = [record for record, kind in zip(records, kinds, strict=True) if kind not in ("train", "system")]
        self._hear(records)
        self._loss = number(train[-1].get("loss")) if train else self._loss
        begun, steps, spent = self.flops, *self._spent(train)
        self._add("train", train, spent)
        placed = column([record.get("step") for record in system + others])
        known = np.concatenate([[begun], spent])[np.searchsorted(steps, placed, side="right")]
        self._add("system", system, known[: len(system)])
        for record, flops in zip(others, known[len(system) :], strict=True):
            self.events.append(record | {"flops": float(flops) or None})

    def latest(self, key: str) -> float:
        """The last finite value of `key` in any training, validation or end record; NaN when there is none."""
        return self._latest[key]

    @property
    def last_loss(self) -> float:
        """The training loss of the last step; NaN before the first."""
        return self._loss

    def most(self, kind: Kind, key: str) -> float:
        """The largest value of `key`; minus infinity where there is none."""
        course = self.courses[kind]
        return float(course.buckets.high[course.keys.index(key)].max(initial=-math.inf))

    def measured(self, kind: Kind, points: int) -> tuple[dict[str, Array], dict[str, tuple[Array, Array, Array]]]:
        """The axes of at most `points` places, and of each key its mean, least and most there."""
        if kind == "validation":
            records = self._comparable()
            table = columns(records, [*AXES, *keys_of(kind)])
            places = Buckets.of(
                np.stack([table[axis] for axis in AXES]), np.stack([table[key] for key in keys_of(kind)])
            )
            course = Course(list(AXES), keys_of(kind))
        else:
            course = self.courses[kind]
            places = course.buckets
        places = places.thinned(points)
        axes = dict(zip(AXES, places.axes, strict=True))
        return axes, {key: course.of(places, key) for key in course.keys}

    def _comparable(self) -> list[Record]:
        """What was measured of the held-out text, all on the same extent of it, so that it makes one curve.

        That is what was measured in training; the end, on all of the text, where there is nothing else.
        """
        every = [record for record in self.events if record.get("kind") == "validation"]
        return [record for record in every if not record.get("whole")] or every

    def _hear(self, records: Sequence[Record]) -> None:
        for key in LATEST:
            for record in reversed(records):
                if record.get("kind") in SPEAKING and math.isfinite(value := number(record.get(key))):
                    self._latest[key] = value
                    break

    def _spent(self, train: Sequence[Record]) -> tuple[Array, Array]:
        """The steps of some training records, and the FLOPs of the run until each: a step left out cost as much."""
        if not train:
            return np.empty(0), np.empty(0)
        steps, each = np.nan_to_num(rows(train, ["step", "flops"]), posinf=0.0, neginf=0.0)
        made = np.diff(np.maximum.accumulate(np.concatenate([[self._step], steps])))
        spent = self.flops + np.cumsum(made * each)
        self._step, self.flops = max(self._step, float(steps.max())), float(spent[-1])
        return np.maximum.accumulate(steps), spent

    def _add(self, kind: Kind, records: Sequence[Record], flops: Array) -> None:
        if not records:
            return
        course = self.courses[kind]
        said = rows(records, [*WHERE, *course.keys])
        axes = np.concatenate([said[: len(WHERE)], np.where(flops > 0, flops, np.nan)[None]])
        known = np.isfinite(axes[0])
        course.add(axes[:, known], said[len(WHERE) :, known])
