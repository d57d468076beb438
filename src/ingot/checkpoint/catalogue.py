"""What models there are below a folder of runs, read off the folders each time, so that nothing can differ."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ingot.checkpoint.manifest import MANIFEST, CheckpointDamaged, Manifest, verify
from ingot.checkpoint.registry import find, run_names
from ingot.checkpoint.store import FOLDER, MODEL, Checkpoints
from ingot.errors import UserError, nearest
from ingot.model.architecture import Architecture, parameter_counts
from ingot.model.huggingface import load_architecture

WHOLE = "whole"
LONGEST_LINEAGE = 1000  # checkpoints


@dataclass(frozen=True)
class Entry:
    """A checkpoint as a model: what it is, where it lies, and whether it is whole."""

    run: str
    folder: Path
    integrity: str
    """whole, or what is wrong with it"""
    manifest: Manifest | None = None
    """none: damaged"""
    arch: Architecture | None = None
    """none: its configuration can't be read"""

    @property
    def id(self) -> str:
        """The reference that means it."""
        return f"{self.run}@{self.manifest.step}" if self.manifest else f"{self.run}/{self.folder.name}"

    @property
    def version(self) -> str:
        """Twelve digits that are the same for the same model files and for no others."""
        if not self.manifest:
            return ""
        files = {name: one.sha256 for name, one in self.manifest.files.items() if name.split("/")[0] == MODEL}
        return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def parameters(self) -> int:
        """0: not known."""
        return parameter_counts(self.arch)["total"] if self.arch else 0

    @property
    def bytes(self) -> int:
        """Of all files, training state too."""
        return sum(one.bytes for one in self.manifest.files.values()) if self.manifest else 0

    @property
    def loss(self) -> float | None:
        """On held-out text, in nats a token: all of it where that was measured, else the sample of it."""
        losses = self.manifest.losses if self.manifest else {}
        return losses.get("held_out", losses.get("validation"))

    def facts(self) -> dict[str, Any]:
        """What a list shows of it."""
        manifest = self.manifest
        return {
            "id": self.id,
            "version": self.version,
            "family": self.arch.family if self.arch else "",
            "parameters": self.parameters,
            "bytes": self.bytes,
            "tokens": manifest.tokens if manifest else 0,
            "loss": self.loss,
            "created": manifest.created if manifest else "",
            "tags": list(manifest.tags) if manifest else [],
            "integrity": self.integrity,
        }


def entries(runs: Path) -> Iterator[Entry]:
    """Every checkpoint of every run, by name and step; of their files, presence and size are looked at."""
    for name in run_names(runs):
        checkpoints = Checkpoints(runs / name)
        for checkpoint in checkpoints.all():
            yield entry(checkpoint.path)
        for damage in checkpoints.damaged:
            yield Entry(name, damage.path.parent, f"damaged: {damage.what}")


def entry(folder: Path) -> Entry:
    """The checkpoint in `folder`. Raises CheckpointDamaged where its manifest is."""
    manifest, arch, integrity = Manifest.read(folder), None, WHOLE
    try:
        verify(folder, contents=False)
        arch = load_architecture(folder / MODEL)
    except CheckpointDamaged as damage:
        integrity = f"damaged: {damage.path.relative_to(folder)}: {damage.what}"
    except UserError as error:
        integrity = f"damaged: {error.what}"
    return Entry(_run_of(folder), folder, integrity, manifest, arch)


def chosen(reference: str, runs: Path) -> Entry:
    """The checkpoint that a run's name, name@step or a tag means. Raises UserError with the nearest name."""
    found = find(reference, runs)
    if found is None:
        known = run_names(runs)
        mend = nearest(reference.partition("@")[0], known) if known else "train one, or import one"
        raise UserError(f"there is no model {reference[:60]!r} below {str(runs)!r}", mend=mend)
    return entry(found.path)


def lineage(start: Entry) -> list[Entry | str]:
    """`start`'s run and those that it came from, back to the first: checkpoints, or the place of one that is gone."""
    found: list[Entry | str] = [start]
    at, seen = start, {start.folder.resolve()}
    while at.manifest and at.manifest.parent and len(seen) < LONGEST_LINEAGE:
        parent = Path(at.manifest.parent)
        if not (parent / MANIFEST).exists():
            parent = start.folder.parents[2] / parent.parent.parent.name / FOLDER / parent.name  # the runs were moved
        if not (parent / MANIFEST).exists() or parent.resolve() in seen:
            if _run_of(Path(at.manifest.parent)) != at.run:  # pruned by its own run: the way back ends there
                found.append(at.manifest.parent)
            break
        seen.add(parent.resolve())
        try:
            before = entry(parent)
        except CheckpointDamaged:
            found.append(str(parent))
            break
        if before.run != at.run:
            found.append(before)
        at = before
    return found


def _run_of(checkpoint: Path) -> str:
    return checkpoint.parent.parent.name
