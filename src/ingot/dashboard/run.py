"""A run as its folder tells it: recipe.yaml, metrics.jsonl, samples.jsonl and the checkpoints that are there."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ingot.config import parse_yaml
from ingot.errors import UserError

Record = dict[str, Any]


@dataclass(frozen=True)
class RunRecord:
    """All that a run wrote about itself. Whatever is missing is empty: a run of no steps has a report too."""

    folder: Path
    recipe: Record
    recipe_text: str
    records: list[Record]
    samples: list[Record]
    unreadable: int  # lines of metrics.jsonl and samples.jsonl that hold no record

    @classmethod
    def read(cls, folder: Path) -> RunRecord:
        """The run in `folder`. Raises UserError when there is no such folder."""
        if not folder.is_dir():
            raise UserError("there is no such run", where=str(folder), mend="`ingot train RECIPE` makes one")
        text = _text(folder / "recipe.yaml")
        records, bad_records = _lines(folder / "metrics.jsonl")
        samples, bad_samples = _lines(folder / "samples.jsonl")
        return cls(folder, _recipe(text), text, records, samples, bad_records + bad_samples)

    @property
    def name(self) -> str:
        """The recipe's name, or else the folder's."""
        return str(self.recipe.get("name") or self.folder.resolve().name)

    @cached_property
    def kinds(self) -> dict[str, list[Record]]:
        """The records by their kind, in the order in which they were written."""
        kinds: dict[str, list[Record]] = {}
        for record in self.records:
            kinds.setdefault(str(record.get("kind")), []).append(record)
        return kinds

    def of(self, kind: str) -> list[Record]:
        """The records of one kind."""
        return self.kinds.get(kind, [])

    @property
    def start(self) -> Record:
        """What the run said when it last started, or resumed."""
        return self.of("start")[-1] if self.of("start") else {}

    @property
    def state(self) -> str:
        """`finished`, `stopped` before its end, `under way` (or killed) or `not begun`."""
        marks = [record for record in self.records if record.get("kind") in ("start", "end")]
        if not marks:
            return "under way" if self.records else "not begun"
        if marks[-1]["kind"] == "start":
            return "under way"
        return "finished" if marks[-1].get("complete", True) else "stopped"

    @property
    def measured(self) -> Record:
        """The last record that measured the held-out text: `validation`, or `end` where it repeats the figures."""
        for record in reversed(self.records):
            if record.get("kind") in ("validation", "end") and math.isfinite(number(record.get("bits_per_byte"))):
                return record
        return self.of("validation")[-1] if self.of("validation") else {}

    def latest(self, key: str) -> float:
        """The last finite value of `key` in any training, validation or end record; NaN when there is none."""
        for record in reversed(self.records):
            if record.get("kind") in ("train", "validation", "end") and math.isfinite(number(record.get(key))):
                return number(record[key])
        return math.nan

    def setting(self, path: str) -> Any:
        """The recipe's value at a dotted `path`, or None."""
        value: Any = self.recipe
        for part in path.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return value

    def checkpoints(self) -> list[Record]:
        """The manifests of the checkpoints that are there, ascending by step; one that can't be read is left out."""
        manifests = []
        for path in (self.folder / "checkpoints").glob("[!.]*/manifest.json"):
            try:
                manifest = json.loads(_text(path))
            except ValueError:
                continue
            if isinstance(manifest, dict) and math.isfinite(number(manifest.get("step"))):
                manifests.append(manifest)
        return sorted(manifests, key=lambda manifest: number(manifest["step"]))


def number(value: Any) -> float:
    """`value` as a float; NaN for whatever is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan


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


def _recipe(text: str) -> Record:
    try:
        recipe = parse_yaml(text)
    except UserError:  # the page then shows the text as it stands
        return {}
    return recipe if isinstance(recipe, dict) else {}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""


def _lines(path: Path) -> tuple[list[Record], int]:
    """The records of a JSON lines file, and how many lines were none: a killed run leaves half a line."""
    records, unreadable = [], 0
    for line in _text(path).split("\n"):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if isinstance(record, dict):
            records.append(record)
        else:
            unreadable += 1
    return records, unreadable
