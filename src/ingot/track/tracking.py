"""Where else a run's records go: `track: [tensorboard, wandb]` in a recipe. One class here adds a tracker."""

from __future__ import annotations

import abc
import importlib.util
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from ingot.config.config import Choice
from ingot.errors import UserError
from ingot.extras import pip_install

Record = Mapping[str, Any]
Say = Callable[[str], None]


class Mirror(abc.ABC):
    """A copy of a run's records in another place. It is told all of them, from the run's first one on, at each start.

    Any exception of its methods costs the copy, not the run.
    """

    @abc.abstractmethod
    def log(self, record: Record) -> None:
        """Take one record."""

    @abc.abstractmethod
    def rewind(self, step: int) -> None:
        """What came after `step` is void: the run goes back and makes those steps again."""

    @abc.abstractmethod
    def keep(self, step: int, model: Path) -> None:
        """The checkpoint of `step` was saved; `model` is its Hugging Face folder."""

    @abc.abstractmethod
    def close(self) -> None:
        """The run has ended for now."""


class Tracking(Choice):
    """A place that the records of a run are copied to, beside metrics.jsonl."""

    library: ClassVar[str]  # that it needs; its `kind` is the word for it

    def check(self) -> None:
        """Raises UserError where the library is missing."""
        found = importlib.util.find_spec(self.library)
        if not found or not found.origin:  # a folder of that name is found, too
            what = f"{self.library} is not installed"
            raise UserError(what, where=f"track: {self.kind}", mend=pip_install("track"))

    @abc.abstractmethod
    def open(self, folder: Path, *, goes_on: bool, say: Say) -> Mirror:
        """A mirror of the run in `folder`, which has records already if it `goes_on`. Raises whatever goes wrong."""


class TensorBoard(Tracking, name="tensorboard"):
    """Event files in the run's folder, for `tensorboard --logdir runs`."""

    library: ClassVar[str] = "tensorboard"

    def open(self, folder: Path, *, goes_on: bool, say: Say) -> Mirror:
        """The event file of the run, begun anew."""
        from ingot.track.event_file import EventFile

        return EventFile(folder)


class WeightsAndBiases(Tracking, name="wandb"):
    """Weights & Biases: a run on its server or, where that can't be reached, in the run's folder for `wandb sync`."""

    library: ClassVar[str] = "wandb"
    project: str = Field(default="ingot", min_length=1)
    """the project that the run belongs to"""
    entity: str = ""
    """user or team; empty: the default one of who is logged in"""
    offline: bool = False
    """write to the run's folder only; `wandb sync` sends it later"""
    checkpoints: Literal["none", "last", "all"] = "none"
    """models to keep as artifacts: none, the one that the run ends with, or each when it is saved"""

    def open(self, folder: Path, *, goes_on: bool, say: Say) -> Mirror:
        """The run at Weights & Biases, begun or gone on with."""
        from ingot.track.weights_and_biases import WandbRun

        return WandbRun(self, folder, goes_on=goes_on, say=say)


def _each_once(trackers: Sequence[Tracking]) -> Sequence[Tracking]:
    kinds = [tracker.kind for tracker in trackers]
    if twice := next((kind for kind in kinds if kinds.count(kind) > 1), None):
        raise ValueError(f"{twice} stands there twice")
    return trackers


Trackers = Annotated[list[Tracking], AfterValidator(_each_once)]


def points(record: Record) -> dict[str, float]:
    """The figures of a record by name, as `train/loss`; those on all of the held-out text are `held_out/…`."""
    kind = record.get("kind")
    if kind in ("start", "end") or "step" not in record:
        return {}
    if kind == "validation" and record.get("whole"):
        kind = "held_out"
    return {
        f"{kind}/{key}": value
        for key, value in record.items()
        if key != "step" and isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }
