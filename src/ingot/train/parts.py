"""What a run is made of, put together from its recipe and from its last checkpoint where there is one."""

from __future__ import annotations

import contextlib
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ingot.checkpoint.manifest import MANIFEST, Manifest
from ingot.checkpoint.state import load_state
from ingot.checkpoint.store import Checkpoint, Checkpoints
from ingot.data.build.report import lines
from ingot.data.cache import TokenCache
from ingot.data.document import Message
from ingot.data.prepare import prepare
from ingot.distributed import World
from ingot.engine.device import describe, matmul_peak
from ingot.engine.memory import recompute
from ingot.engine.precision import choose_precision
from ingot.engine.usage import Usage
from ingot.errors import UserError
from ingot.model.decoder import Decoder
from ingot.model.huggingface import load_tensors, read_weights
from ingot.recipe.recipe import Recipe
from ingot.tokenizer.tokenizer import Tokenizer
from ingot.track.tracker import JsonLines, Tracker
from ingot.train.fitting import fitted
from ingot.train.live import LiveRows, live_text
from ingot.train.loop import State
from ingot.train.meter import Meter
from ingot.train.rows import Rows
from ingot.train.start import begin_from, grown_shape
from ingot.train.stop import Stop

if TYPE_CHECKING:
    from ingot.tokenizer.chat import ChatTemplate


