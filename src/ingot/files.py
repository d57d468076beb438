"""Files that are whole or absent: written aside, flushed to the disk, then shown by one rename."""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from ingot.errors import UserError

DRAFT = ".draft-"  # prefix of what is being written; whatever bears it after a crash is rubbish


@contextlib.contextmanager
def new_folder(final: Path) -> Iterator[Path]:
    """A draft folder that becomes `final` by one rename when the block ends well, and vanishes when it does not.

    Raises UserError when the disk is full or not writable; `final` is then absent and nothing else was touched.
    """
    draft = final.with_name(f"{DRAFT}{final.name}")
    with disk_errors(final):
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        try:
            yield draft
            for path in sorted(draft.rglob("*")):
                _flush(path)
            _flush(draft)
            draft.rename(final)
            _flush(final.parent)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise


def write_atomically(path: Path, data: bytes | str) -> None:
    """Replace `path` by `data` so that a reader, or a crash, sees the old or the new content and nothing between."""
    draft = path.with_name(f"{DRAFT}{os.getpid()}-{path.name}")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            draft.write_bytes(data.encode() if isinstance(data, str) else data)
            _flush(draft)
            draft.replace(path)
            _flush(path.parent)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise


def sha256(path: Path) -> str:
    """The SHA-256 of the file's content, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def open_bytes(path: Path) -> IO[bytes]:
    """`path` for reading, unpacked on the way where its name ends in .gz or .zst."""
    if path.suffix == ".gz":
        return io.BufferedReader(gzip.open(path, "rb"))
    if path.suffix == ".zst":
        import zstandard

        return io.BufferedReader(zstandard.open(path, "rb"))
    return path.open("rb")


def _flush(path: Path) -> None:
    """Force a file's content, or a folder's list of names, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn the errors that a user can mend at the disk into one line."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                "the disk is full, so this was not saved; all that was saved before is whole",
                where=str(path),
                mend="free some space, then run the same command again",
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise UserError(
                f"this place can't be written to ({error.strerror})", where=str(path), mend="choose another folder"
            ) from error
        raise
