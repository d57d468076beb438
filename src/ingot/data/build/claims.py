"""Work that any number of processes share through a folder: each claims what nobody does yet, until none is missing.

A claim is a lock on a file, which the operating system lets go of when a process ends, however it ends. So a process
may join at any time, from any machine that sees the folder, and none is missed when it goes: it has no rank.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ingot.data.workers import Worker, forkable, start
from ingot.errors import UserError
from ingot.files import disk_errors

LOOK_AGAIN = 0.1  # seconds between two looks at work that others do


@dataclass(frozen=True)
class Task:
    """A piece of work. Two tasks are the same where their names and what they start from are."""

    name: str
    do: Callable[[], None] = field(compare=False)
    given: Any = None  # what the result depends on beside the plan


def work_off(missing: Callable[[], Sequence[Task]], locks: Path, tell: Callable[[], None]) -> None:
    """Do tasks until none is `missing`, those that nobody else does; `tell` is called after each, and while waiting.

    `missing` looks at the disk: what it names is asked for again once the task is claimed, for it may be done by then.
    """
    while tasks := missing():
        for task in tasks:
            with _claimed(_lock(locks, task.name)) as mine:
                if mine and task in missing():
                    _do(task, missing)
                    break
        else:
            time.sleep(LOOK_AGAIN)
        tell()


def at_work(tasks: Sequence[Task], locks: Path) -> int:
    """How many of `tasks` a process has claimed now."""
    held = 0
    for lock in filter(Path.exists, (_lock(locks, task.name) for task in tasks)):
        with _claimed(lock) as free:
            held += not free
    return held


@contextlib.contextmanager
def alone(lock: Path, wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """The block runs in one process at a time; others `wait`, once, and then for their turn. Raises UserError."""
    turn = FileLock(lock)
    with disk_errors(lock.parent):
        try:
            turn.acquire(blocking=False)
        except Timeout:
            wait()
            turn.acquire()
    try:
        yield
    finally:
        turn.release()


@contextlib.contextmanager
def helpers(work: Callable[[Any], None], plan: Any, count: int) -> Iterator[None]:
    """While the block runs, `count` more processes `work` on `plan`, and end with it or with this process.

    A helper that fails is no failure: whatever it met, this process meets when it claims the same task.
    """
    crew: list[Worker] = []

    def begin() -> None:
        crew.extend(start(_help, work, plan) for _ in range(count))

    starter = threading.Thread(target=begin)
    if forkable():
        begin()
    else:
        starter.start()  # for it waits until they have read the plan
    try:
        yield
    finally:
        if starter.ident:
            starter.join()
        for process in crew:
            process.kill()  # what it leaves half done is nobody's any more


def _lock(locks: Path, name: str) -> Path:
    return locks / f"{name}.lock"


@contextlib.contextmanager
def _claimed(lock: Path) -> Iterator[bool]:
    """Whether the claim is this process's for the block."""
    claim = FileLock(lock, blocking=False)
    try:
        with disk_errors(lock.parent):
            claim.acquire()
    except (Timeout, FileNotFoundError):  # the folder goes when the work is finished
        yield False
        return
    try:
        yield True
    finally:
        claim.release()


def _do(task: Task, missing: Callable[[], Sequence[Task]]) -> None:
    try:
        task.do()
    except FileNotFoundError:  # the folder went meanwhile, because nothing was missing any more
        if missing():
            raise


def _help(pipe: Connection, work: Callable[[Any], None], plan: Any) -> None:
    with contextlib.suppress(UserError):
        work(plan)
