"""A rehearsal: all that `ingot train` does but training, on a slice of the text and in a folder that is thrown away."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from ingot.data.cache import TokenCache
from ingot.data.prepare import prepare
from ingot.data.source import Source
from ingot.distributed import World, is_first
from ingot.engine.engine import Engine
from ingot.engine.parallel import Automatic
from ingot.engine.precision import choose_precision
from ingot.errors import UserError
from ingot.estimate.auto import choose, is_auto
from ingot.estimate.devices import Device
from ingot.estimate.here import this_device
from ingot.estimate.memory import largest, room, works
from ingot.estimate.text import vocabulary_of
from ingot.estimate.time import run_seconds, step_seconds
from ingot.model.architecture import Architecture, parameter_counts
from ingot.model.decoder import Decoder
from ingot.recipe.recipe import Recipe
from ingot.terminal import plain_console
from ingot.tokenizer.tokenizer import Tokenizer
from ingot.train.rows import Rows
from ingot.train.timetable import Timetable

SLICE = 400_000  # bytes of text of each source
PATIENCE = 5.0  # seconds for a hub that does not answer
LONGEST = 20.0  # seconds that a step of the whole model may promise to take; a small copy makes it otherwise
ROUNDS = 3  # steps that are timed, after one that warms up
COPY = {"layers": 2, "hidden_size": 64, "heads": 2, "kv_heads": 0, "head_size": 0, "mlp_size": 0}

Say = Callable[[str], None]


def dry_run(recipe: Recipe, *, longest: float = LONGEST) -> None:
    """Build the model without memory, open the sources, and make a step on a slice of the text. Raises UserError.

    The step is the recipe's own where that fits and takes no longer than `longest` seconds; else a small copy's.
    Nothing is left behind.
    """
    world = World.alone()
    say: Say = plain_console(quiet=not is_first()).print
    vocabulary = vocabulary_of(recipe)
    trial = recipe.model.with_vocabulary(vocabulary)
    device = this_device(world.device, choose_precision(recipe.train.precision, trial, world, say))
    if is_auto(recipe):
        choice = choose(recipe, vocabulary, device, precision=device.precision)
        recipe = choice.recipe
        say(choice.why)
    arch = recipe.model.with_vocabulary(vocabulary)
    with told(say):
        recipe.parallel.check()
    say(f"model: {_built_without_memory(arch):,} parameters, built without memory")
    with TemporaryDirectory(prefix="ingot-dry-run-") as folder:
        tokenizer, cache = _slice(recipe, Path(folder), say)
        _step(recipe, arch, tokenizer, cache, world, device, longest, say)
    say("dry run: all is well; nothing was kept")


@contextlib.contextmanager
def told(say: Say) -> Iterator[None]:
    """A user's mistake within the block is said, and does not end the rehearsal."""
    try:
        yield
    except UserError as error:
        say(str(error))


def _built_without_memory(arch: Architecture) -> int:
    """The parameters of the model as PyTorch counts them, which the plan's arithmetic must give as well."""
    with torch.device("meta"):
        counted = sum(parameter.numel() for parameter in Decoder(arch).parameters())
    planned = parameter_counts(arch)["total"]
    assert counted == planned, f"{counted} parameters are not the {planned} that were planned"
    return counted


def _slice(recipe: Recipe, folder: Path, say: Say) -> tuple[Tokenizer, TokenCache]:
    """Tokenizer and token cache of the beginning of each source."""
    sources = [_beginning(source) for source in recipe.data.sources]
    tokenizer = recipe.tokenizer_from(recipe.start_folder())
    if tokenizer.text_bytes:
        tokenizer = tokenizer.model_copy(update={"train_bytes": min(tokenizer.text_bytes, SLICE)})
    # What `prepare` advises on the size of the text would be about the slice.
    made, cache = prepare(sources, recipe.data.held_out, tokenizer, folder, clean=recipe.data.clean, workers=1)
    say(f"data: {cache.train.tokens:,} tokens in {cache.train.documents:,} documents of the slice")
    return made, cache


def _beginning(source: Source) -> Source:
    """The source up to a few documents; one on a hub that does not answer is not waited for."""
    limits: dict[str, object] = {"max_bytes": min(source.max_bytes or SLICE, SLICE)}
    if "patience" in type(source).model_fields:
        limits["patience"] = PATIENCE
    return source.model_copy(update=limits)


def _step(
    recipe: Recipe,
    arch: Architecture,
    tokenizer: Tokenizer,
    cache: TokenCache,
    world: World,
    device: Device,
    longest: float,
    say: Say,
) -> None:
    """A step on the slice, with what it took beside what was planned."""
    precision = device.precision
    planned = works(recipe, device, precision=precision, compiled=False)
    seconds = step_seconds(recipe, arch, device, planned, precision)
    need = largest(recipe, arch, planned)
    whole = need.total <= room(device) and max(seconds) * (ROUNDS + 1) <= longest
    if not whole:
        recipe, precision = _copied(recipe), "fp32"
    shape = recipe.model.model_copy(update={"vocabulary": max(arch.vocabulary if whole else 0, tokenizer.vocabulary)})
    engine = Automatic().build(  # one process has nothing to share out
        Decoder(shape, init=recipe.init), recipe.optimizer, world, clip=recipe.train.clip, precision=precision
    )
    took = _timed(engine, recipe, cache, ROUNDS if whole else 1)
    if not whole:
        say(f"step: made by a small copy of the model, {COPY['layers']} layers of {COPY['hidden_size']}")
        return
    say(f"step: {took[0]:.2g} seconds, planned as {seconds[0]:.2g}")
    if recipe.train.steps:
        say(f"run: {run_seconds(recipe, recipe.train.steps, took) / 3600:.2g} hours at this speed")


def _copied(recipe: Recipe) -> Recipe:
    """The recipe with a small model of the same kind, one row at a time."""
    small = Architecture.model_validate(recipe.model.to_dict() | COPY | {"vocabulary": 0})
    alone = recipe.model_copy(update={"model": small}).with_memory(micro_batch="auto")
    return alone.with_training(batch_tokens=small.context, stages=[])


def _timed(engine: Engine, recipe: Recipe, cache: TokenCache, rounds: int) -> list[float]:
    """Seconds of a step in each stage, the quickest of so many."""
    rows = Rows(recipe, cache, engine.world)
    quickest = []
    with rows.loader(Timetable.one_step_each(recipe.stages)) as loader:
        for stage in recipe.stages:
            batches = loader.read(0, stage.batch_tokens // recipe.model.context, stage.length)
            times = []
            for step in range(rounds + 1):
                began = time.perf_counter()
                engine.step(batches, factor=1.0, step=step, seed=recipe.seed).loss.item()
                times.append(time.perf_counter() - began)
            quickest.append(min(times[1:]))
    return quickest
