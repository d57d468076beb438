"""Work beside the loop: one piece at a time, in a thread, with its outcome told to whoever waits for it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Background(Generic[T]):
    """At most one piece of work under way. Its thread ends with the process: what is half done must not matter."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._result: T | None = None
        self._error: BaseException | None = None

    def start(self, work: Callable[[], T]) -> None:
        """Begin `work`; what was begun before has to have been waited for."""
        assert self._thread is None
        self._thread = threading.Thread(target=self._do, args=(work,), name="saving", daemon=True)
        self._thread.start()

    @property
    def under_way(self) -> bool:
        """Whether work is still being done."""
        return self._thread is not None and self._thread.is_alive()

    def finish(self) -> None:
        """Stand still until nothing is under way; what came of it is kept for `wait`."""
        if self._thread:
            self._thread.join()

    def wait(self) -> T | None:
        """What the work gave, once; None where none was begun since. Raises what it raised."""
        self.finish()
        self._thread = None
        result, error = self._result, self._error
        self._result = self._error = None
        if error:
            raise error
        return result

    def _do(self, work: Callable[[], T]) -> None:
        try:
            self._result = work()
        except BaseException as error:
            self._error = error
