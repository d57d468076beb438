"""How far a job is, on standard error: a bar in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

QUIET_SECONDS = 10.0  # between two lines


class JobProgress:
    """Counts finished texts of `total`, `done` of them from earlier."""

    def __init__(self, total: int, done: int):
        self._console = Console(stderr=True, highlight=False)
        self._total, self._done, self._tokens = total, done, 0
        self._began = self._spoke = time.monotonic()
        self._bar = Progress(
            TextColumn("{task.completed:,.0f} of {task.total:,.0f} prompts"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(compact=True),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("", total=total, completed=done, speed="")
        if done:
            self._say(f"going on: {done:,} of {total:,} prompts are finished")

    def finished(self, tokens: int) -> None:
        """One more text is finished; so many tokens were made for it."""
        self._done, self._tokens = self._done + 1, self._tokens + tokens
        now = time.monotonic()
        speed = f"{self._tokens / (now - self._began):,.0f} tokens/s"
        self._bar.update(self._task, completed=self._done, speed=speed)
        if not self._console.is_terminal and now - self._spoke > QUIET_SECONDS:
            self._spoke = now
            self._say(f"{self._done:,} of {self._total:,} prompts, {speed}")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bar.stop()
        if kind is KeyboardInterrupt:
            self._say(f"{self._done:,} of {self._total:,} prompts are finished and kept; the same command goes on")

    def _say(self, line: str) -> None:
        self._console.print(line, markup=False, soft_wrap=True)