class Parts:
    """The parts of one run, in the order in which they come to be: records, checkpoint, text, model, engine, rows."""

    def __init__(self, recipe: Recipe, world: World):
        self.recipe, self.world, self.state = recipe, world, State()
        self.tracker = Tracker(recipe.folder, active=world.main)
        self.samples = JsonLines(recipe.folder / "samples.jsonl") if world.main else None
        self.meter = Meter(recipe.folder, self.tracker, active=world.main)
        self.stop = Stop(self.meter.say)
        for tracker in recipe.track:
            tracker.check()
        recipe.parallel.check()
        self.checkpoints = Checkpoints(recipe.folder)
        self.found = self._latest()
        self.origin = self._origin()
        self.live = live_text(recipe, self.origin, self.meter.say) if recipe.data.live else None
        self.tokenizer, self.cache = (self.live.tokenizer, self.live.cache) if self.live else self._data()
        self._check_text()
        self.chat = self._chat_template()
        self._check_prompts()
        self.arch = recipe.model.with_vocabulary(self.tokenizer.vocabulary)
        if recipe.start and self.origin:
            self.arch = grown_shape(recipe, self.origin, self.tokenizer)
        self.machine = describe(world.device)
        self.precision = choose_precision(recipe.train.precision, self.arch, world, self.meter.say)
        self.meter.measure_against(self.arch, lambda: self.peak, Usage(world.device).read)
        self.engine = recipe.parallel.build(
            self._model(self.found),
            recipe.optimizer,
            world,
            clip=recipe.train.clip,
            precision=self.precision,
            objective=recipe.loss,
        )
        past = self.found is not None
        self.recipe = recipe = fitted(self.engine, recipe, self.arch, self.precision, self.meter.say, past=past)
        self.rows = LiveRows(recipe, self.live, world, self.meter.say) if self.live else Rows(recipe, self.cache, world)
        if self.found:
            self.state = self._restored(self.found)

    @cached_property
    def peak(self) -> float:
        """The ceiling of a step here, in FLOP/s: measured when first asked for, which may be after the first step."""
        return matmul_peak(self.world.device, self.precision) * self.world.size

    def go_back(self, until: int) -> State | None:
        """Put weights and optimizer back to the last checkpoint until a step; the state there. None: there is none."""
        found = self._latest(until)
        if not found:
            return None
        self.engine.load_weights(dict(self._model(found).named_parameters()))
        return self._restored(found)

    def _latest(self, until: int | None = None) -> Checkpoint | None:
        """The checkpoint to go on from: the main rank verifies and chooses, and all take the same."""
        found = self.checkpoints.latest(until=until) if self.world.main else None
        for damaged in self.checkpoints.damaged:
            self.meter.say(f"left alone, because it is damaged: {damaged}")
        step = self.world.agreed(found.step if found else None)
        if self.world.main or step is None:
            return found
        folder = self.checkpoints.folder_of(step)
        return Checkpoint(folder, Manifest.read(folder))

    def _origin(self) -> Path | None:
        """The folder of the model that the run goes on with, or starts from; None for fresh weights."""
        if self.found:
            return self.found.model
        folder = self.recipe.start_folder() if self.world.main else None
        agreed = self.world.agreed(str(folder) if folder else None)
        return Path(agreed) if agreed else None

    def parent(self) -> str | None:
        """The checkpoint, or a model of elsewhere, that the run goes on with or started from."""
        if not self.origin:
            return None
        return str(self.origin.parent if (self.origin.parent / MANIFEST).exists() else self.origin)

    def _model(self, found: Checkpoint | None) -> Decoder:
        """The model as in `found`, or as the run begins with it; without memory on all ranks but the main."""
        draw = torch.Generator().manual_seed(self.recipe.seed)
        with contextlib.nullcontext() if self.world.main else torch.device("meta"):
            model = Decoder(self.arch, init=self.recipe.init, generator=draw)
        if self.world.main and found:
            load_tensors(model, read_weights(found.model), where=str(found.model))
        elif self.world.main and self.origin:
            begin_from(self.origin, model, self.recipe, self.meter.say)
        recompute(model, self.recipe.memory.checkpoint_every)
        return model

    def _data(self) -> tuple[Tokenizer, TokenCache]:
        """The tokenizer and tokens of the run: those that its checkpoint names where they are still there."""
        recipe, found = self.recipe, self.found
        if found:
            kept = recipe.cache / found.manifest.lineage["data"]
            if TokenCache.exists(kept):
                return Tokenizer.load(found.model), TokenCache.open(kept)
        data = recipe.data
        config = recipe.tokenizer_from(self.origin)
        tokenizer, cache = prepare(data.sources, data.held_out, config, recipe.cache, self.meter.say, clean=data.clean)
        for line in lines(cache.report):
            self.meter.say(line)
        return tokenizer, cache

    def _chat_template(self) -> ChatTemplate | None:
        """How conversations are spelt, where some are learned; it is saved with the model that learns them."""
        if not (self.cache.train.masked or self.cache.held_out.masked):
            return None
        from ingot.tokenizer.chat import ChatTemplate  # loads a template engine, which most runs can do without

        chat = ChatTemplate.of(self.tokenizer)
        settings = self.tokenizer.settings | {"chat_template": chat.source}
        self.tokenizer = Tokenizer(self.tokenizer.content, settings)
        return chat

    @property
    def ends(self) -> tuple[int, ...]:
        """The tokens that end what the model writes."""
        return self.chat.stops if self.chat else (self.tokenizer.end,)

    def prompt(self, text: str) -> list[int]:
        """The ids that a sample begins with: a text's begin, or a question to a model that learns conversations."""
        if self.chat:
            return self.chat.prompt([Message("user", text)])
        return [self.tokenizer.end, *self.tokenizer.encode(text)]

    def _check_text(self) -> None:
        """Refuse another text than that which the run was begun with."""
        if self.found and self.cache.fingerprint != self.found.manifest.lineage["data"]:
            gone = "" if self.live else ", and its token cache is gone"
            raise UserError(
                f"the text is not the one that this run was begun with{gone}",
                where=str(self.recipe.folder),
                mend="bring the text back, or begin again with --fresh",
            )
        if not self.cache.held_out.tokens:
            self.meter.say("nothing is held out, so nothing will be measured but the training loss")

    def _check_prompts(self) -> None:
        """Refuse a sample's prompt that the model can't read before the first step, not in the middle of the run."""
        for prompt in self.recipe.samples.prompts:
            tokens = len(self.prompt(prompt))
            if tokens > self.recipe.model.context:
                what = f"a prompt has {tokens} tokens, and the model's context is {self.recipe.model.context}"
                raise UserError(what, where="samples.prompts", mend="shorten it")

    def _restored(self, found: Checkpoint) -> State:
        """The state of the run in `found`, which the engine then has."""
        kept = load_state(found.path / "train")
        self.engine.load_state(kept["engine"])
        state = State(**kept["state"])
        losses = found.manifest.losses
        if "held_out" in losses and "validation" in losses:  # measured after the save, and not again
            state.hear(losses["validation"], self.recipe.early_stopping)
        return state
