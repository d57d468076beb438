"""From a recipe to a trained model: opens the run's folder, assembles the parts, drives the loop."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

import torch

from ingot.checkpoint.state import load_state
from ingot.checkpoint.store import Checkpoint
from ingot.config.text import to_yaml
from ingot.dashboard.report import write_report
from ingot.data.loader import held_out_batches
from ingot.distributed import World
from ingot.engine.device import give_back_freed_memory, keep_freed_memory
from ingot.errors import Stopped, UserError
from ingot.estimate.looks import Looks
from ingot.evaluate.loss import held_out_loss
from ingot.files import write_atomically
from ingot.generate.generator import Generator
from ingot.generate.sampling import Sampling
from ingot.model.architecture import parameter_counts
from ingot.recipe.recipe import Recipe
from ingot.train.account import announce, begin_records, close, outlook, record_rollback, say_complete
from ingot.train.folder import begin, locked, nothing_left
from ingot.train.forecast import sized
from ingot.train.loop import Loop, State
from ingot.train.parts import Parts
from ingot.train.saving import Saving
from ingot.train.settle import compiles, measured_steps, planned_steps, wants_compiled
from ingot.train.tasks import Tasks
from ingot.train.timetable import Timetable, too_few

HELD_OUT_TOKENS = 4_096  # scored in one forward pass


def train(recipe: Recipe, *, fresh: bool = False) -> Path:
    """Train what `recipe` says, or go on with it where it stands; returns the run's folder.

    `fresh` moves a run of the same name aside first. While steps are made, SIGINT and SIGTERM save and end before they
    take effect. Started as several processes, by torchrun say, they train together: each calls this. Raises UserError.
    """
    world = World.join()
    keep_freed_memory(world.device)
    with world.together(), contextlib.ExitStack() as stack:
        if world.main:
            stack.enter_context(locked(recipe.folder))
            stack.enter_context(nothing_left(recipe.folder, fresh=fresh))
        Run(Parts(_begun(recipe, world), world)).run()
    return recipe.folder


def _begun(recipe: Recipe, world: World) -> Recipe:
    """The recipe of the run, as the main rank began it or goes on with it; the same on every rank."""
    values = begin(sized(recipe, world, print)).to_dict() if world.main else None
    begun = Recipe.model_validate(world.agreed(values))
    if world.any(not (begun.folder / "recipe.yaml").exists()):
        what = "not every machine sees this folder"
        raise UserError(what, where=str(begun.folder), mend="put `runs` and `cache` where all machines see them")
    return begun


class Run:
    """The parts of a run, and the one way in which they are driven."""

    def __init__(self, parts: Parts):
        self.parts = parts

    def run(self) -> None:
        """Train to the end of the timetable or until a signal asks to stop; leaves a report either way."""
        parts = self.parts
        announce(parts)
        parameters = parameter_counts(parts.arch)["total"]
        steps = planned_steps(parts.recipe, parts.state, epoch_tokens=parts.rows.epoch_tokens, parameters=parameters)
        if parts.found and steps is not None and self._is_complete(parts.found, steps):
            say_complete(parts)
            return
        if parts.state.step:
            parts.meter.say(f"going on from step {parts.state.step:,}")
        with parts.stop:
            timetable = self._settled(steps)
            complete = timetable is not None and self._drive(timetable)
        close(parts, complete, timetable)
        parts.stop.hand_on()

    def _settled(self, steps: int | None) -> Timetable | None:
        """What `_settle` gives; None where a signal ended it, which loses nothing."""
        try:
            with self.parts.stop.at_once():
                return self._settle(steps)
        except Stopped:
            return None

    def _drive(self, timetable: Timetable) -> bool:
        """Make the steps of `timetable` and score the end; whether all was done before a signal asked to stop."""
        parts = self.parts
        described = list(parts.rows.described(timetable))
        whole = begin_records(parts, described)
        for line in described:
            parts.meter.say(line)
        loader = parts.rows.loader(timetable)
        if parts.live and parts.found:
            loader.load_state(load_state(parts.found.path / "train")["data"])
        self.saving = Saving(parts, loader)
        looks = Looks.of(parts.recipe, parts.arch, timetable.steps, parts.cache.held_out.tokens)
        acts = self.saving, self.evaluate, self.sample, Tasks(parts).score, self.go_back, parts.rows.epoch_blocks
        loop = Loop(parts.recipe, timetable, looks, parts.engine, loader, parts.meter, *acts)
        try:
            parts.meter.look_ahead(lambda: outlook(parts, timetable.steps))
            with loader, self.saving, parts.meter.live(parts.recipe.name, parts.state.step, timetable.steps):
                return loop.run(parts.state, parts.stop, look_first=not whole) and self._finish()
        except UserError:
            if parts.world.main:
                write_report(parts.recipe.folder)
            parts.tracker.close()
            raise

    def _finish(self) -> bool:
        """Score the end of the run on all held-out text; whether that was done before a signal asked to stop."""
        parts = self.parts
        self.saving.wait()
        if not parts.cache.held_out.tokens:
            return True
        parts.stop.agree(parts.world)
        return not parts.stop.asked and self.evaluate(parts.state, True) is not None

    # --- what the loop calls ------------------------------------------------------------------------------------------

    def go_back(self, state: State, reason: str) -> bool:
        """Put the run back to its last good checkpoint, and past all that it read since; whether there is one."""
        parts = self.parts
        self.saving.wait()
        good = parts.go_back(state.updated_at)
        if not good:
            return False
        state.go_back_to(good, reason, parts.recipe.health)
        if parts.world.main:
            parts.checkpoints.drop_after(state.step)
        record_rollback(parts)
        return True

    def evaluate(self, state: State, whole: bool) -> float | None:
        """The loss on held-out text, all of it or as much as the recipe says; it is noted at the checkpoint.

        None where there is no such text, or where a signal broke off: the run that goes on measures anew.
        """
        parts = self.parts
        if not parts.cache.held_out.tokens:
            return None
        batches = held_out_batches(
            parts.cache.held_out,
            parts.arch.context,
            rows=max(1, HELD_OUT_TOKENS // parts.arch.context),
            max_tokens=None if whole else parts.recipe.evaluation.max_tokens,
            rank=parts.world.rank,
            size=parts.world.size,
        )
        parts.meter.doing(f"measuring on {'all' if whole else 'some'} held-out text")
        token_bytes = torch.from_numpy(parts.tokenizer.token_bytes())
        give_back_freed_memory(parts.world.device)
        result = held_out_loss(
            parts.engine.model, parts.stop.until_heard(batches, parts.world), token_bytes, parts.world
        )
        give_back_freed_memory(parts.world.device)
        parts.stop.agree(parts.world)
        if parts.stop.asked:
            return None
        parts.meter.validation(state, result, whole=whole)
        self.saving.wait()  # what was measured is noted at the checkpoint
        if parts.world.main:
            parts.checkpoints.amend(state.step, losses={"held_out" if whole else "validation": result.loss})
        return result.loss

    def sample(self, state: State) -> None:
        """Write what the model makes of the recipe's prompts into samples.jsonl; the main rank's work."""
        parts = self.parts
        settings, model = parts.recipe.samples, parts.engine.whole()
        if model is None or parts.samples is None:
            return
        sampling = Sampling(
            temperature=settings.temperature, max_new_tokens=settings.max_new_tokens, seed=parts.recipe.seed
        )
        parts.meter.doing("writing samples")
        prompts = [parts.prompt(text) for text in settings.prompts]
        made = Generator(model, parts.tokenizer, parts.ends).complete(prompts, [sampling] * len(prompts))
        for prompt, one in zip(settings.prompts, made, strict=True):
            answers = {"answers": True} if parts.chat else {}
            record = {"step": state.step, "tokens": state.tokens, "prompt": prompt, "text": one.text}
            parts.samples.log(record | answers)
        if made:
            asked = f"{settings.prompts[0]}{' → ' if parts.chat else ''}"
            parts.meter.say(f"step {state.step:>6,}  “{replace(made[0], prompt=asked).excerpt}”")

    def _is_complete(self, found: Checkpoint, steps: int) -> bool:
        """Whether nothing is left to do: the last step is saved, and scored on all held-out text."""
        parts = self.parts
        over = found.step >= steps or parts.state.learned_out(parts.recipe.early_stopping)
        return over and ("held_out" in found.manifest.losses or not parts.cache.held_out.tokens)

    def _settle(self, steps: int | None) -> Timetable:
        """Compile where that pays, measure the speed where the duration needs it, and keep to both ever after."""
        parts, recipe = self.parts, self.parts.recipe
        if steps is not None:
            recipe.schedule.check(steps)
        wanted = wants_compiled(recipe, parts.arch, steps, lambda: parts.peak, parts.world.device)
        compiled = parts.world.agreed(wanted) and compiles(
            parts.engine, recipe, parts.meter, again=bool(parts.state.step)
        )
        if steps is None:
            loader = parts.rows.loader(Timetable.one_step_each(recipe.stages))
            steps = parts.world.agreed(measured_steps(parts.engine, loader, recipe, parts.meter))
            recipe.schedule.check(steps)
        if few := too_few(recipe, steps):
            parts.meter.say(few)
        parts.recipe = recipe.with_training(
            settled=f"{steps} steps for {recipe.train.duration}",
            precision=parts.precision,
            compile="yes" if compiled else "no",
        )
        if parts.world.main:
            write_atomically(recipe.folder / "recipe.yaml", to_yaml(parts.recipe))
        return Timetable(steps, tuple(recipe.stages))
