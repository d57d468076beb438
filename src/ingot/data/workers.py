"""Processes that work for this one and never outlive it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

from ingot.distributed import single_threaded

FOR_PARENT = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1}  # it answers for its workers
BEGIN = "import sys; sys.path[:] = {path!r}; from ingot.data.workers import begin; begin({talk}, {life})"


class Worker:
    """A process that was started, and the end of the pipe to it."""

    def __init__(self, process: subprocess.Popen[bytes], pipe: Connection, life: Connection):
        self.pipe = pipe
        self._process, self._life = process, life  # which, held open, says that this process lives

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()

    def status(self) -> int:
        """How it ended, once it has: an exit status, or the number of a signal below 0."""
        return self._process.wait()


def start(work: Callable[..., None], *args: Any) -> Worker:
    """A new process that does `work(pipe, *args)`; it ends with this one, however that ends, and no signal before that.

    A terminal and a scheduler send their signals to all processes at once, and this one may still need what its
    workers hold. Nothing of this process's own script is run again, so it needs no guard against that.
    """
    (pipe, its_pipe), (life, its_life) = Pipe(), Pipe()
    ends = its_pipe.fileno(), its_life.fileno()
    command = [sys.executable, "-c", BEGIN.format(path=sys.path, talk=ends[0], life=ends[1])]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, FOR_PARENT)  # a new process begins with what is blocked here
    try:
        process = subprocess.Popen(command, pass_fds=ends, stdin=subprocess.DEVNULL)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        its_pipe.close()
        its_life.close()
    with contextlib.suppress(OSError):  # it has ended already, as whoever wants something of it will find
        pipe.send((work, args))
    return Worker(process, pipe, life)


def begin(talk: int, life: int) -> None:
    """What the new process does first. The pipe `talk` says what its work is; `life` ends with the parent."""
    single_threaded()  # there is a process for each core already
    threading.Thread(target=_end_with, args=(Connection(life),), daemon=True).start()
    pipe = Connection(talk)
    work, args = pipe.recv()
    work(pipe, *args)


def _end_with(parent: Connection) -> None:
    """A killed parent can't end its workers, and they would go on without anybody to tell."""
    parent.poll(None)  # nothing is ever sent: what comes is the end
    os._exit(1)
