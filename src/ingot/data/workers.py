"""Processes that work for this one and never outlive it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from multiprocessing import Pipe, get_context
from multiprocessing.connection import Connection
from typing import Any

import psutil

from ingot.distributed import single_threaded

FOR_PARENT = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1}  # it answers for its workers
BEGIN = "import sys; sys.path[:] = {path!r}; from ingot.data.workers import begin; begin({talk}, {life})"


class Fork(get_context("fork").Process):  # type: ignore[misc]
    """A copy of this process, with what a `Popen` offers."""

    def wait(self) -> int:
        """How it ended, once it has."""
        self.join()
        return int(self.exitcode)


class Worker:
    """A process that was started, and the end of the pipe to it."""

    def __init__(self, process: subprocess.Popen[bytes] | Fork, pipe: Connection, life: Connection):
        self.pipe = pipe
        self._process, self._life = process, life  # which, held open, says that this process lives

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()

    def status(self) -> int:
        """How it ended, once it has: an exit status, or the number of a signal below 0."""
        return self._process.wait()


def forkable() -> bool:
    """Whether a copy of this process can go on: another thread would be missing there, whatever it holds locked."""
    return sys.platform == "linux" and psutil.Process().num_threads() == 1


def start(work: Callable[..., None], *args: Any) -> Worker:
    """A new process that does `work(pipe, *args)`; it ends with this one, however that ends, and no signal before that.

    A terminal and a scheduler send their signals to all processes at once, and this one may still need what its
    workers hold. It is a copy of this process, ready at once, where that is safe; elsewhere it begins anew, and this
    waits until it has read `args`. Nothing of this process's own script is run again, so it needs no guard against it.
    """
    (pipe, its_pipe), (life, its_life) = Pipe(), Pipe()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, FOR_PARENT)  # a new process begins with what is blocked here
    try:
        process: subprocess.Popen[bytes] | Fork
        if copied := forkable():
            process = Fork(target=_go_on, args=(work, args, its_pipe, its_life, (pipe, life)), daemon=True)
            process.start()
        else:
            ends = its_pipe.fileno(), its_life.fileno()
            command = [sys.executable, "-c", BEGIN.format(path=sys.path, talk=ends[0], life=ends[1])]
            process = subprocess.Popen(command, pass_fds=ends, stdin=subprocess.DEVNULL)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        its_pipe.close()
        its_life.close()
    if not copied:
        with contextlib.suppress(OSError):  # it has ended already, as whoever wants something of it will find
            pipe.send((work, args))
    return Worker(process, pipe, life)


def begin(talk: int, life: int) -> None:
    """What a process does first that begins anew. The pipe `talk` says what its work is."""
    pipe = Connection(talk)
    work, args = pipe.recv()
    _go_on(work, args, pipe, Connection(life))


def _go_on(
    work: Callable[..., None], args: tuple[Any, ...], pipe: Connection, life: Connection, others: tuple[Any, ...] = ()
) -> None:
    """`life` ends with the parent, once this process has let go of what it holds of the parent's own: `others`."""
    for connection in others:
        connection.close()
    single_threaded()  # there is a process for each core already
    threading.Thread(target=_end_with, args=(life,), daemon=True).start()
    work(pipe, *args)


def _end_with(parent: Connection) -> None:
    """A killed parent can't end its workers, and they would go on without anybody to tell."""
    parent.poll(None)  # nothing is ever sent: what comes is the end
    os._exit(1)
