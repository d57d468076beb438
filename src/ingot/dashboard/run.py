"""A run as its folder tells it, followed while it goes on: recipe, records, samples, checkpoints, evaluations."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from ingot.checkpoint.manifest import CheckpointDamaged, verify
from ingot.config.text import parse_yaml
from ingot.dashboard.follow import Follower, Record
from ingot.dashboard.journal import Journal
from ingot.dashboard.series import number
from ingot.errors import UserError

AT_ONCE = 8 * 2**20  # bytes that a first look reads whole; of a longer file it takes samples
PLACES = 200  # of such samples


class RunRecord:
    """All that a run wrote about itself. Whatever is missing is empty: a run of no steps has a report too."""

    def __init__(self, folder: Path, name: str = ""):
        """Nothing is read yet."""
        self.folder = folder
        self.recipe_text = ""
        self.journal = Journal()
        self.samples: list[Record] = []
        self.version = 0
        """another number once anything is to be shown in another way"""
        self._name = name
        self._metrics, self._written = Follower(folder / "metrics.jsonl"), Follower(folder / "samples.jsonl")
        self._stamps: tuple[Any, ...] = ()

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The run in `folder`, all of it. Raises UserError when there is no such folder."""
        if not folder.is_dir():
            raise UserError("there is no such run", where=str(folder), mend="`ingot train RECIPE` makes one")
        run = cls(folder)
        run.refresh()
        return run

    @classmethod
    def told(cls, folder: Path, records: list[Record]) -> Self:
        """A run that said just this."""
        run = cls(folder)
        run.journal.add(records)
        return run

    @property
    def unread(self) -> int:
        """Bytes of records that have not been read."""
        return self._metrics.left()

    def look(self) -> None:
        """Read what is new where that is quick; else, the first time, take samples of it."""
        if self.unread <= AT_ONCE:
            self.refresh()
        elif not self.journal.count:
            self._read_what_is_small()
            self.journal = Journal(sampled=True)
            for records in self._metrics.sample(PLACES):
                self.journal.add(records)
            self.version += 1

    def refresh(self, between: Callable[[], object] = bool) -> None:
        """Read what is new of everything; what is no longer the same file is read anew.

        `between` is called now and then, so that a long read can let others go first.
        """
        self._read_what_is_small()
        journal = self.journal
        if self._metrics.changed() or journal.sampled:
            self._metrics.begin_anew()
            journal = Journal()
        heard = journal is not self.journal
        for records in self._metrics.read():
            journal.add(records)
            heard = True
            between()
        self.journal = journal  # a first look stays as it is until all is read
        self.version += heard

    def _read_what_is_small(self) -> None:
        if self._written.changed():
            self._written.begin_anew()
            self.samples = []
        for records in self._written.read():
            self.samples = self.samples + records
            self.version += 1
        stamps = tuple(map(_stamp, self._shown_files()))
        if stamps != self._stamps:
            self._stamps = stamps
            self.recipe_text = _text(self.folder / "recipe.yaml")
            self.version += 1
            for name in ("recipe", "checkpoints", "evaluations"):
                self.__dict__.pop(name, None)

    def _shown_files(self) -> list[Path]:
        manifests = self.folder.glob("checkpoints/[!.]*/manifest.json")
        return [self.folder / "recipe.yaml", *sorted(manifests), *sorted(self.folder.glob("evaluations/*.json"))]

    @property
    def name(self) -> str:
        """The name it is known by, or else the recipe's, or the folder's."""
        return self._name or str(self.recipe.get("name") or self.folder.resolve().name)

    @property
    def unreadable(self) -> int:
        """Lines of metrics.jsonl and samples.jsonl that hold no record."""
        files = (self._metrics, self._written)
        return sum(file.unreadable + file.half_a_line * (self.state != "under way") for file in files)

    def of(self, kind: str) -> list[Record]:
        """The records of one kind, but for those of training steps and of the machine, in the order of the file."""
        return [record for record in self.journal.events if record.get("kind") == kind]

    def last(self, kind: str) -> Record:
        """The last of them; empty where there is none."""
        return (self.of(kind) or [{}])[-1]

    @property
    def start(self) -> Record:
        """What the run said when it last started, or resumed."""
        return self.last("start")

    @property
    def parameters(self) -> float:
        """How many the model has; NaN until the run says so."""
        counts = self.start.get("parameters")
        return number(counts.get("total") if isinstance(counts, dict) else counts)

    @property
    def state(self) -> str:
        """`finished`, `stopped` before its end, `under way` (or killed) or `not begun`."""
        marks = [record for record in self.journal.events if record.get("kind") in ("start", "end")]
        if not marks:
            return "under way" if self.journal.count else "not begun"
        if marks[-1]["kind"] == "start":
            return "under way"
        return "finished" if marks[-1].get("complete", True) else "stopped"

    @property
    def gone_on(self) -> list[tuple[str, float]]:
        """How and at which step it was gone on with: `resumed` what was broken off, `extended` what was complete."""
        ways: list[tuple[str, float]] = []
        complete = False
        for record in self.journal.events:
            if record.get("kind") == "end":
                complete = bool(record.get("complete", True))
            elif record.get("kind") == "start":
                if (step := number(record.get("step"))) > 0:
                    ways.append(("extended" if complete else "resumed", step))
                complete = False
        return ways

    @property
    def measured(self) -> Record:
        """The last record that measured the held-out text: `validation`, or `end` where it repeats the figures."""
        for record in reversed(self.journal.events):
            if record.get("kind") in ("validation", "end") and math.isfinite(number(record.get("bits_per_byte"))):
                return record
        return self.last("validation")

    def latest(self, key: str) -> float:
        """The last finite value of `key` in any training, validation or end record; NaN when there is none."""
        return self.journal.latest(key)

    def setting(self, path: str) -> Any:
        """The recipe's value at a dotted `path`, or None."""
        value: Any = self.recipe
        for part in path.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return value

    @cached_property
    def recipe(self) -> Record:
        """What recipe.yaml says; empty where it can't be read."""
        try:
            recipe = parse_yaml(self.recipe_text)
        except UserError:  # the page then shows the text as it stands
            return {}
        return recipe if isinstance(recipe, dict) else {}

    @cached_property
    def checkpoints(self) -> list[Record]:
        """The manifests of the checkpoints that are there, ascending by step; one that can't be read is left out.

        Under `folder` each has the name of its folder and under `state` what a look at presence and size says.
        """
        manifests = []
        for path in self.folder.glob("checkpoints/[!.]*/manifest.json"):
            manifest = _json(path)
            if math.isfinite(number(manifest.get("step"))):
                state = checkpoint_state(path.parent, contents=False)
                manifests.append(manifest | {"folder": path.parent.name, "state": state})
        return sorted(manifests, key=lambda manifest: number(manifest["step"]))

    @cached_property
    def evaluations(self) -> list[Record]:
        """The evaluations kept beside the run, the oldest first; what can't be read is left out."""
        found = filter(None, map(_json, sorted(self.folder.glob("evaluations/*.json"))))
        return sorted(found, key=lambda one: str(one.get("created")))


def checkpoint_state(folder: Path, *, contents: bool) -> str:
    """What can be said of a checkpoint's files, in words; with `contents` every byte of them is read."""
    try:
        verify(folder, contents=contents)
    except CheckpointDamaged as damage:
        return f"damaged: {damage.what} ({damage.path.name})"
    return "verified" if contents else "all there"


def flatten(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested mappings and lists as (dotted key, value); a list of plain values is one leaf."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from flatten(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        for index, inner in enumerate(value):
            yield from flatten(inner, f"{path}.{index}" if path else str(index))
    else:
        yield path, value


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _json(path: Path) -> Record:
    try:
        value = json.loads(_text(path))
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _stamp(path: Path) -> tuple[Any, ...]:
    try:
        about = path.stat()
    except OSError:
        return (path.name,)
    return path.parent.name, path.name, about.st_size, about.st_mtime_ns, about.st_ino
