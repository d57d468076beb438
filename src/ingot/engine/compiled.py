"""What torch.compile makes, kept in a folder of ours: whole, or thrown away and made again.

PyTorch writes its libraries straight to the place where it will look for them. One that a kill cut short either does
not load or, where it was made to find out what the processor can do, leads to slow code without a word.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from ingot.data.loader import TokenBatch
from ingot.distributed import compile_into
from ingot.engine.engine import Engine
from ingot.files import disk_errors, make_folder

MARK = ".making-"  # prefix of a file that lies in the folder while a process compiles into it


def compile_kept(engine: Engine, batches: Sequence[TokenBatch], folder: Path, done: Callable[[int], None]) -> str:
    """Compile `engine` for the shapes of `batches`, with `folder` to keep the result; empty, or why it stays as it was.

    `done` hears how many shapes are. What is there but does not load is thrown away and made once more. Raises
    UserError for a folder that can't be written to.
    """
    folder = Path(os.path.abspath(folder))  # as PyTorch will name it in an error
    with _kept_in(folder):
        problem = _attempt(engine, batches, done)
        if problem and str(folder) in str(problem):
            _forget(folder)
            problem = _attempt(engine, batches, done)
    return reason(problem) if problem else ""


def _attempt(engine: Engine, batches: Sequence[TokenBatch], done: Callable[[int], None]) -> Exception | None:
    try:
        engine.compile(batches, done)
    except Exception as error:  # whatever a compiler chokes on, the uncompiled model still trains
        return error
    return None


def reason(error: Exception) -> str:
    """What went wrong in one line; PyTorch's own errors begin with where that was, in a line before."""
    lines = str(getattr(error, "inner_exception", error)).strip().splitlines()
    return lines[0] if lines else type(error).__name__


@contextlib.contextmanager
def _kept_in(folder: Path) -> Iterator[None]:
    """Let torch.compile use `folder`, rid of what killed processes left there. A mark shows that it is at work.

    The mark stays when a signal ends the work, and tells the next process how old that work was.
    """
    make_folder(folder)
    mark = folder / f"{MARK}{socket.gethostname()}-{os.getpid()}"
    with disk_errors(folder), FileLock(folder / ".lock"):
        _clear_half_made(folder)
        lock = _lock_of(mark)
        lock.acquire()
        mark.touch()
    compile_into(folder)
    try:
        yield
        mark.unlink(missing_ok=True)
    finally:
        lock.release()


def _clear_half_made(folder: Path) -> None:
    """Remove what was written since the first of the killed processes began, unless one that lives may need it."""
    marks = [path for path in folder.glob(f"{MARK}*") if path.suffix != ".lock"]
    if not marks or not all(map(_is_left_behind, marks)):
        return
    since = min(mark.stat().st_mtime for mark in marks)
    for path in folder.glob("*/**/*"):  # PyTorch keeps everything in folders
        if path.is_file() and path.stat().st_mtime >= since:
            path.unlink()
    for mark in marks:  # last: a kill in between leaves them to the next process
        mark.unlink()
        Path(_lock_of(mark).lock_file).unlink(missing_ok=True)


def _is_left_behind(mark: Path) -> bool:
    try:
        with _lock_of(mark).acquire(timeout=0):
            return True
    except Timeout:
        return False


def _lock_of(mark: Path) -> FileLock:
    return FileLock(mark.with_name(f"{mark.name}.lock"))


def _forget(folder: Path) -> None:
    """Throw away all that was made, in `folder` and in this process."""
    from torch._inductor.utils import clear_caches

    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
    clear_caches()
    torch.compiler.reset()
