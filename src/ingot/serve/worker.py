"""The thread that writes the answers of one model: it steps a batch whose slots fill from a bounded queue."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from ingot.errors import UserError
from ingot.generate.batch import Batch
from ingot.generate.sampling import Sampling
from ingot.generate.token import Token
from ingot.serve.faults import ApiError
from ingot.serve.limits import Limits
from ingot.serve.metrics import Meter

log = logging.getLogger(__name__)

LONGEST_PAUSE = 60  # seconds that a client is told to wait at most
MEMORY = 0.9  # weight of the past in the running mean of how long an answer takes


class OutOfTime(Exception):
    """The answer took as long as one may; what was written so far stands."""


Event = Token | ApiError | OutOfTime


@dataclass(eq=False)
class Job:
    """One text to write. `index` is its place in the request; `take` is called with its events, in their order."""

    index: int
    prompt: Sequence[int]
    sampling: Sampling
    take: Callable[[Job, Event], None]
    deadline: float
    """by `time.monotonic`, in seconds"""
    came: float = field(default_factory=time.monotonic)
    first: float = 0.0
    """when its first token was made; 0: not yet"""
    tokens: int = 0


class Worker:
    """One model's queue and slots. Its public methods may be called from any thread."""

    def __init__(self, name: str, batch: Batch, limits: Limits, meter: Meter):
        self.failure: BaseException | None = None
        self._batch, self._limits, self._meter = batch, limits, meter
        self._changed = threading.Condition()  # guards all that follows, the batch apart, which is the thread's own
        self._waiting: deque[Job] = deque()
        self._open: dict[int, Job] = {}
        self._withdrawn: set[Job] = set()
        self._busy = 0  # jobs that have left the queue and not ended
        self._closed = False
        self._seconds = 1.0  # running mean of a job's time in its slot
        self._post: Callable[[Callable[[], None]], None] = lambda call: call()
        self._thread = threading.Thread(target=self._run, name=f"ingot-{name}", daemon=True)

    @property
    def waiting(self) -> int:
        """Jobs in the queue."""
        return len(self._waiting)

    @property
    def busy(self) -> int:
        """Jobs in slots."""
        return self._busy

    @property
    def capacity(self) -> int:
        """Jobs that it takes at once at most."""
        return self._limits.slots + self._limits.queue

    def start(self, post: Callable[[Callable[[], None]], None]) -> None:
        """Begin; `post` brings a call to the thread in which jobs take their events."""
        self._post = post
        self._thread.start()

    def submit(self, jobs: Sequence[Job]) -> None:
        """Put all `jobs` into the queue, or none: ApiError where they find no room (429) or nobody works (503)."""
        with self._changed:
            if self.failure:
                raise broken(self.failure)
            if self._closed:
                raise stopping()
            if len(self._waiting) + self._busy + len(jobs) > self.capacity:
                what = f"{self._busy} answers are being written and {len(self._waiting)} wait; come again later"
                raise ApiError(429, what, code="queue_full", retry_after=self._pause())
            self._waiting.extend(jobs)
            self._changed.notify()

    def withdraw(self, jobs: Iterable[Job]) -> None:
        """Nobody waits for these any more: they leave the queue, or their slots, at once. Ended ones: nothing."""
        with self._changed:
            for job in jobs:
                if job in self._waiting:
                    self._waiting.remove(job)
                else:
                    self._withdrawn.add(job)
            self._changed.notify()

    def close(self) -> None:
        """End the thread; whoever still waits is told that the server stops."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()

    def _pause(self) -> int:
        """Whole seconds until the queue will have moved on by about a slot's worth of answers."""
        return min(LONGEST_PAUSE, max(1, math.ceil(self._seconds * (1 + len(self._waiting)) / self._limits.slots)))

    def _run(self) -> None:
        try:
            while self._turn():
                pass
            self._end_all(stopping())
        except BaseException as error:  # whatever it was: nobody may wait for an answer that can't come
            log.exception("the thread of a model has failed; its requests are refused from now on")
            self.failure = error
            self._end_all(broken(error))

    def _turn(self) -> bool:
        """Clear away, start what has room, take one step and hand over its tokens. False: it is time to end."""
        with self._changed:
            while not (self._closed or self._waiting or self._open or self._withdrawn):
                self._changed.wait()
            if self._closed:
                return False
            self._clear_withdrawn()
            events = self._overdue()
            starting = [self._waiting.popleft() for _ in range(min(self._batch.free, len(self._waiting)))]
            self._busy += len(starting)
        events += [event for job in starting for event in self._start(job)]
        if self._open:
            events += [(self._note(token), token) for token in self._batch.step()]
        self._hand_over(events)
        return True

    def _clear_withdrawn(self) -> None:
        for number, job in list(self._open.items()):
            if job in self._withdrawn:
                self._batch.cancel(number)
                self._end(number)
        self._withdrawn.clear()

    def _overdue(self) -> list[tuple[Job, Event]]:
        """Take away whatever has had its time: from slots with what it has, from the queue empty-handed."""
        now = time.monotonic()
        events: list[tuple[Job, Event]] = []
        for number, job in list(self._open.items()):
            if job.deadline < now:
                self._batch.cancel(number)
                self._end(number)
                events.append((job, OutOfTime()))
        for job in [job for job in self._waiting if job.deadline < now]:
            self._waiting.remove(job)
            what = "no slot came free in the time that a request may take"
            events.append((job, ApiError(503, what, code="timeout", retry_after=self._pause())))
        return events

    def _start(self, job: Job) -> list[tuple[Job, Event]]:
        try:
            self._open[self._batch.add(job.prompt, job.sampling)] = job
        except UserError as error:
            self._busy -= 1
            return [(job, ApiError(400, str(error)))]
        return []

    def _note(self, token: Token) -> Job:
        job = self._open[token.request]
        job.tokens += 1
        if not job.first:
            job.first = time.monotonic()
            self._meter.first_token(job.first - job.came)
        if token.reason:
            self._end(token.request)
        return job

    def _end(self, number: int) -> None:
        job = self._open.pop(number)
        self._busy -= 1
        taken = time.monotonic() - (job.first or job.came)
        self._seconds = MEMORY * self._seconds + (1 - MEMORY) * taken
        self._meter.ended(len(job.prompt), job.tokens, taken)

    def _hand_over(self, events: Sequence[tuple[Job, Event]]) -> None:
        def take() -> None:
            for job, event in events:
                job.take(job, event)

        if events:
            self._post(take)

    def _end_all(self, error: ApiError) -> None:
        with self._changed:
            self._closed = True
            left = [*self._open.values(), *self._waiting]
            self._open.clear()
            self._waiting.clear()
            self._busy = 0
        self._hand_over([(job, error) for job in left])


def broken(cause: BaseException) -> ApiError:
    """What requests to a model are told whose thread has failed: the kind of failure, nothing of the machine."""
    return ApiError(500, f"the model has stopped working ({type(cause).__name__}); see the server's log")


def stopping() -> ApiError:
    """What requests are told while the server stops."""
    return ApiError(503, "the server is stopping", code="stopping", retry_after=1)
