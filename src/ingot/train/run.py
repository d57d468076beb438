"""From a recipe to a trained model: opens the run's folder, assembles the parts, drives the loop."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

import ingot
from ingot.checkpoint.state import load_state, save_state
from ingot.checkpoint.store import Checkpoint, Checkpoints
from ingot.config import to_yaml
from ingot.dashboard.report import write_report
from ingot.data.cache import TokenCache
from ingot.data.loader import Loader, held_out_batches
from ingot.data.order import Order
from ingot.data.prepare import prepare
from ingot.distributed import World
from ingot.engine.device import choose_precision, describe, keep_freed_memory, matmul_peak
from ingot.engine.native import Engine
from ingot.errors import UserError
from ingot.evaluate.loss import held_out_loss
from ingot.files import write_atomically
from ingot.generate.generator import Generator
from ingot.generate.sampling import Sampling
from ingot.model.architecture import parameter_counts
from ingot.model.decoder import Decoder
from ingot.model.huggingface import load_tensors, save_model
from ingot.recipe import Duration, Recipe
from ingot.tokenizer.tokenizer import Tokenizer
from ingot.track.tracker import JsonLines, Tracker
from ingot.train.folder import begin, locked, set_aside
from ingot.train.loop import Loop, State
from ingot.train.meter import Meter
from ingot.train.settle import seconds_per_step, shapes, wants_compiled
from ingot.train.stop import Stop
from ingot.train.timetable import Timetable, steps_for, steps_for_minutes

HELD_OUT_TOKENS = 4_096  # scored in one forward pass


def train(recipe: Recipe, *, fresh: bool = False) -> Path:
    """Train what `recipe` says, or go on with it where it stands; returns the run's folder.

    `fresh` moves a run of the same name aside first. While steps are made, SIGINT and SIGTERM save and end before they
    take effect. Raises UserError.
    """
    world = World.join()
    keep_freed_memory(world.device)
    with locked(recipe.folder):
        if fresh:
            set_aside(recipe.folder)
        Run(begin(recipe), world).run()
    return recipe.folder


class Run:
    """One run's parts, put together from its recipe and from its last checkpoint where there is one."""

    def __init__(self, recipe: Recipe, world: World):
        self.recipe, self.world, self.state = recipe, world, State()
        self.tracker = Tracker(recipe.folder)
        self.samples = JsonLines(recipe.folder / "samples.jsonl")
        self.meter = Meter(recipe.folder, self.tracker)
        self.checkpoints = Checkpoints(recipe.folder)
        self.found = self.checkpoints.latest()
        for damaged in self.checkpoints.damaged:
            self.meter.say(f"left alone, because it is damaged: {damaged}")
        self.tokenizer, self.cache = self._data()
        self._check_prompts()
        self.arch = recipe.model.with_vocabulary(self.tokenizer.vocabulary)
        self.precision = choose_precision(recipe.train.precision, world.device)
        self.peak = matmul_peak(world.device, self.precision)
        model = Decoder(self.arch, init=recipe.init, generator=torch.Generator().manual_seed(recipe.seed))
        self.engine = Engine(model, recipe.optimizer, world, clip=recipe.train.clip, precision=self.precision)
        order = Order(self.cache.train.tokens, self.arch.context, recipe.seed)
        self.loader = Loader(self.cache.train, order, micro_tokens=recipe.train.micro_tokens)
        if self.found:
            self._resume(self.found)

    def run(self) -> None:
        """Train to the end of the timetable or until a signal asks to stop; leaves a report either way."""
        self._announce()
        steps = self._steps()
        if self.found and steps is not None and self._is_complete(self.found, steps):
            self.meter.say("this run is complete; a longer train.duration goes on with it")
            self._say_what_next()
            return
        timetable = self._settle(steps)
        whole = self._begin_records()
        loop = Loop(self.recipe, timetable, self.engine, self.loader, self.meter, self.save, self.evaluate, self.sample)
        with (
            self.loader,
            self.meter.live(self.recipe.name, self.state.step, timetable.steps),
            Stop(self.meter.say) as stop,
        ):
            try:
                complete = loop.run(self.state, stop, look_first=not whole)
                if complete:
                    self.evaluate(self.state, True)
            except UserError:
                write_report(self.recipe.folder)
                raise
        self._close(complete, timetable)
        stop.hand_on()

    # --- what the loop calls ------------------------------------------------------------------------------------------

    def save(self, state: State) -> None:
        """Write the checkpoint of `state`."""
        self.checkpoints.save(
            {"model": self._write_model, "train": partial(save_state, state=self._training_state())},
            step=state.step,
            tokens=state.tokens,
            losses={"train": state.loss},
            recipe=self.recipe.to_dict(),
            code=ingot.__version__,
            parent=str(self.found.path) if self.found else None,
            lineage={"data": self.cache.fingerprint, "tokenizer": self.tokenizer.fingerprint},
        )
        self.checkpoints.keep(self.recipe.train.keep)

    def evaluate(self, state: State, whole: bool) -> None:
        """Measure on held-out text, all of it or as much as the recipe says, and note the result at the checkpoint."""
        if not self.cache.held_out.tokens:
            return
        batches = held_out_batches(
            self.cache.held_out,
            self.arch.context,
            rows=max(1, HELD_OUT_TOKENS // self.arch.context),
            max_tokens=None if whole else self.recipe.evaluation.max_tokens,
        )
        result = held_out_loss(self.engine.model, batches, torch.from_numpy(self.tokenizer.token_bytes()))
        self.meter.validation(state, result, whole=whole)
        self.checkpoints.amend(state.step, losses={"held_out" if whole else "validation": result.loss})

    def sample(self, state: State) -> None:
        """Write what the model makes of the recipe's prompts into samples.jsonl."""
        settings = self.recipe.samples
        sampling = Sampling(
            temperature=settings.temperature, max_new_tokens=settings.max_new_tokens, seed=self.recipe.seed
        )
        made = Generator(self.engine.model, self.tokenizer).generate(settings.prompts, sampling)
        for one in made:
            self.samples.log({"step": state.step, "tokens": state.tokens, "prompt": one.prompt, "text": one.text})
        if made:
            text = (made[0].prompt + made[0].text).replace("\n", " ")
            self.meter.say(f"step {state.step:>6,}  “{text}”")

    # --- assembling ---------------------------------------------------------------------------------------------------

    def _data(self) -> tuple[Tokenizer, TokenCache]:
        """The tokenizer and tokens of the run: those that its checkpoint names where they are still there."""
        recipe, found = self.recipe, self.found
        if found:
            kept = recipe.cache / found.manifest.lineage["data"]
            if TokenCache.exists(kept):
                return Tokenizer.load(found.model), TokenCache.open(kept)
        tokenizer, cache = prepare(
            recipe.data.sources, recipe.data.held_out, recipe.tokenizer, recipe.cache, self.meter.say
        )
        if found and cache.fingerprint != found.manifest.lineage["data"]:
            raise UserError(
                "the text is not the one that this run was begun with, and its token cache is gone",
                where=str(recipe.folder),
                mend="bring the text back, or begin again with --fresh",
            )
        if not cache.held_out.tokens:
            self.meter.say("nothing is held out, so nothing will be measured but the training loss")
        return tokenizer, cache

    def _check_prompts(self) -> None:
        """Refuse a sample's prompt that the model can't read before the first step, not in the middle of the run."""
        for prompt in self.recipe.samples.prompts:
            tokens = len(self.tokenizer.encode(prompt)) + 1  # the end token leads it
            if tokens > self.recipe.model.context:
                what = f"a prompt has {tokens} tokens, and the model's context is {self.recipe.model.context}"
                raise UserError(what, where="samples.prompts", mend="shorten it")

    def _resume(self, found: Checkpoint) -> None:
        state = load_state(found.path / "train")
        load_tensors(self.engine.model, load_file(found.model / "model.safetensors"))
        self.engine.load_state(state["engine"])
        self.state = State(**state["state"])

    def _steps(self) -> int | None:
        """The steps that the duration comes to; None for minutes on a machine whose speed is not known yet."""
        recipe, state = self.recipe, self.state
        duration = Duration.parse(recipe.train.duration)
        if recipe.train.steps:
            return recipe.train.steps
        if duration.unit == "minute" and state.step:
            return max(state.step, round(duration.amount * 60 * state.step / state.seconds))
        parameters = parameter_counts(self.arch)["total"]
        steps = steps_for(duration, recipe.stages, epoch_tokens=self.cache.train.tokens, parameters=parameters)
        if steps and steps < state.step:
            raise UserError(
                f"{recipe.train.duration} are {steps:,} steps, and this run has made {state.step:,} already",
                where=f"{recipe.folder}: train.duration",
                mend="give a longer one, or begin again with --fresh",
            )
        return steps

    def _is_complete(self, found: Checkpoint, steps: int) -> bool:
        """Whether nothing is left to do: the last step is saved, and scored on all held-out text."""
        return found.step >= steps and ("held_out" in found.manifest.losses or not self.cache.held_out.tokens)

    def _settle(self, steps: int | None) -> Timetable:
        """Compile where that pays, measure the speed where the duration needs it, and keep to both ever after."""
        recipe, stages = self.recipe, self.recipe.stages
        compiled = wants_compiled(recipe, self.arch, steps, self.peak, self.world.device) and self._compile()
        if steps is None:
            speeds = seconds_per_step(self.engine, self.loader, recipe)
            steps = steps_for_minutes(Duration.parse(recipe.train.duration).amount, stages, speeds)
        self.recipe = recipe.with_training(
            settled=f"{steps} steps for {recipe.train.duration}",
            precision=self.precision,
            compile="yes" if compiled else "no",
        )
        write_atomically(recipe.folder / "recipe.yaml", to_yaml(self.recipe))
        return Timetable(steps, tuple(stages))

    def _compile(self) -> bool:
        """Compile for every shape that a step will have. A compiler that fails costs one line, not the run."""
        self.meter.say("compiling the model (once per machine and shape; the time does not count as training)")
        problem = self.engine.compile(shapes(self.recipe))
        if problem:
            self.meter.say(f"going on without compilation: {problem}")
        return not problem

    # --- what is written and said -------------------------------------------------------------------------------------

    def _write_model(self, folder: Path) -> None:
        save_model(self.engine.model, folder, end=self.tokenizer.end)
        self.tokenizer.save(folder)

    def _training_state(self) -> dict[str, Any]:
        return {"state": self.state.to_dict(), "engine": self.engine.state()}

    def _announce(self) -> None:
        """Say what trains, on what, from where."""
        counts, machine, view = parameter_counts(self.arch), describe(self.world.device), self.cache.train
        self.meter.measure_against(self.arch, self.peak)
        setting = f"{machine.cores} threads, {self.precision}, matmul peak {self.peak / 1e9:,.0f} GFLOP/s"
        self.meter.say(
            f"{self.recipe.name}: {self.arch.family}, {counts['total']:,} parameters, on {machine.device} ({setting})"
        )
        self.meter.say(
            f"{view.tokens:,} tokens in {view.documents:,} documents; {self.cache.held_out.tokens:,} held out"
        )
        if self.state.step:
            self.meter.say(f"going on from step {self.state.step:,}")

    def _begin_records(self) -> bool:
        """Take back what was recorded after the checkpoint that the run goes on from, and record the start.

        Whether there was nothing to take back, because that checkpoint was the end of a whole run.
        """
        whole = self.found is not None and "held_out" in self.found.manifest.losses
        if not whole:
            self.tracker.truncate_after(self.state.step)
            self.samples.truncate_after(self.state.step)
        machine = describe(self.world.device)
        self.tracker.log(
            {
                "kind": "start",
                "step": self.state.step,
                "machine": machine.to_dict() | {"matmul_peak": self.peak},
                "precision": self.precision,
                "parameters": parameter_counts(self.arch),
                "code": ingot.__version__,
                "train_tokens": self.cache.train.tokens,
                "held_out_tokens": self.cache.held_out.tokens,
            }
        )
        return whole

    def _close(self, complete: bool, timetable: Timetable) -> None:
        """Say how it ended and how to go on."""
        state = self.state
        self.tracker.log({"kind": "end", "step": state.step, "complete": complete})
        self.tracker.close()
        self.samples.close()
        write_report(self.recipe.folder)
        if complete:
            minutes = f"{state.seconds / 60:.1f} minutes of training"
            self.meter.say(f"done: {state.step:,} steps, {state.tokens:,} tokens in {minutes}")
        elif state.step:
            self.meter.say(f"stopped and saved at step {state.step:,} of {timetable.steps:,}; the same command goes on")
        else:
            self.meter.say("stopped before the first step; the same command begins again")
        self._say_what_next()

    def _say_what_next(self) -> None:
        if self.state.step:
            prompt = next(iter(self.recipe.samples.prompts), "The")
            self.meter.say(f'try it:    ingot generate {self.recipe.name} "{prompt}"')
        self.meter.say(f"report:    {self.recipe.folder / 'report.html'}")
