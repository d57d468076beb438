"""Signals as wishes: the loop asks between two steps whether it should save or end."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterable, Iterator
from types import FrameType, TracebackType
from typing import Any, Self, TypeVar

from ingot.distributed import World
from ingot.errors import Stopped

T = TypeVar("T")


class Stop:
    """While entered, SIGINT and SIGTERM ask for the end, SIGUSR1 for a save; a second SIGINT interrupts at once.

    A wish is heard at once and counts for all ranks once they have agreed on it, which they do between two steps.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.asked = 0  # the signal that asked for the end, on any rank
        self.save_asked = False
        self._heard, self._save_heard = 0, False  # the same of this process
        self._at_once = False
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

    def agree(self, world: World) -> None:
        """Let what any rank has heard until now count on all of them; every rank calls this at the same place."""
        asked, save_asked = world.most(self._heard, self._save_heard)
        self.asked, self.save_asked = asked, bool(save_asked)

    def saved(self) -> None:
        """The wish for a save is fulfilled."""
        self.save_asked = self._save_heard = False

    def until_heard(self, items: Iterable[T], world: World) -> Iterator[T]:
        """`items`, the first of them in any case, until any rank hears that the end is asked for: as many on each."""
        for item in items:
            yield item
            if world.any(bool(self._heard)):
                return

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """While entered there is nothing that a save could keep: a wish for the end is granted by raising Stopped."""
        self._at_once = True
        try:
            if self._heard:
                raise Stopped
            yield
        finally:
            self._at_once = False

    def hand_on(self) -> None:
        """Let the signal that asked for the end do what it does to any program, now that all is saved.

        Raises Stopped where that is Python's KeyboardInterrupt.
        """
        if self.asked == signal.SIGINT and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            raise Stopped
        if self.asked:
            signal.raise_signal(self.asked)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == self._save_signal:
            self._save_heard = True
        elif self._heard and number == signal.SIGINT:
            raise KeyboardInterrupt
        elif not self._heard:
            self._heard = number
            if self._at_once:
                self.asked = number
                raise Stopped
            again = "; Ctrl-C again interrupts at once" if number == signal.SIGINT else ""
            with contextlib.suppress(RuntimeError):  # Python refuses to print where the signal interrupted a print
                self._say(f"stopping after this step, with a save{again}")
