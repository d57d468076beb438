"""What a run may meet: the loss of chosen blocks is no number, or leaps, as by a text or a machine; and a Ctrl-C."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import pytest

from ingot.data.live.loader import LiveLoader
from ingot.data.loader import BlockLoader, Loader
from ingot.engine.loss_model import LossModel
from ingot.train.loop import Loop

BLOCKS = 8  # of a step
NAN = float("nan")


class Faults:
    """Multiplies the loss of the steps that begin with the chosen blocks of the data's order by a factor."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.at: dict[int, float] = {}
        self.taken: list[int] = []
        forward = LossModel.forward
        for kind in (Loader, LiveLoader):
            monkeypatch.setattr(kind, "take", self._noting(kind.take))

        def faulty(model: LossModel, *inputs: Any) -> Any:
            total, rows = forward(model, *inputs)
            return (total * self.at.get(self.taken[-1], 1.0) if self.taken else total), rows

        monkeypatch.setattr(LossModel, "forward", faulty)

    def _noting(self, take: Callable[..., Any]) -> Callable[..., Any]:
        def taking(loader: BlockLoader, first: int, *rest: int) -> Any:
            self.taken.append(first)
            return take(loader, first, *rest)

        return taking

    def put(self, steps: Collection[int], factor: float = NAN) -> None:
        """Faults where those numbers of steps are, counted from 1 in the order of the data."""
        self.at |= {(step - 1) * BLOCKS: factor for step in steps}


def interrupted(monkeypatch: pytest.MonkeyPatch, after: int) -> list[int]:
    """Have the next run interrupted once, between the step `after` and its next; the steps that runs make from now."""
    step, seen = Loop._step, []

    def stopping(loop: Loop, state: Any) -> None:
        if state.step == after and seen.count(after) == 1:
            loop.saving.wait()  # a disk slower than the steps since would leave nothing to go on from
            raise KeyboardInterrupt
        step(loop, state)
        seen.append(state.step)

    monkeypatch.setattr(Loop, "_step", stopping)
    return seen
