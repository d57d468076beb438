"""A slot as its rank sees it: blocks that are asked for ahead of their use, made by the slot's own process."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingot.data.live.layouts import cell_type
from ingot.data.live.plan import LivePlan
from ingot.data.live.worker import Answer, serve
from ingot.data.workers import start
from ingot.errors import UserError

SLOT, READY = "slot", "ready"  # keys of a feed's state: that of its process, and the blocks that came from it unused


class Feed:
    """The blocks of slot `number` of `slots`, in order, from where `state` was taken or from the first on.

    Not for several threads at once. Its process ends when it is closed, or with this process.
    """

    def __init__(self, plan: LivePlan, number: int, slots: int, state: dict[str, Any] | None = None):
        self._cells = cell_type(plan.tokenizer.dtype)
        self._ready: deque[NDArray[np.void]] = deque()
        if state:
            self._ready.extend(state[READY].view(self._cells).reshape(-1, plan.length))
        self._length = plan.length
        self._asked: deque[int] = deque()  # blocks of each request that is not answered yet
        self._said: list[str] = []
        self._error: UserError | None = None
        self._worker = start(serve, plan, number, slots, state[SLOT] if state else ())

    @property
    def ahead(self) -> int:
        """Blocks that are here or asked for."""
        return len(self._ready) + sum(self._asked)

    def ask(self, sets: Sequence[int]) -> None:
        """Have the next blocks made, one of each of `sets`; does not wait."""
        if sets and not self._error:
            self._send(list(sets))
            self._asked.append(len(sets))

    def wait(self, count: int) -> None:
        """Wait until `count` blocks are here. Raises UserError where one can't be made: all before it can be taken."""
        while len(self._ready) < count:
            if not self._asked:
                assert self._error, "more blocks are waited for than were asked for"
                raise self._error
            self._receive()

    def take(self) -> NDArray[np.void]:
        """The next block, which is here."""
        return self._ready.popleft()

    def said(self) -> Iterator[str]:
        """What the process has had to say since this was last asked."""
        while self._said:
            yield self._said.pop(0)

    def state(self) -> dict[str, Any]:
        """What a feed needs that is to give the blocks not taken yet."""
        while self._asked:
            self._receive()
        self._send(None)
        answer = self._answer()
        if answer.state is None:  # it could not even begin
            raise answer.error or AssertionError("a state was asked for")
        ready = np.stack(self._ready) if self._ready else np.zeros((0, self._length), self._cells)
        return {SLOT: answer.state, READY: ready.view(np.uint8).reshape(-1)}

    def close(self) -> None:
        """End the process."""
        self._worker.kill()

    def _send(self, request: list[int] | None) -> None:
        try:
            self._worker.pipe.send(request)
        except OSError:
            raise self._gone() from None

    def _receive(self) -> None:
        self._asked.popleft()
        answer = self._answer()
        self._ready.extend(answer.blocks)
        self._error = answer.error

    def _answer(self) -> Answer:
        try:
            answer: Answer = self._worker.pipe.recv()
        except (EOFError, OSError):
            raise self._gone() from None
        if answer.fault:
            raise RuntimeError(f"in the process that reads the text:\n{answer.fault}")
        self._said += answer.said
        return answer

    def _gone(self) -> UserError:
        code = self._worker.status()
        why = f"by signal {-code}; the machine may be short of memory" if code < 0 else f"with status {code}"
        mend = "the same command goes on from the last checkpoint"
        return UserError(f"a process that reads the text has ended {why}", where="data.live", mend=mend)
