"""One slot: the blocks that it draws from each set of sources, in an order that depends on nothing but its number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingot.data.build.spelling import Speller
from ingot.data.live.layouts import Blocks, cell_type
from ingot.data.live.plan import LivePlan
from ingot.data.live.reading import Reading, Say
from ingot.data.order import drawn


class Lane:
    """A slot's blocks of one set: each is drawn from the next few hundred, so that neighbours in a file part."""

    def __init__(self, plan: LivePlan, number: int, reading: Reading, seed: int, speller: Speller):
        self.number, self._reading, self._seed, self._speller = number, reading, seed, speller
        self._blocks, self._room = Blocks(plan), plan.room
        self._waiting: list[NDArray[np.void]] = []
        self._empty = np.zeros((0, plan.length), cell_type(plan.tokenizer.dtype))
        self._drawn = 0

    def draw(self) -> NDArray[np.void]:
        """The next block (length,) of `layouts.cell_type`. Raises UserError, and is then as it was."""
        while len(self._waiting) < self._room:
            made = self._blocks.put(self._speller.tokens(self._reading.batch()))
            self._waiting += [block.copy() for block in made]  # a part of an array would keep the whole
        place = drawn(self._seed, 0, self._drawn) % len(self._waiting)
        self._drawn += 1
        self._waiting[place], self._waiting[-1] = self._waiting[-1], self._waiting[place]
        return self._waiting.pop()

    def state(self) -> dict[str, Any]:
        """What `load_state` needs: where the reading stands, and what was read and not drawn yet."""
        waiting = np.concatenate([self._empty, *(block[None] for block in self._waiting)])
        return {
            "set": self.number,
            "drawn": self._drawn,
            "reading": self._reading.state(),
            "left": self._blocks.left.view(np.uint8),
            "waiting": waiting.view(np.uint8).reshape(-1),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""
        self._drawn = state["drawn"]
        self._reading.load_state(state["reading"])
        self._blocks.left = state["left"].view(self._blocks.left.dtype)
        waiting = state["waiting"].view(self._empty.dtype)
        self._waiting = list(waiting.reshape(-1, self._empty.shape[1]))


class Slot:
    """The lanes of one slot of `slots`."""

    def __init__(self, plan: LivePlan, number: int, slots: int, say: Say = lambda line: None):
        speller = Speller.of(plan.tokenizer, plan.encoder)
        readings = [Reading(plan, place, number, slots, speller, say) for place in range(len(plan.sets))]
        seeds = [drawn(plan.seed, 1 + place, number) for place in range(len(readings))]
        self._lanes = [
            Lane(plan, place, reading, seed, speller)
            for place, (reading, seed) in enumerate(zip(readings, seeds, strict=True))
        ]

    def draw(self, sets: Sequence[int], put: Callable[[NDArray[np.void]], None]) -> None:
        """`put` the next block of each of `sets`. Raises UserError for what can't be read; what was put counts."""
        for number in sets:
            put(self._lanes[number].draw())

    def state(self) -> list[dict[str, Any]]:
        """What `load_state` needs of each lane."""
        return [lane.state() for lane in self._lanes]

    def load_state(self, state: Sequence[dict[str, Any]]) -> None:
        """Go on where `state` was taken."""
        for lane, own in zip(self._lanes, state, strict=True):
            lane.load_state(own)
