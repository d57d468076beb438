"""The run's folder: begun once, gone on with by the same recipe, never overwritten."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import Timeout

from ingot.checkpoint.store import FOLDER, Checkpoints, lock_of
from ingot.config.text import to_yaml
from ingot.errors import UserError
from ingot.files import disk_errors, make_folder, write_atomically
from ingot.recipe.recipe import Recipe
from ingot.track.tracker import METRICS

# What may differ between the command that began a run and the one that goes on with it: it changes how a run is
# watched, kept or computed, or how long it lasts, but not what it is.
FREE = {"runs", "cache", "evaluation", "early_stopping", "health", "samples", "parallel", "memory", "track"}
FREE_IN_TRAIN = {"duration", "settled", "precision", "compile", "save_every", "keep"}


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the run against a second process. Raises UserError when another one has it."""
    make_folder(folder.parent)
    lock = lock_of(folder)
    try:
        with disk_errors(folder):
            lock.acquire(timeout=0)
    except Timeout:
        raise UserError(
            "another process is training this run", where=str(folder), mend="wait for it, or choose another name=…"
        ) from None
    try:
        yield
    finally:
        lock.release()


def begin(recipe: Recipe) -> Recipe:
    """Write `recipe` into its run's folder, or check it against the one there and take over what that has settled.

    A run that has no checkpoint yet has nothing to lose and takes any recipe. Raises UserError that names the first
    key in which the two differ beyond what may differ.
    """
    path = recipe.folder / "recipe.yaml"
    if path.exists() and Checkpoints(recipe.folder).all():
        begun = Recipe.load(path)
        if difference := _first_difference(_fixed(begun), _fixed(recipe)):
            key, old, new = difference
            raise UserError(
                f"this run was begun with {key}={old}, not {new}",
                where=str(recipe.folder),
                mend="choose another name=…, or begin again with --fresh (the old run is kept beside it)",
            )
        recipe = recipe.with_training(**_settled(begun, recipe))
        if recipe.memory.micro_batch == "auto":
            recipe = recipe.with_memory(micro_batch=begun.memory.micro_batch)
    write_atomically(path, to_yaml(recipe))
    return recipe


@contextlib.contextmanager
def nothing_left(folder: Path, *, fresh: bool) -> Iterator[None]:
    """Around all of a run; `fresh`: one that is there is moved aside first.

    Where a new run fails before it has made a step, its folder goes again, and the one moved aside comes back.
    """
    aside = set_aside(folder) if fresh else None
    new = not folder.exists()
    try:
        yield
    except Exception:
        if new and not _has_made_something(folder):
            shutil.rmtree(folder, ignore_errors=True)
            if aside:
                aside.rename(folder)
        raise


def _has_made_something(folder: Path) -> bool:
    """Whether there is a checkpoint, or a record of more than the start."""
    metrics = folder / METRICS
    lines = metrics.read_bytes().splitlines() if metrics.exists() else []
    return (folder / FOLDER).exists() or any(json.loads(line)["kind"] != "start" for line in lines)


def set_aside(folder: Path) -> Path | None:
    """Move a run out of the way to the first free name such as `demo-old-1`; None where there was none."""
    if not (folder / "recipe.yaml").exists():
        return None
    number = 1
    while (aside := folder.with_name(f"{folder.name}-old-{number}")).exists():
        number += 1
    return folder.rename(aside)


def _settled(begun: Recipe, recipe: Recipe) -> dict[str, Any]:
    """What the run found out when it began and `recipe` leaves open: a resume must not find out anything else."""
    settled = {
        key: getattr(begun.train, key) for key in ("precision", "compile") if getattr(recipe.train, key) == "auto"
    }
    return settled | {"settled": recipe.train.settled or begun.train.settled}


def _fixed(recipe: Recipe) -> dict[str, Any]:
    """What makes the run the one it is; of a source, what it is and not where it lies."""
    values = {key: value for key, value in recipe.to_dict().items() if key not in FREE}
    values["data"]["sources"] = [source.identity() | {"weight": source.weight} for source in recipe.data.sources]
    # Where the mixture changes at shares of the run, a longer run would have changed it elsewhere in the past.
    free = FREE_IN_TRAIN - {"duration"} if recipe.mixture_changes else FREE_IN_TRAIN
    return values | {"train": {key: value for key, value in values["train"].items() if key not in free}}


def _first_difference(old: Any, new: Any, path: str = "") -> tuple[str, Any, Any] | None:
    """The first place, as a dotted key, at which two nested values differ, and the two values there."""
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        old, new = dict(enumerate(old)), dict(enumerate(new))
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            if found := _first_difference(old.get(key), new.get(key), f"{path}.{key}" if path else str(key)):
                return found
        return None
    return None if old == new else (path, old, new)
