"""The checkpoints of one run: saved whole or not at all, verified when chosen, pruned when there are enough."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock
from safetensors import SafetensorError

from ingot.checkpoint.manifest import MANIFEST, CheckpointDamaged, FileRecord, Manifest, recorded, verify
from ingot.files import DRAFT, disk_errors, draft_of, flush, new_folder, write_atomically

if TYPE_CHECKING:
    from ingot.distributed import World

FOLDER = "checkpoints"  # inside a run's folder
MODEL = "model"  # inside a checkpoint
_NAME = re.compile(r"step-\d{6,}")
_SYSTEM_ERROR = re.compile(r"\(os error (\d+)\)")

Parts = Mapping[str, Callable[[Path], None]]  # name inside the checkpoint -> what writes a file or folder there


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint and its manifest."""

    path: Path
    manifest: Manifest

    @property
    def step(self) -> int:
        """Updates done."""
        return self.manifest.step

    @property
    def model(self) -> Path:
        """The folder with the weights: a Hugging Face folder."""
        return self.path / MODEL


def save(folder: Path, parts: Parts, *, world: World | None = None, **fields: Any) -> Manifest:
    """Write one checkpoint: every part, then the manifest with its `fields`, then one rename shows it.

    Every rank of a `world` calls this with parts of its own, which are single files on all but the main one. A damaged
    checkpoint that has this name already is moved aside. Raises UserError, on all ranks, where the disk is full or not
    writable for any of them; nothing but what was saved before is there then.
    """
    main, each = (world.main, world.each) if world else (True, _by_itself)
    draft = draft_of(folder)
    with contextlib.ExitStack() as stack:
        each(lambda: _begin(folder, stack) if main else None)
        names = each(lambda: _write(draft, parts, folder))
        theirs = {draft / name for own in names[1:] for name in own}
        mine = _files_in(draft) - theirs if main else {draft / name for name in parts}
        records = each(lambda: recorded(draft, mine))
        each(lambda: _show(folder, stack, records, fields) if main else None)
    return Manifest.read(folder)


def lock_of(run: Path) -> FileLock:
    """What whoever trains or removes `run` holds; beside the folder, which may be moved aside meanwhile."""
    return FileLock(run.with_name(f".{run.name}.lock"))


def _begin(folder: Path, stack: contextlib.ExitStack) -> None:
    stack.enter_context(new_folder(folder))


