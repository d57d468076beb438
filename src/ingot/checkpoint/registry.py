"""Model references: `name`, `name@best`, `name@latest`, `name@1200`, a tag, or a folder.

Nothing is indexed: what there is to refer to is read off the run folders each time, so it can't disagree with them.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path

from ingot.checkpoint.manifest import MANIFEST, verify
from ingot.checkpoint.store import FOLDER, MODEL, Checkpoint, Checkpoints
from ingot.errors import UserError, nearest

log = logging.getLogger(__name__)

_TAG = re.compile(r"(?=.*[A-Za-z])[A-Za-z0-9][A-Za-z0-9._-]*")
_STEP = re.compile(r"[0-9]{1,18}")
_RESERVED = ("best", "latest")
LONGEST_SHOWN = 60  # characters of a reference that is repeated to the user


def resolve(reference: str, runs: Path) -> Path:
    """The model folder that `reference` means, its files verified where a manifest names them.

    A bare run name means its latest checkpoint. A damaged checkpoint is passed over, with a warning that names it,
    where the reference leaves a choice. Raises UserError, with the nearest name for an unknown one.
    """
    if checkpoint := find(reference, runs):
        return checkpoint.model
    name = reference.partition("@")[0]
    # Only a plain name can be a run's: `runs / "/a/folder"` is that folder. Unlike Path's, isfile takes any text.
    begun = os.path.basename(name) == name and os.path.isfile(os.path.join(runs, name, "recipe.yaml"))
    if os.path.isdir(reference) and (not begun or "config.json" in os.listdir(reference)):
        return _model_in(Path(reference).resolve())
    if begun:
        raise UserError(f"{name!r} has no checkpoint yet", where=str(runs / name), mend="wait for one, or train it")
    shown = reference if len(reference) <= LONGEST_SHOWN else f"{reference[:LONGEST_SHOWN]}…"
    known = [*run_names(runs), *(name for _, checkpoint in _every(runs) for name in checkpoint.manifest.tags)]
    if not known:
        what = f"there is no model {shown!r}, and no run in {str(runs)!r} has a checkpoint"
        raise UserError(what, mend="train one, or give a model's folder")
    mend = nearest(reference.partition("@")[0], known, "`ingot models list`")
    raise UserError(f"there is no model {shown!r}", mend=mend)


def find(reference: str, runs: Path) -> Checkpoint | None:
    """The checkpoint that a run's name or a tag means, verified as in `resolve`; None where it is neither."""
    name, _, which = reference.partition("@")
    if name in run_names(runs):
        return _of_run(runs / name, which or "latest")
    for _, checkpoint in _every(runs):
        if reference in checkpoint.manifest.tags:
            return _whole(checkpoint)
    return None


def tag(reference: str, name: str, runs: Path) -> Checkpoint:
    """Give the checkpoint of `reference` the tag `name`, which leaves the one that bore it. Raises UserError."""
    if not _TAG.fullmatch(name) or name in _RESERVED or name in run_names(runs):
        raise UserError(
            f"{name!r} can't be a tag",
            mend="take letters, digits, dots, dashes and underscores, with a letter, and not the name of a run",
        )
    chosen = find(reference, runs)
    if chosen is None:
        raise UserError(f"{reference!r} is no checkpoint of a run", mend="tag one such as NAME@latest")
    for checkpoints, checkpoint in _every(runs):
        tags = set(checkpoint.manifest.tags)
        wanted = tags | {name} if checkpoint.path == chosen.path else tags - {name}
        if wanted != tags:
            checkpoints.amend(checkpoint.step, tags=wanted)
    return chosen


def run_names(runs: Path) -> list[str]:
    """The runs that have a folder of checkpoints."""
    return sorted(path.parent.name for path in runs.glob(f"*/{FOLDER}"))


def _every(runs: Path) -> Iterator[tuple[Checkpoints, Checkpoint]]:
    """All readable checkpoints of all runs, each with its run's."""
    for name in run_names(runs):
        checkpoints = Checkpoints(runs / name)
        for checkpoint in checkpoints.all():
            yield checkpoints, checkpoint


def _of_run(run: Path, which: str) -> Checkpoint:
    """The checkpoint of one run that `which` means: best, latest, a step or a tag."""
    checkpoints = Checkpoints(run)
    if which in _RESERVED:
        return _best_or_latest(checkpoints, which, run)
    step = int(which) if _STEP.fullmatch(which) else None
    if step is not None and (folder := checkpoints.folder_of(step)).exists():
        return Checkpoint(folder, verify(folder, MODEL))
    every = checkpoints.all()
    for checkpoint in every:
        if which in checkpoint.manifest.tags:
            return _whole(checkpoint)
    names = [*_RESERVED, *(name for checkpoint in every for name in checkpoint.manifest.tags)]
    if step is not None and every:
        near = min((checkpoint.step for checkpoint in every), key=lambda known: abs(known - step))
        raise UserError(f"{run.name!r} has no checkpoint of step {step}", mend=f"the nearest is {run.name}@{near}")
    raise UserError(f"{run.name!r} has no checkpoint {which!r}", mend=nearest(which, names))


def _best_or_latest(checkpoints: Checkpoints, which: str, run: Path) -> Checkpoint:
    found = checkpoints.best(MODEL) if which == "best" else checkpoints.latest(MODEL)
    for damage in checkpoints.damaged:
        log.warning("%s", damage)
    if found:
        return found
    if which == "best" and checkpoints.latest(MODEL):
        raise UserError(f"no checkpoint of {run.name!r} has a validation loss", mend=f"use {run.name}@latest")
    raise UserError(f"{run.name!r} has no whole checkpoint", where=str(checkpoints.folder), mend="train it first")


def _model_in(folder: Path) -> Path:
    """The model folder that a run's folder, a checkpoint, or a model folder itself stands for."""
    if (folder / FOLDER).is_dir():
        return _of_run(folder, "latest").model
    if (folder / MANIFEST).exists():
        verify(folder, MODEL)
        return folder / MODEL
    if not (folder / "config.json").exists():
        raise UserError("this folder holds no model (no config.json)", where=str(folder), mend="give a model's folder")
    if folder.name == MODEL and (folder.parent / MANIFEST).exists():
        verify(folder.parent, MODEL)
    return folder


def _whole(checkpoint: Checkpoint) -> Checkpoint:
    return Checkpoint(checkpoint.path, verify(checkpoint.path, MODEL))
