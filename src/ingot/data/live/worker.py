"""The process of one slot: it answers requests one by one, and ends with its parent."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingot.data.live.plan import LivePlan
from ingot.data.live.slot import Slot
from ingot.errors import UserError


@dataclass
class Answer:
    """What a request brought: blocks, all of those asked for unless there is an error; or a state."""

    blocks: list[NDArray[np.void]] = field(default_factory=list)
    state: list[dict[str, Any]] | None = None
    said: list[str] = field(default_factory=list)
    error: UserError | None = None
    fault: str = ""  # the traceback of any other error


def serve(requests: Connection, plan: LivePlan, number: int, slots: int, state: Sequence[dict[str, Any]]) -> None:
    """Answer until the parent closes its end: a request is the sets to draw blocks from, or none for the state.

    After an error all further blocks are denied with the same one, and the state is the one before it.
    """
    said: list[str] = []
    slot: Slot | None = None
    error: UserError | None = None
    while True:
        try:
            sets = requests.recv()
        except EOFError:
            return
        answer = Answer()
        try:
            if slot is None:
                slot = Slot(plan, number, slots, said.append)
                if state:
                    slot.load_state(state)
            if sets is None:
                answer.state = slot.state()
            elif error is None:
                slot.draw(sets, answer.blocks.append)
        except UserError as found:
            error = found
        except Exception:
            answer.fault = traceback.format_exc()
        answer.said, answer.error = said[:], error
        said.clear()
        requests.send(answer)