def _show(
    folder: Path, stack: contextlib.ExitStack, records: Iterable[Mapping[str, FileRecord]], fields: Mapping[str, Any]
) -> None:
    """Give the draft its manifest and then its name."""
    manifest = Manifest.now({name: record for own in records for name, record in own.items()}, **fields)
    (draft_of(folder) / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
    _make_room(folder)
    stack.pop_all().close()


def _write(draft: Path, parts: Parts, folder: Path) -> list[str]:
    """Write this rank's parts to the disk; their names."""
    with disk_errors(folder), _plain_errors():
        for name, write in parts.items():
            (draft / name).parent.mkdir(parents=True, exist_ok=True)
            write(draft / name)
        flush([draft / name for name in parts])
    return list(parts)


def _files_in(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def _by_itself(act: Callable[[], Any]) -> list[Any]:
    return [act()]


class Checkpoints:
    """The checkpoints below `run`. One process at a time writes here; any number may read."""

    def __init__(self, run: Path):
        self.folder = run / FOLDER
        self.damaged: list[CheckpointDamaged] = []  # what the last search passed over
        self._distrusted: set[Path] = set()  # checkpoints that any search found damaged
        self._saved: int | None = None  # the step saved last

    def all(self) -> list[Checkpoint]:
        """All checkpoints by step, without those whose manifest is damaged: these go to `damaged`."""
        self.damaged = []
        found = []
        paths = [path for path in self.folder.glob("step-*") if _NAME.fullmatch(path.name)]
        for path in sorted(paths, key=lambda path: (len(path.name), path.name)):
            try:
                found.append(Checkpoint(path, Manifest.read(path)))
            except CheckpointDamaged as damage:
                self.damaged.append(damage)
        return found

    def latest(self, part: str = "", *, until: int | None = None) -> Checkpoint | None:
        """The last checkpoint, or the last `until` a step, that is whole (or whose `part` is).

        Damaged ones go to `damaged` and stay as they are.
        """
        asked = [checkpoint for checkpoint in self.all() if until is None or checkpoint.step <= until]
        return self._first_whole(reversed(asked), part)

    def best(self, part: str = "") -> Checkpoint | None:
        """The whole checkpoint (or whose `part` is whole) with the lowest validation loss; None without such a loss."""
        return self._first_whole(_by_validation(self.all()), part)

    def folder_of(self, step: int) -> Path:
        """Where the checkpoint of `step` lies, or would."""
        return self.folder / f"step-{step:06d}"

    def save(self, parts: Parts, *, step: int, world: World | None = None, **fields: Any) -> Checkpoint:
        """Save the run as it stands at `step`, unless a whole checkpoint of that step is there already.

        Every rank of a `world` calls this; see `save` above.
        """
        folder = self.folder_of(step)
        main = not world or world.main
        there = self._ready(folder) if main else None
        if world.agreed(there) if world else there:
            manifest = Manifest.read(folder)
        else:
            manifest = save(folder, parts, world=world, step=step, **fields)
        self._saved = step
        self._distrusted.discard(folder)
        return Checkpoint(folder, manifest)

    def amend(self, step: int, *, losses: Mapping[str, float] | None = None, tags: Iterable[str] | None = None) -> None:
        """Add `losses` that were measured after saving, or replace the `tags`, in the manifest of `step`."""
        folder = self.folder_of(step)
        manifest = Manifest.read(folder)
        amended = manifest.model_copy(
            update={
                "losses": {**manifest.losses, **(losses or {})},
                "tags": manifest.tags if tags is None else sorted(set(tags)),
            }
        )
        write_atomically(folder / MANIFEST, amended.to_json())

    def keep(self, latest: int) -> None:
        """Remove all checkpoints but the `latest` last ones, the best one and those with a tag.

        Damaged ones neither count nor go: what a search found so, what lacks a file or a byte, and what lies behind the
        step saved last, which no run would have gone back from were it whole. Nothing is hashed here.
        """
        whole = [checkpoint for checkpoint in self.all() if self._counts(checkpoint)]
        kept = {checkpoint.path for checkpoint in whole[-max(1, latest) :] + _by_validation(whole)[:1]}
        for checkpoint in whole:
            if checkpoint.path not in kept and not checkpoint.manifest.tags:
                _remove(checkpoint)

    def remove(self, step: int) -> None:
        """Remove the checkpoint of `step`."""
        _remove(Checkpoint(self.folder_of(step), Manifest.read(self.folder_of(step))))

    def drop_after(self, step: int) -> None:
        """Remove all checkpoints behind `step`, from which the run goes on in another way; tagged ones move aside."""
        for checkpoint in self.all():
            if checkpoint.step > step:
                if checkpoint.manifest.tags:
                    _make_room(checkpoint.path, "left")
                else:
                    _remove(checkpoint)

    def _counts(self, checkpoint: Checkpoint) -> bool:
        if checkpoint.path in self._distrusted or (self._saved is not None and checkpoint.step > self._saved):
            return False
        try:
            verify(checkpoint.path, contents=False)
        except CheckpointDamaged:
            return False
        return True

    def _first_whole(self, checkpoints: Iterable[Checkpoint], part: str) -> Checkpoint | None:
        for checkpoint in checkpoints:
            try:
                verify(checkpoint.path, part)
                return checkpoint
            except CheckpointDamaged as damage:
                self.damaged.append(damage)
                self._distrusted.add(checkpoint.path)
        return None

    def _ready(self, folder: Path) -> bool:
        """Whether a whole checkpoint is there already; drafts are swept away first."""
        self._sweep()
        try:
            verify(folder)
        except CheckpointDamaged:
            return False
        return True

    def _sweep(self) -> None:
        """Remove the drafts that a killed process left."""
        for draft in self.folder.glob(f"{DRAFT}*"):
            shutil.rmtree(draft, ignore_errors=True)


def _remove(checkpoint: Checkpoint) -> None:
    # Renamed first: a kill between here and the end leaves rubbish to sweep, not half a checkpoint.
    rubbish = checkpoint.path.with_name(f"{DRAFT}{checkpoint.path.name}")
    checkpoint.path.rename(rubbish)
    shutil.rmtree(rubbish, ignore_errors=True)


def _by_validation(checkpoints: Iterable[Checkpoint]) -> list[Checkpoint]:
    """Those with a validation loss, the lowest first, the earlier of two equal ones first."""
    measured = [checkpoint for checkpoint in checkpoints if "validation" in checkpoint.manifest.losses]
    return sorted(measured, key=lambda checkpoint: (checkpoint.manifest.losses["validation"], checkpoint.step))


def _make_room(folder: Path, why: str = "damaged") -> None:
    """Move what lies at `folder` to the first free name such as `damaged-1-step-000500`."""
    number = 1
    while folder.exists():
        aside = folder.with_name(f"{why}-{number}-{folder.name}")
        if not aside.exists():
            folder.rename(aside)
        number += 1


@contextlib.contextmanager
def _plain_errors() -> Iterator[None]:
    """safetensors reports a full disk in an exception of its own, the system's error number in its text."""
    try:
        yield
    except SafetensorError as error:
        if match := _SYSTEM_ERROR.search(str(error)):
            raise OSError(int(match[1]), os.strerror(int(match[1]))) from error
        raise
