"""The manifest of a checkpoint: what it is, where it comes from, and the SHA-256 of every file in it."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Self

from pydantic import Field, ValidationError

from ingot.config.config import Config
from ingot.errors import UserError
from ingot.files import sha256

MANIFEST = "manifest.json"


class CheckpointDamaged(UserError):
    """A checkpoint that is not what was saved; `where` is the file that gave it away."""

    def __init__(self, path: Path, what: str):
        super().__init__(what, where=str(path), mend="use another checkpoint of the run, or restore this file")
        self.path = path


class FileRecord(Config):
    """What a file was when it was saved."""

    sha256: str
    """of the content, 64 hexadecimal digits"""
    bytes: int
    """size"""


class Manifest(Config):
    """What a checkpoint is. Losses and tags may be amended later; everything else is written once."""

    step: int
    """updates done"""
    tokens: int
    """target tokens trained on"""
    losses: dict[str, float] = Field(default_factory=dict)
    """loss by kind, such as train and validation, in nats a token, each measured at this very step"""
    tags: list[str] = Field(default_factory=list)
    """names given by the user; a tagged checkpoint is never pruned"""
    recipe: dict[str, Any] = Field(default_factory=dict)
    """the run's recipe"""
    code: str = ""
    """version of ingot that wrote this"""
    parent: str | None = None
    """the checkpoint that the run began or went on from"""
    lineage: dict[str, Any] = Field(default_factory=dict)
    """fingerprints of the data and the tokenizer, and whatever else tells where the weights come from"""
    created: str = ""
    """ISO 8601, with the offset from UTC"""
    files: dict[str, FileRecord] = Field(default_factory=dict)
    """every file but this one, by its path inside the checkpoint"""

    @classmethod
    def of(cls, folder: Path, **fields: Any) -> Self:
        """The manifest of the files that lie in `folder` now; `fields` are the rest of it."""
        return cls.now(recorded(folder, [path for path in folder.rglob("*") if path.is_file()]), **fields)

    @classmethod
    def now(cls, files: Mapping[str, FileRecord], **fields: Any) -> Self:
        """The manifest of `files`, of this moment where `fields` name no other."""
        created = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        return cls(**{"created": created, **fields, "files": dict(sorted(files.items()))})

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The manifest that lies in `folder`. Raises CheckpointDamaged for one that is not as it was written."""
        path = folder / MANIFEST
        try:
            text = path.read_text(encoding="utf-8")
            values = json.loads(text)
            values.pop("sha256")
            if text != _seal(values):
                raise CheckpointDamaged(path, "the manifest was changed after it was written")
            return cls.model_validate(values)
        except OSError as error:
            raise CheckpointDamaged(path, f"the manifest can't be read ({error.strerror})") from None
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError, ValidationError):
            raise CheckpointDamaged(path, "the manifest is not one that ingot wrote") from None

    def to_json(self) -> str:
        """The text of the file `manifest.json`."""
        return _seal(self.to_dict())


def recorded(folder: Path, paths: Iterable[Path]) -> dict[str, FileRecord]:
    """What the files at `paths` inside the checkpoint `folder` are now; a manifest is none of them."""
    return {
        path.relative_to(folder).as_posix(): FileRecord(sha256=sha256(path), bytes=path.stat().st_size)
        for path in sorted(paths)
        if path != folder / MANIFEST
    }


def verify(folder: Path, part: str = "", *, contents: bool = True) -> Manifest:
    """The manifest of the checkpoint in `folder`, once every file of it has been found to be as it was saved.

    `part` limits the check to one subfolder, such as `model`. Without `contents` only presence and size are checked.
    Raises CheckpointDamaged that names the first file that differs.
    """
    manifest = Manifest.read(folder)
    for path, record in _files(folder, manifest, part):
        if not path.is_file():
            raise CheckpointDamaged(path, "this file of the checkpoint is missing")
        if (size := path.stat().st_size) != record.bytes:
            raise CheckpointDamaged(path, f"the file has {size:,} bytes, but {record.bytes:,} were saved")
        if contents and sha256(path) != record.sha256:
            raise CheckpointDamaged(path, "the content is not what was saved (its SHA-256 differs)")
    return manifest


def _files(folder: Path, manifest: Manifest, part: str) -> Iterator[tuple[Path, FileRecord]]:
    for name, record in manifest.files.items():
        pure = PurePosixPath(name)
        if pure.is_absolute() or ".." in pure.parts:
            raise CheckpointDamaged(folder / MANIFEST, f"the manifest names a file outside the checkpoint, {name!r}")
        if not part or pure.parts[0] == part:
            yield folder / pure, record


def _seal(values: dict[str, Any]) -> str:
    """The one text that stands for `values`, with a SHA-256 over all else at its end, so that any change shows."""
    digest = hashlib.sha256(_text(values).encode()).hexdigest()
    return _text({**values, "sha256": digest})


def _text(values: dict[str, Any]) -> str:
    return json.dumps(values, indent=1) + "\n"
