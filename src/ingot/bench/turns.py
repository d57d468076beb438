"""Contenders that take turns, each in a process of its own: what drifts on a machine then drifts for all of them."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any


def begin(work: Callable[..., None], *arguments: Any) -> Connection:
    """Start a process that does `work(*arguments, pipe)`; our end of its pipe, which ends with the process."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    context.Process(target=work, args=(*arguments, theirs), daemon=True).start()
    theirs.close()  # or the pipe would not end with the process, and waiting for an answer might never
    return ours


def answer(pipe: Connection, question: str = "") -> Any:
    """What a contender's process says next, asked `question` if there is one; in words where it has ended."""
    try:
        if question:
            pipe.send(question)
        return pipe.recv()
    except (EOFError, OSError):
        return "its process has ended, perhaps for want of memory"
