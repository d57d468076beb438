"""The loop: verbs in the order in which they happen."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from ingot.data.loader import BlockLoader
from ingot.engine.engine import Engine
from ingot.errors import UserError
from ingot.hub import Unreachable
from ingot.recipe import EarlyStopping, Recipe
from ingot.rhythm import Every
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
    lowest: float = math.inf  # validation loss that counted as a gain
    lowest_at: int = 0  # step of that
    waited: int = 0  # validations without a gain since

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for the checkpoint."""
        return asdict(self)

    def hear(self, validation: float, settings: EarlyStopping) -> None:
        """Take note of a validation loss: a gain, or one more without."""
        if validation < self.lowest - settings.min_gain:
            self.lowest, self.lowest_at, self.waited = validation, self.step, 0
        else:
            self.waited += 1

    def learned_out(self, settings: EarlyStopping) -> bool:
        """Whether the patience with a run that no longer gains is used up."""
        return 0 < settings.patience <= self.waited


@dataclass
class Loop:
    """The parts that a run is made of, and the one way to drive them."""

    recipe: Recipe
    timetable: Timetable
    engine: Engine
    loader: BlockLoader
    meter: Meter
    save: Callable[[State], None]
    evaluate: Callable[[State, bool], float | None]  # on all held-out text, or as the recipe says; none: no result
    sample: Callable[[State], None]
    epoch_blocks: int  # of the data's order, in which every block comes once

    def run(self, state: State, stop: Stop, *, look_first: bool) -> bool:
        """Advance `state` to the end of the timetable, or until `stop` asks. True: the run is complete.

        `look_first`: a kill may have come between the save of `state` and what follows a save.
        """
        if state.step and look_first:
            self._look(state, stop)
        while not (stop.asked or self._is_over(state)):
            self._step_or_save(state)
            stop.agree(self.engine.world)
            if self._saves(state) or stop.asked or stop.save_asked:
                self.save(state)
                stop.saved()
            self._look(state, stop)
        if stop.asked and state.step:
            self.save(state)  # which changes nothing where this step was saved
        return self._is_over(state)

    def _is_over(self, state: State) -> bool:
        return state.step >= self.timetable.steps or state.learned_out(self.recipe.early_stopping)

    def _saves(self, state: State) -> bool:
        """Whether a save falls due: by its own rhythm, before an evaluation, and at the end."""
        rhythms = (self.recipe.train.save_every, self.recipe.evaluation.every)
        return state.step == self.timetable.steps or any(self._due(every, state) for every in rhythms)

    def _due(self, every: str, state: State) -> bool:
        before = state.blocks - self.timetable.stage(state.step - 1).batch_tokens // self.recipe.model.context
        epochs = (before // self.epoch_blocks, state.blocks // self.epoch_blocks)
        return Every.parse(every).due(state.step, self.timetable.steps, epochs)

    def _look(self, state: State, stop: Stop) -> None:
        """Show what the model can do by now, where that falls due; once the end is asked for, when the run goes on."""
        if not stop.asked and self._due(self.recipe.evaluation.every, state):
            loss = self.evaluate(state, False)
            if loss is not None:
                state.hear(loss, self.recipe.early_stopping)
        if not stop.asked and self._due(self.recipe.samples.every, state):
            self.sample(state)

    def _step_or_save(self, state: State) -> None:
        """The next step; where its rows can't be had from far away, all steps before it are saved."""
        try:
            self._step(state)
        except Unreachable:
            if state.step and self.engine.world.size == 1:  # others may wait in the middle of theirs
                self.save(state)
            raise

    def _step(self, state: State) -> None:
        began = time.perf_counter()
        stage = self.timetable.stage(state.step)
        done = (state.step + 0.5) / self.timetable.steps  # a step counts by its middle
        factor, candidates = self.recipe.schedule.factor(done, self.timetable.steps), self.recipe.loss.candidates(done)
        end = state.blocks + stage.batch_tokens // self.recipe.model.context
        batches = self.loader.take(state.blocks, end, stage.length)
        result = self.engine.step(batches, factor=factor, step=state.step, seed=self.recipe.seed, candidates=candidates)
        if result.uncompiled:
            self.meter.say(f"going on without compilation: {result.uncompiled}")
        loss, norm = result.loss.item(), result.gradient_norm.item()
        if not result.applied and not result.overflow:
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
