"""Files that are whole or absent: written aside, flushed to the disk, then shown by one rename."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import socket
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

from ingot.errors import UserError

# Errors of a place that can't be written to, whatever is tried there.
_WRONG_PLACE = {
    *(errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP),
}
DRAFT = ".draft-"  # prefix of what is being written; whatever bears it after a crash is rubbish


def make_folder(folder: Path) -> None:
    """Make `folder`, and those above it, where they are missing. Raises UserError for a place that can't hold one."""
    with disk_errors(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileNotFoundError as error:  # such as below /proc; elsewhere this error says that an input is missing
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from error


def draft_of(final: Path) -> Path:
    """Where the folder `final` lies while it is written."""
    return final.with_name(f"{DRAFT}{final.name}")


@contextlib.contextmanager
def new_folder(final: Path) -> Iterator[Path]:
    """A draft folder that becomes `final` by one rename when the block ends well, and vanishes when it does not.

    Its files are as open to others as the umask says, whoever wrote them. Raises UserError when the disk is full or not
    writable; `final` is then absent and nothing else was touched.
    """
    draft = draft_of(final)
    with disk_errors(final):
        shutil.rmtree(draft, ignore_errors=True)
        make_folder(draft.parent)
        draft.mkdir()
        try:
            yield draft
            shared = draft.stat().st_mode & 0o666  # as the umask has it; some libraries keep what they write private
            for path in sorted(draft.rglob("*")):
                if path.is_file():
                    path.chmod(shared)
                _flush(path)
            _flush(draft)
            draft.rename(final)
            _flush(final.parent)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise


@contextlib.contextmanager
def new_file(path: Path, *, flushed: bool = True) -> Iterator[IO[bytes]]:
    """A draft file, open to be written, that becomes `path` by one rename when the block ends well, and else vanishes.

    Not `flushed`: it is whole or absent for every process, but not yet if the machine itself goes down; `flush` sees to
    that for many files at less cost. Errors of the block pass as they are: it may read elsewhere as well.
    """
    draft = path.with_name(f"{DRAFT}{socket.gethostname()}-{os.getpid()}-{path.name}")  # the folder may be shared
    try:
        with disk_errors(path):
            make_folder(path.parent)
            file = draft.open("wb")
        with file:
            yield file
            with disk_errors(path):
                file.flush()
                if flushed:
                    os.fsync(file.fileno())
        with disk_errors(path):
            draft.replace(path)
            if flushed:
                _flush(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise


def write_atomically(path: Path, data: bytes | str) -> None:
    """Replace `path` by `data` so that a reader, or a crash, sees the old or the new content and nothing between."""
    with disk_errors(path), new_file(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)


def flush(paths: Sequence[Path]) -> None:
    """Force the content of files, and their names, to the disk: all at once, as a disk does it fastest."""
    with ThreadPoolExecutor(max_workers=16) as pool:
        list(pool.map(_flush, [*paths, *{path.parent for path in paths}]))


def sha256(path: Path) -> str:
    """The SHA-256 of the file's content, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
        if error.errno in _WRONG_PLACE:
            raise UserError(
                f"this place can't be written to ({error.strerror})", where=str(path), mend="choose another folder"
            ) from error
        raise
