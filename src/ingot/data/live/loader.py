"""The rows of one rank, streamed live: the same interface as `data.loader.Loader`, and a state beside the position.

B rows, T positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ingot.data.live.feed import READY, SLOT, Feed
from ingot.data.live.plan import SLOTS, LivePlan
from ingot.data.live.slot import Slot
from ingot.data.loader import Collect, TokenBatch, micro_batches
from ingot.data.mix import Mixture
from ingot.errors import UserError
from ingot.model.objective import IGNORED

Say = Callable[[str], None]


class LiveLoader:
    """The rows of one rank of `size`. Block i of the run is the next one of slot i modulo the slots, and of the set
    that the mixture gives to i; a rank has the slots that are its number modulo `size`.

    So the rows are a function of the plan and the number of slots, which the state of an earlier loader brings along;
    without one there are `SLOTS` a rank. `say` is told when a source is replaced.
    """

    def __init__(
        self,
        plan: LivePlan,
        mixture: Mixture | None = None,
        *,
        rank: int = 0,
        size: int = 1,
        micro_tokens: int | None = None,
        say: Say = lambda line: None,
    ):
        self._plan, self._mixture, self._say = plan, mixture or Mixture([[1]]), say
        self._rank, self._size, self._micro_tokens = rank, size, micro_tokens
        self._slots, self._next = SLOTS * size, 0  # the first block that is not taken yet
        self._state: Mapping[str, Any] = {}  # of the feeds, where they are not begun
        self._feeds: dict[int, Feed] = {}
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="live")
        self._ahead: Future[None] | None = None

    def read(self, first: int, end: int, length: int) -> list[TokenBatch]:
        """This rank's micro-batches of the blocks [first, end) of the run, in rows of `length` tokens.

        A pure function of its arguments, made here and now from the first block on: for a look at the head of a run.
        """
        slots = {number: Slot(self._plan, number, self._slots) for number in self._own_slots()}
        blocks: list[NDArray[np.void]] = []
        for block, place in self._own(0, end):
            slots[block % self._slots].draw([place], blocks.append)
        return self._batches(blocks[len(blocks) - len(list(self._own(first, end))) :], end - first, length)

    def take(self, first: int, end: int, length: int) -> list[TokenBatch]:
        """What `read` gives; blocks before `first` that were not taken are skipped. As many on are made meanwhile.

        Raises UserError where a source can't be read: the state is then still the one before.
        """
        if first < self._next:
            raise ValueError(f"block {first} was taken before; a state has to be loaded that was not past it")
        self._settle()
        self._make(end, end)
        blocks = [self._feeds[block % self._slots].take() for block, _ in self._own(self._next, end)]
        self._next = end
        step = end - first
        self._ahead = self._thread.submit(self._make, end + step, end + 2 * step)
        return self._batches(blocks[len(blocks) - len(list(self._own(first, end))) :], step, length)

    def state(self, collect: Collect = lambda own: [own]) -> dict[str, Any]:
        """What `load_state` of any rank needs to go on behind the blocks that were taken, on the main rank."""
        self._settle()
        if self._feeds:
            self._state = {str(number): _tensors(feed.state()) for number, feed in self._feeds.items()}
        states = collect({"blocks": self._next, "slots": self._slots, "feeds": dict(self._state)})
        return {key: value for state in states for key, value in state.items()} | {
            "feeds": {number: feed for state in states for number, feed in state["feeds"].items()}
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken. Raises UserError on a number of ranks that can't."""
        if state["slots"] % self._size:
            *some, most = (str(ranks) for ranks in range(1, state["slots"] + 1) if state["slots"] % ranks == 0)
            raise UserError(
                f"this run streams its text in {state['slots']} slots, which {self._size} ranks can't share evenly",
                where="data.live",
                mend=f"go on with {', '.join(some)} or {most}; a token cache, data.live=false, sets no such bounds",
            )
        self._settle()
        _close_all(self._feeds)
        self._next, self._slots, self._state = state["blocks"], state["slots"], state["feeds"]

    def close(self) -> None:
        """End the processes."""
        _close_all(self._feeds)  # first: the thread may wait for one of them
        self._thread.shutdown(cancel_futures=True)

    def __enter__(self) -> LiveLoader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _own_slots(self) -> range:
        return range(self._rank, self._slots, self._size)

    def _own(self, first: int, end: int) -> Iterator[tuple[int, int]]:
        """This rank's blocks of [first, end), each with its set."""
        blocks = np.arange(first + (self._rank - first) % self._size, end, self._size)
        yield from zip(blocks.tolist(), self._mixture.places(blocks)[0].tolist(), strict=True)

    def _settle(self) -> None:
        """Wait for what is done in the background; what went wrong there goes wrong again where it is needed."""
        if self._ahead:
            error, self._ahead = self._ahead.exception(), None
            if error and not isinstance(error, UserError):
                raise error

    def _make(self, needed: int, wanted: int) -> None:
        """Have the blocks up to `wanted` made, and wait for those up to `needed`."""
        if not self._feeds:
            self._begin()
        sets: dict[int, list[int]] = {number: [] for number in self._feeds}
        counts = dict.fromkeys(self._feeds, 0)
        for block, place in self._own(self._next, wanted):
            sets[block % self._slots].append(place)
            counts[block % self._slots] += block < needed
        for number, feed in self._feeds.items():
            feed.ask(sets[number][feed.ahead :])
        for number, feed in self._feeds.items():
            feed.wait(counts[number])

    def _begin(self) -> None:
        """Start the processes, all at once: each takes a second."""

        def begin(number: int) -> Feed:
            own = self._state.get(str(number))
            return Feed(self._plan, number, self._slots, own and _arrays(own))

        with ThreadPoolExecutor() as starters:
            self._feeds.update(zip(self._own_slots(), starters.map(begin, self._own_slots()), strict=True))

    def _batches(self, blocks: Sequence[NDArray[np.void]], step: int, length: int) -> list[TokenBatch]:
        """`blocks` as micro-batches, filled up to what the rank has that has most of a step's blocks."""
        for feed in self._feeds.values():
            for line in feed.said():
                self._say(line)
        most = -(-step // self._size)
        shape = (most, self._plan.length)
        inputs, targets, starts = np.zeros(shape, np.int64), np.full(shape, IGNORED), np.zeros(shape, bool)
        for row, block in enumerate(blocks):
            inputs[row], targets[row], starts[row] = block["input"], block["target"], block["start"]
            targets[row, ~block["loss"]] = IGNORED
        return micro_batches(inputs, targets, starts, length, self._micro_tokens)


def _close_all(feeds: dict[int, Feed]) -> None:
    while feeds:
        feeds.popitem()[1].close()


def _tensors(state: dict[str, Any]) -> dict[str, Any]:
    """A feed's state as a checkpoint can hold it."""
    return _converted(state, _tensor)


def _arrays(state: Mapping[str, Any]) -> dict[str, Any]:
    """A feed's state as `_tensors` had it."""
    return _converted(state, _array)


def _converted(state: Mapping[str, Any], convert: Callable[[Any], Any]) -> dict[str, Any]:
    lanes = [{key: convert(value) for key, value in lane.items()} for lane in state[SLOT]]
    return {SLOT: lanes, READY: convert(state[READY])}


def _tensor(value: Any) -> Any:
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


def _array(value: Any) -> Any:
    return value.numpy() if isinstance(value, torch.Tensor) else value
