"""Saving a run while it goes on: a copy of its state is taken at a step, and written beside the steps that follow."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
import torch

import ingot
from ingot.checkpoint.background import Background
from ingot.checkpoint.state import copied, save_rows, save_state, size_of, tensors_file
from ingot.checkpoint.store import MODEL, Checkpoint
from ingot.checkpoint.store import Parts as Writers
from ingot.data.loader import BlockLoader
from ingot.distributed import neighbours
from ingot.errors import UserError
from ingot.model.huggingface import share_out, stored, weights_file, write_config, write_index, write_weights
from ingot.train.loop import State
from ingot.train.parts import Parts

ROOM = 1.25  # of the state's size in free host memory, for a copy of it to be taken


class Saving:
    """The checkpoints of a run as it makes them, at most one at a time. Every rank calls each method, or none does.

    Each rank copies and writes what it holds itself: its rows of the optimizer's state, and some of the weights. While
    entered nothing is lost but by a kill: the end, an error and the next save wait for the one under way.
    """

    def __init__(self, parts: Parts, loader: BlockLoader):
        self._parts, self._loader = parts, loader
        self._world = parts.world.apart()
        self._background = Background[tuple[Checkpoint, float]]()
        self._stood = 0.0  # seconds for which the loop stood still

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, KeyboardInterrupt):  # the second one: at once
            return
        try:
            self.wait()
        except UserError as failed:
            if error is None:
                raise
            self._parts.meter.say(str(failed))

    def save(self, state: State) -> None:
        """Copy the run as it stands at `state` and begin to write that. Raises UserError where the last save failed."""
        self.wait()
        began = time.perf_counter()
        self._parts.meter.doing("copying the state, to save it")
        writers, copy = self._writers(state)
        keep = not state.refused  # else the run may want to go back further than this one
        self._background.start(partial(self._write, writers, self._about(state), keep))
        if not copy:
            self._background.finish()
        self._stood = time.perf_counter() - began

    def look(self) -> None:
        """See whether a save has ended meanwhile. Raises UserError where it failed."""
        if not self._background.under_way:
            self.wait()

    def wait(self) -> None:
        """Until nothing is under way. Raises UserError where the save failed: what was saved before is whole."""
        if saved := self._background.wait():
            checkpoint, seconds = saved
            at = {"step": self._parts.state.step, "saved": checkpoint.step}
            self._parts.tracker.log({"kind": "save", **at, "stood_still": self._stood, "writing": seconds})
            self._parts.tracker.keep(checkpoint.step, checkpoint.model)

    # --- what is copied -----------------------------------------------------------------------------------------------

    def _writers(self, state: State) -> tuple[Writers, bool]:
        """What writes this rank's parts, from a copy; False where there is no room for one, and the loop must wait."""
        main, rank, size = self._world.main, self._world.rank, self._world.size
        engine: dict[str, Any] = self._parts.engine.state()
        room = psutil.virtual_memory().available / neighbours() > ROOM * size_of(engine)
        data = self._loader.state(self._parts.world.collected)
        training = {"engine": copied(engine, main=main) if room else engine}
        training |= {"state": state.to_dict(), "data": copied(data)} if main else {}
        writers = self._model_writers()
        if main:
            writers["train"] = partial(save_state, state=training, size=size)
        else:
            writers[f"train/{tensors_file(rank)}"] = partial(save_rows, state=training)
        return writers, room

    def _model_writers(self) -> dict[str, Callable[[Path], None]]:
        """Those of the model's folder: each tensor is gathered, and copied by the rank that writes it."""
        engine, rank = self._parts.engine, self._world.rank
        files = share_out(engine.model, self._world.size)
        mine = set(files[rank]) if rank < len(files) else set()
        weights, size, dtype = {}, 0, torch.float32
        for name, value in stored(engine.model, engine.parameter):
            size, dtype = size + value.nbytes, value.dtype
            if name in mine:
                weights[name] = value.cpu()
        writers: dict[str, Callable[[Path], None]] = {}
        if self._world.main:
            writers[MODEL] = partial(self._write_model, files, size, dtype)
        if weights:
            writers[f"{MODEL}/{weights_file(rank, len(files))}"] = partial(write_weights, weights)
        return writers

    def _about(self, state: State) -> dict[str, Any]:
        """What the manifest says."""
        parts = self._parts
        return {
            "step": state.step,
            "tokens": state.tokens,
            "losses": {"train": state.loss} if math.isfinite(state.loss) else {},
            "recipe": parts.recipe.to_dict(),
            "code": ingot.__version__,
            "parent": parts.parent(),
            "lineage": {
                "data": parts.cache.fingerprint,
                "sources": parts.cache.sources,
                "tokenizer": parts.tokenizer.fingerprint,
            },
        }

    # --- what the thread does -----------------------------------------------------------------------------------------

    def _write(self, writers: Writers, about: dict[str, Any], keep: bool) -> tuple[Checkpoint, float]:
        """Write and show the checkpoint, then remove those that are no longer kept; how many seconds it took."""
        began = time.perf_counter()
        checkpoint = self._parts.checkpoints.save(writers, world=self._world, **about)
        if keep and self._world.main:
            self._parts.checkpoints.keep(self._parts.recipe.train.keep)
        return checkpoint, time.perf_counter() - began

    def _write_model(self, files: list[list[str]], size: int, dtype: torch.dtype, folder: Path) -> None:
        """All of the model's folder but the weights."""
        parts = self._parts
        write_config(parts.arch, folder, dtype=dtype, end=parts.tokenizer.end, stops=parts.ends)
        if len(files) > 1:
            write_index(folder, files, size)
        parts.tokenizer.save(folder)
