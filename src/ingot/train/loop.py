"""The loop: verbs in the order in which they happen."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from ingot.data.loader import Loader
from ingot.engine.native import Engine
from ingot.errors import UserError
from ingot.recipe import Every, Recipe
from ingot.train.meter import Meter
from ingot.train.stop import Stop
from ingot.train.timetable import Timetable


@dataclass
class State:
    """Where a run stands. With the weights and the optimizer's state, it is all that a resume needs."""

    step: int = 0  # updates done
    blocks: int = 0  # of the data's order, used up
    tokens: int = 0  # target tokens trained on
    seconds: float = 0.0  # spent in steps: no set-up, compilation, evaluation or saving
    loss: float = math.nan  # of the last step, in nats a token

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for the checkpoint."""
        return asdict(self)


@dataclass
class Loop:
    """The parts that a run is made of, and the one way to drive them."""

    recipe: Recipe
    timetable: Timetable
    engine: Engine
    loader: Loader
    meter: Meter
    save: Callable[[State], None]
    evaluate: Callable[[State, bool], None]  # second argument: on all of the held-out text
    sample: Callable[[State], None]

    def run(self, state: State, stop: Stop, *, look_first: bool) -> bool:
        """Advance `state` to the end of the timetable, or until `stop` asks. True: the run is complete.

        `look_first`: a kill may have come between the save of `state` and what follows a save.
        """
        steps = self.timetable.steps
        if state.step and look_first:
            self._look(state)
        while state.step < steps and not stop.asked:
            self._step(state)
            if self._saves(state) or stop.asked or stop.save_asked:
                self.save(state)
                stop.save_asked = False
            self._look(state)
        if stop.asked and state.step:
            self.save(state)  # which changes nothing where this step was saved
        return state.step == steps

    def _saves(self, state: State) -> bool:
        """Whether a save falls due: by its own rhythm, before an evaluation, and at the end."""
        rhythms = (self.recipe.train.save_every, self.recipe.evaluation.every)
        return state.step == self.timetable.steps or any(self._due(every, state) for every in rhythms)

    def _due(self, every: str, state: State) -> bool:
        return Every.parse(every).due(state.step, self.timetable.steps)

    def _look(self, state: State) -> None:
        """Show what the model can do by now, where that falls due."""
        if self._due(self.recipe.evaluation.every, state):
            self.evaluate(state, False)
        if self._due(self.recipe.samples.every, state):
            self.sample(state)

    def _step(self, state: State) -> None:
        began = time.perf_counter()
        stage = self.timetable.stage(state.step)
        done = (state.step + 0.5) / self.timetable.steps  # a step counts by its middle
        factor, candidates = self.recipe.schedule.factor(done), self.recipe.loss.candidates(done)
        end = state.blocks + stage.batch_tokens // self.recipe.model.context
        batches = self.loader.take(state.blocks, end, stage.length)
        result = self.engine.step(batches, factor=factor, step=state.step, seed=self.recipe.seed, candidates=candidates)
        loss, norm = result.loss.item(), result.gradient_norm.item()
        if not math.isfinite(loss + norm):
            raise UserError(
                f"the loss or its gradient stopped being a number at step {state.step + 1}; the update was not kept",
                where=str(self.recipe.folder),
                mend="begin again with half of optimizer.lr, under another name=…",
            )
        seconds = time.perf_counter() - began
        state.step += 1
        state.blocks = end
        state.tokens += result.targets
        state.seconds += seconds
        state.loss = loss
        self.meter.step(state, result, norm=norm, factor=factor, seconds=seconds, length=stage.length)
