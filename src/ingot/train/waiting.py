"""What is shown while something goes on that can't be hurried: that it does, for how long, and how much is done."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import Progress, ProgressColumn, SpinnerColumn, TextColumn, TimeElapsedColumn

QUIET_SECONDS = 15.0  # between two lines where the output is no terminal


@contextlib.contextmanager
def waiting(console: Console, what: str, unit: str = "", total: int = 0) -> Iterator[Callable[[int], None]]:
    """While entered, show `what` with its seconds and, where there is a `total`, how many of its `unit` are done.

    What it gives is to be told that number. On a terminal the line moves and vanishes at the end; elsewhere a line is
    printed now and then, and none for what is over soon.
    """
    with (_moving if console.is_terminal else _speaking)(console, what, unit, total) as tell:
        yield tell


@contextlib.contextmanager
def _moving(console: Console, what: str, unit: str, total: int) -> Iterator[Callable[[int], None]]:
    columns: list[ProgressColumn] = [SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()]
    if total:
        columns.insert(2, TextColumn("{task.completed:.0f} of {task.total:.0f} " + unit))
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(what, total=total or None)
        yield lambda count: progress.update(task, completed=count)


@contextlib.contextmanager
def _speaking(console: Console, what: str, unit: str, total: int) -> Iterator[Callable[[int], None]]:
    counts, over, began = [0], threading.Event(), time.monotonic()

    def speak() -> None:
        while not over.wait(QUIET_SECONDS):
            state = f"{counts[-1]} of {total} {unit}, " if total else ""
            console.print(f"{what}: {state}{time.monotonic() - began:.0f} seconds", markup=False, soft_wrap=True)

    speaker = threading.Thread(target=speak, daemon=True)
    speaker.start()
    try:
        yield counts.append
    finally:
        over.set()
        speaker.join()
