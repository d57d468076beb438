"""From a recipe to a trained model: opens the run's folder, assembles the parts, drives the loop."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Sequence
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
from ingot.data.loader import Loader, TokenBatch, held_out_batches
from ingot.data.order import Order
from ingot.data.prepare import prepare
from ingot.distributed import World
from ingot.engine.device import choose_precision, describe, has_compiler, keep_freed_memory, matmul_peak
from ingot.engine.native import Engine
from ingot.errors import UserError
from ingot.evaluate.loss import HeldOutLoss, held_out_loss
from ingot.files import write_atomically
from ingot.generate.generator import Generator
from ingot.generate.sampling import Sampling
from ingot.model.architecture import flops_per_token, parameter_counts
from ingot.model.decoder import Decoder
from ingot.model.huggingface import load_tensors, save_model
from ingot.recipe import Duration, Recipe, Stage
from ingot.tokenizer.tokenizer import Tokenizer
from ingot.track.tracker import JsonLines, Tracker
from ingot.train.folder import begin, locked, set_aside, with_training
from ingot.train.loop import Loop, State
from ingot.train.meter import Meter
from ingot.train.stop import Stop
from ingot.train.timetable import Timetable, mean_batch_tokens, steps_for, steps_for_minutes

HELD_OUT_TOKENS = 4_096  # scored in one forward pass
LONG_ENOUGH = 120.0  # seconds that a run must promise to last before compiling it pays
PROBE_SECONDS = 4.0  # that the speed of each stage is measured for, when the duration is in minutes
PROBE_STEPS = 3  # at least


def train(recipe: Recipe, *, fresh: bool = False) -> Path:
    """Train what `recipe` says, or go on with it where it stands; returns the run's folder.

    `fresh` moves a run of the same name aside first. SIGINT and SIGTERM save and end. Raises UserError.
    """
    world = World.join()
    keep_freed_memory(world.device)
    try:
        with locked(recipe.folder) if world.is_main else contextlib.nullcontext():
            if fresh and world.is_main:
                set_aside(recipe.folder)
            recipe = world.broadcast(begin(recipe) if world.is_main else None)
            with Stop() as stop:
                Run(recipe, world).run(stop)
            return recipe.folder
    finally:
        world.leave()


class Run:
    """One run's parts, put together from its recipe and from its last checkpoint where there is one."""

    def __init__(self, recipe: Recipe, world: World):
        self.recipe, self.world, self.state = recipe, world, State()
        self.tracker = Tracker(recipe.folder, active=world.is_main)
        self.meter = Meter(recipe.folder, self.tracker, loud=world.is_main)
        self.checkpoints = Checkpoints(recipe.folder)
        found = self.checkpoints.latest()
        self.tokenizer, self.cache = self._data(found)
        self.arch = recipe.model.with_vocabulary(self.tokenizer.vocabulary)
        self.precision = choose_precision(recipe.train.precision, world.device)
        self.peak = matmul_peak(world.device, self.precision)
        self.meter.measure_against(self.arch, self.peak)
        model = Decoder(self.arch, init=recipe.init, generator=torch.Generator().manual_seed(recipe.seed))
        self.engine = Engine(model, recipe.optimizer, world, clip=recipe.train.clip, precision=self.precision)
        order = Order(self.cache.train.tokens, self.arch.context, recipe.seed)
        self.loader = Loader(
            self.cache.train, order, rank=world.rank, size=world.size, micro_tokens=recipe.train.micro_tokens
        )
        self.found = found
        if found:
            self._resume(found)
        if world.is_main:
            self.samples = JsonLines(recipe.folder / "samples.jsonl")

    def run(self, stop: Stop) -> None:
        """Train to the end of the timetable or until `stop` asks; leaves a report either way."""
        with self.meter, self.loader:
            self._announce()
            timetable = self._settle()
            if self._is_complete(timetable):
                self.meter.say("this run is complete; a longer train.duration goes on with it")
                return
            self._begin_records()
            self.meter.begin(self.recipe.name, self.state.step, timetable.steps)
            loop = Loop(
                self.recipe, timetable, self.engine, self.loader, self.meter, self.save, self.evaluate, self.sample
            )
            complete = loop.run(self.state, stop)
            if complete:
                self.evaluate(self.state, whole=True)
        self._close(complete, timetable)

    def _is_complete(self, timetable: Timetable) -> bool:
        """Whether nothing is left to do: the last step is saved, and scored on all held-out text."""
        return bool(self.found and self.found.step >= timetable.steps and "held_out" in self.found.manifest.losses)

    def _begin_records(self) -> None:
        """Take back what was recorded after the checkpoint that the run goes on from, and record the start."""
        self.tracker.truncate_after(self.state.step)
        if self.world.is_main:
            self.samples.truncate_after(self.state.step)
        machine = describe(self.world.device)
        self.tracker.log(
            {"kind": "start", "step": self.state.step, "machine": machine.to_dict() | {"matmul_peak": self.peak}}
            | {
                "precision": self.precision,
                "parameters": parameter_counts(self.arch),
                "ranks": self.world.size,
                "code": ingot.__version__,
            }
            | {"train_tokens": self.cache.train.tokens, "held_out_tokens": self.cache.held_out.tokens}
        )

    def save(self, state: State) -> None:
        """Write the checkpoint of `state`."""
        if self.world.is_main:
            saved = self.checkpoints.save(
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
            self.tracker.log({"kind": "checkpoint", "step": state.step, "path": str(saved.path)})
        self.world.barrier()

    def _write_model(self, folder: Path) -> None:
        save_model(self.engine.model, folder, end=self.tokenizer.end)
        self.tokenizer.save(folder)

    def _training_state(self) -> dict[str, Any]:
        return {"state": self.state.to_dict(), "engine": self.engine.state()}

    def evaluate(self, state: State, whole: bool) -> HeldOutLoss:
        """Measure on held-out text, all of it or as much as the recipe says, and note the result at the checkpoint."""
        batches = held_out_batches(
            self.cache.held_out,
            self.arch.context,
            rows=max(1, HELD_OUT_TOKENS // self.arch.context),
            max_tokens=None if whole else self.recipe.evaluation.max_tokens,
            rank=self.world.rank,
            size=self.world.size,
        )
        result = held_out_loss(self.engine.model, batches, torch.from_numpy(self.tokenizer.token_bytes()), self.world)
        self.meter.validation(state, result, whole=whole)
        if self.world.is_main:
            self.checkpoints.amend(state.step, losses={"held_out" if whole else "validation": result.loss})
        return result

    def sample(self, state: State) -> None:
        """Write what the model makes of the recipe's prompts into samples.jsonl."""
        settings = self.recipe.samples
        if not settings.prompts or not self.world.is_main:
            return
        sampling = Sampling(
            temperature=settings.temperature, max_new_tokens=settings.max_new_tokens, seed=self.recipe.seed
        )
        made = Generator(self.engine.model, self.tokenizer).generate(settings.prompts, sampling)
        for prompt, generation in zip(settings.prompts, made, strict=True):
            self.samples.log({"step": state.step, "tokens": state.tokens, "prompt": prompt, "text": generation.text})
        text = (settings.prompts[0] + made[0].text).replace("\n", " ")
        self.meter.say(f"step {state.step:>6,}  “{text}”")

    def _data(self, found: Checkpoint | None) -> tuple[Tokenizer, TokenCache]:
        """The tokenizer and tokens of the run: those that its checkpoint names where they are still there."""
        if found:
            kept = self.recipe.cache / found.manifest.lineage["data"]
            if TokenCache.exists(kept):
                return Tokenizer.load(found.model), TokenCache.open(kept)
        recipe = self.recipe
        tokenizer, cache = prepare(
            recipe.data.sources, recipe.data.held_out, recipe.tokenizer, recipe.cache, self.meter.say
        )
        if found and cache.fingerprint != found.manifest.lineage["data"]:
            raise UserError(
                "the text is not the one that this run was begun with, and its token cache is gone",
                where=str(recipe.folder),
                mend="bring the text back, or begin again with --fresh",
            )
        return tokenizer, cache

    def _resume(self, found: Checkpoint) -> None:
        state = load_state(found.path / "train")
        load_tensors(self.engine.model, load_file(found.model / "model.safetensors"))
        self.engine.load_state(state["engine"])
        self.state = State(**state["state"])

    def _settle(self) -> Timetable:
        """Compile where that pays, settle the duration in steps, and write both into the run's recipe."""
        stages = tuple(self.recipe.stages)
        compiled = self._compile() if self._wants_compiled() else False
        steps = self.world.broadcast(self.recipe.train.steps or self._steps(stages))
        settled = {"steps": steps, "precision": self.precision, "compile": "yes" if compiled else "no"}
        self.recipe = with_training(self.recipe, settled)
        if self.world.is_main:
            write_atomically(self.recipe.folder / "recipe.yaml", to_yaml(self.recipe))
        return Timetable(steps, stages, self.arch.context)

    def _steps(self, stages: Sequence[Stage]) -> int:
        """The steps that the duration comes to; minutes are measured."""
        duration = Duration.parse(self.recipe.train.duration)
        if duration.unit == "minute":
            return steps_for_minutes(duration.amount, stages, [self._seconds_per_step(stage) for stage in stages])
        parameters = parameter_counts(self.arch)["total"]
        return steps_for(duration, stages, epoch_tokens=self.cache.train.tokens, parameters=parameters)

    def _wants_compiled(self) -> bool:
        """Whether to compile; by itself where a compiler is at hand and the whole run promises to last long enough."""
        asked = self.recipe.train.compile
        if asked != "auto":
            return asked == "yes"
        duration = Duration.parse(self.recipe.train.duration)
        if duration.unit == "minute":
            seconds = duration.amount * 60
        else:
            stages = self.recipe.stages
            tokens = self._steps(stages) * mean_batch_tokens(stages)
            seconds = tokens * flops_per_token(self.arch, self.arch.context) / (self.peak / 2) / self.world.size
        return seconds > LONG_ENOUGH and has_compiler(self.world.device)

    def _compile(self) -> bool:
        """Compile for every shape that a step will have. A compiler that fails costs one line, not the run."""
        self.meter.say("compiling the model (once per machine and shape; the time does not count as training)")
        problem = self.engine.compile([batch for stage in self.recipe.stages for batch in self._shapes(stage)])
        if problem:
            self.meter.say(f"going on without compilation: {problem}")
        return not problem

    def _shapes(self, stage: Stage) -> list[TokenBatch]:
        """Batches of a stage's shape: rows that are one document, and rows that are packed."""
        tokens = min(stage.batch_tokens // self.world.size, self.recipe.train.micro_tokens or stage.batch_tokens)
        zeros = torch.zeros(tokens // stage.length, stage.length, dtype=torch.long)
        positions = torch.arange(stage.length).expand_as(zeros).contiguous()
        return [TokenBatch(zeros, zeros, positions, packed, zeros.numel()) for packed in (False, True)]

    def _seconds_per_step(self, stage: Stage) -> float:
        """Measured on real rows of `stage` at a rate of 0, which leaves the weights as they are."""
        batches = self.loader.read(0, stage.batch_tokens // self.arch.context, stage.length)
        seconds: list[float] = []
        end = time.perf_counter() + PROBE_SECONDS
        while time.perf_counter() < end or len(seconds) < PROBE_STEPS:
            began = time.perf_counter()
            self.engine.step(batches, factor=0.0, step=0, seed=self.recipe.seed).loss.item()
            seconds.append(time.perf_counter() - began)
        self.engine.renew_optimizer()
        return statistics.median(seconds[1:])

    def _announce(self) -> None:
        """Say what trains, on what, from where."""
        counts, machine, view = parameter_counts(self.arch), describe(self.world.device), self.cache.train
        for damaged in self.checkpoints.damaged:
            self.meter.say(f"left alone, because it is damaged: {damaged}")
        setting = f"{self.world.size} × {machine.cores} threads, {self.precision}"
        self.meter.say(
            f"{self.recipe.name}: {self.arch.family}, {counts['total']:,} parameters, on {machine.device} "
            f"({setting}, matmul peak {self.peak / 1e9:,.0f} GFLOP/s)"
        )
        self.meter.say(
            f"{view.tokens:,} tokens in {view.documents:,} documents; {self.cache.held_out.tokens:,} held out"
        )
        if self.state.step:
            self.meter.say(f"going on from step {self.state.step:,}")

    def _close(self, complete: bool, timetable: Timetable) -> None:
        """Say how it ended and how to go on."""
        state, name = self.state, self.recipe.name
        self.tracker.log({"kind": "end", "step": state.step, "complete": complete})
        self.tracker.close()
        if not self.world.is_main:
            return
        self.samples.close()
        report = write_report(self.recipe.folder)
        if complete:
            self.meter.say(
                f"done: {state.step:,} steps, {state.tokens:,} tokens in {state.seconds / 60:.1f} minutes of training"
            )
            self.meter.say(f'try it:    ingot generate {name} "The"')
        else:
            self.meter.say(f"stopped and saved at step {state.step:,} of {timetable.steps:,}; the same command goes on")
        self.meter.say(f"report:    {report}")
