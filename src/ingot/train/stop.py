"""Signals as wishes: the loop asks between two steps whether it should save or end."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self


class Stop:
    """While entered, SIGINT and SIGTERM ask for the end, SIGUSR1 for a save; a second SIGINT interrupts at once."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.asked = 0  # the signal that asked for the end
        self.save_asked = False
        self._say = say
        self._save_signal = getattr(signal, "SIGUSR1", None)  # Windows has none
        self._former: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in filter(None, (signal.SIGINT, signal.SIGTERM, self._save_signal)):
            self._former[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, former in self._former.items():
            signal.signal(number, former)

    def hand_on(self) -> None:
        """Let the signal that asked for the end do what it does to any program, now that all is saved."""
        if self.asked:
            signal.raise_signal(self.asked)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == self._save_signal:
            self.save_asked = True
        elif self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        else:
            self.asked = number
            self._say("stopping after this step, with a save; Ctrl-C again interrupts at once")
