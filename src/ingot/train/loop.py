"""The loop: verbs in the order in which they happen."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from ingot.data.loader import BlockLoader
from ingot.engine.engine import Engine
from ingot.errors import UserError
from ingot.estimate.looks import Looks
from ingot.hub import Unreachable
from ingot.recipe.recipe import Recipe
from ingot.recipe.sections import EarlyStopping, Health, Stage
from ingot.rhythm import Every
from ingot.train.health import WINDOW, highest
from ingot.train.meter import Meter
from ingot.train.stop import Stop
from ingot.train.timetable import Timetable


@dataclass
class State:
    """Where a run stands. With the weights and the optimizer's state, it is all that a resume needs."""

    step: int = 0  # steps of the timetable made
    blocks: int = 0  # of the data's order, used up
    tokens: int = 0  # target tokens trained on
    seconds: float = 0.0  # spent in steps: no set-up, compilation, evaluation or saving
    loss: float = math.nan  # of the last step that was not left out, in nats a token
    lowest: float = math.inf  # validation loss that counted as a gain
    lowest_at: int = 0  # step of that
    waited: int = 0  # validations without a gain since
    losses: list[float] = field(default_factory=list)  # of the last updates, among which a spike stands out
    updated_at: int = 0  # step of the last update
    refused: int = 0  # updates left out since then, but for those whose loss scale was too large
    rate: float = 1.0  # factor on all rates of the schedule
    rollbacks: list[dict[str, Any]] = field(default_factory=list)  # from and to which step, why, past which blocks

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

    def learn(self, loss: float) -> None:
        """Take note of an update."""
        self.losses = [*self.losses[1 - WINDOW :], loss]
        self.updated_at, self.refused = self.step, 0

    def go_back_to(self, good: State, reason: str, settings: Health) -> None:
        """Become `good` but for the position in the data, which stays; so whatever was read since `good` is skipped.

        That is how PaLM was trained past its spikes (Chowdhery et al., 2022, arXiv:2204.02311, section 5.1). What its
        loss is on other text has yet to be seen, so no loss counts as a spike at first.
        """
        rollback = {"from": self.step, "to": good.step, "blocks": [good.blocks, self.blocks], "reason": reason}
        ahead = {"blocks": self.blocks, "rate": self.rate * settings.rate_factor}
        vars(self).update(vars(good) | ahead | {"rollbacks": [*self.rollbacks, rollback], "losses": [], "refused": 0})


class Saver(Protocol):
    """What keeps the states of a run while it goes on."""

    def save(self, state: State) -> None:
        """Begin to save `state`, once what is being saved is whole. Raises UserError where that failed."""

    def look(self) -> None:
        """Raises UserError where a save has failed meanwhile."""


@dataclass
class Loop:
    """The parts that a run is made of, and the one way to drive them."""

    recipe: Recipe
    timetable: Timetable
    looks: Looks
    engine: Engine
    loader: BlockLoader
    meter: Meter
    saving: Saver
    evaluate: Callable[[State, bool], float | None]  # on all held-out text, or as the recipe says; none: no result
    sample: Callable[[State], None]
    score_tasks: Callable[[State], None]  # those of the recipe, a slice of each
    go_back: Callable[[State, str], bool]  # to the last good checkpoint, for a reason; whether there is one
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
            self.saving.look()
            if self._saves(state) or stop.asked or stop.save_asked:
                self.saving.save(state)
                stop.saved()
            self._look(state, stop)
        return self._is_over(state)

    def _is_over(self, state: State) -> bool:
        return state.step >= self.timetable.steps or state.learned_out(self.recipe.early_stopping)

    def _saves(self, state: State) -> bool:
        """Whether a save falls due: by its own rhythm, before an evaluation, and at the end."""
        rhythms = (Every.parse(self.recipe.train.save_every), self.looks.evaluation)
        return state.step == self.timetable.steps or any(self._due(every, state) for every in rhythms)

    def _due(self, every: Every, state: State) -> bool:
        before = state.blocks - self.timetable.stage(state.step - 1).batch_tokens // self.recipe.model.context
        epochs = (before // self.epoch_blocks, state.blocks // self.epoch_blocks)
        return every.due(state.step, self.timetable.steps, epochs)

    def _look(self, state: State, stop: Stop) -> None:
        """Show what the model can do by now, where that falls due; once the end is asked for, when the run goes on."""
        if not stop.asked and self._due(self.looks.evaluation, state):
            loss = self.evaluate(state, False)
            if loss is not None:
                state.hear(loss, self.recipe.early_stopping)
        if not stop.asked and self._due(self.looks.samples, state):
            self.sample(state)
        if not stop.asked and self._due(self.looks.tasks, state):
            self.score_tasks(state)

    def _step_or_save(self, state: State) -> None:
        """The next step; where its rows can't be had from far away, all steps before it are saved."""
        try:
            self._step(state)
        except Unreachable:
            if state.step and self.engine.world.size == 1:  # others may wait in the middle of theirs
                self.saving.save(state)
            raise

    def _step(self, state: State) -> None:
        began = time.perf_counter()
        stage, candidates = way = self._way(state.step)
        if state.step and way != self._way(state.step - 1):
            state.losses = []  # of another kind: they say nothing about this one
        factor = self.recipe.schedule.factor(self._done(state.step), self.timetable.steps) * state.rate
        first, end = state.blocks, state.blocks + stage.batch_tokens // self.recipe.model.context
        result = self.engine.step(
            self.loader.take(first, end, stage.length),
            factor=factor,
            step=state.step,
            seed=self.recipe.seed,
            candidates=candidates,
            limit=highest(state.losses, self.recipe.health.spike),
        )
        if result.uncompiled:
            self.meter.say(f"going on without compilation: {result.uncompiled}")
        loss, norm = result.loss.item(), result.gradient_norm.item()
        seconds = time.perf_counter() - began
        state.step += 1
        state.blocks = end
        state.seconds += seconds
        if not result.targets:  # questions alone: there was nothing to learn, and no weight has changed
            return
        if not result.applied and not result.overflow:
            self._leave_out(state, loss, norm, first)
            return
        state.tokens += result.targets
        state.loss = loss
        if result.applied:
            state.learn(loss)
        self.meter.step(state, result, norm=norm, factor=factor, seconds=seconds, length=stage.length)

    def _done(self, step: int) -> float:
        """The share of the run at which the step after `step` done ones lies: it counts by its middle."""
        return (step + 0.5) / self.timetable.steps

    def _way(self, step: int) -> tuple[Stage, int]:
        """The stage of the step after `step` done ones, and the candidates by which its loss is taken."""
        return self.timetable.stage(step), self.recipe.loss.candidates(self._done(step))

    def _leave_out(self, state: State, loss: float, norm: float, first: int) -> None:
        """Account for a step whose update was not applied; after too many in a row the run goes back."""
        finite = math.isfinite(loss) and math.isfinite(norm)
        reason = f"the loss leapt to {loss:.3f}" if finite else "the loss or its gradient was no number"
        state.refused += 1
        self.meter.left_out(state, reason, loss=loss, norm=norm, first=first)
        if state.refused < self.recipe.health.patience:
            return
        used_up = len(state.rollbacks) >= self.recipe.health.rollbacks
        if used_up or not self.go_back(state, reason):
            tried = "going back did not help" if state.rollbacks else "there is no checkpoint to go back to"
            raise UserError(
                f"{reason} at step {state.step}, the last of {state.refused} updates left out in a row; {tried}",
                where=str(self.recipe.folder),
                mend="try health.rate_factor=0.5, or begin again with half of optimizer.lr, under another name=…",
            )
