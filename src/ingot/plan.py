"""The job behind `ingot plan`: what a recipe will need on a device, by arithmetic. It starts nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ingot.data.build.report import size
from ingot.errors import UserError
from ingot.estimate.auto import choose, is_auto
from ingot.estimate.beside import beside
from ingot.estimate.devices import Device, find_device
from ingot.estimate.memory import fitting, largest, most_rows, process, room, works
from ingot.estimate.scaling import SMALLEST_FITTED, SOURCE, best_tokens, expected_loss
from ingot.estimate.text import Text, text_of, vocabulary_of
from ingot.estimate.time import run_seconds, stage_flops, step_seconds
from ingot.model.architecture import Architecture, parameter_counts
from ingot.model.memory import WIDE, Footprint, Precision, Work, role_counts
from ingot.recipe import Recipe
from ingot.rhythm import Duration
from ingot.train.timetable import mean_batch_tokens, steps_for, steps_for_minutes

FEW_TOKENS = 5  # training tokens a parameter below which a smaller model would learn more in the same time
LARGE_VOCABULARY = 2 / 3  # of the parameters that are embedding and head
BUSY = 0.1  # share of the processors in other hands that is worth a word
RARE = 200  # training tokens for each of the vocabulary below which most of it is hardly ever seen
MANY_EPOCHS = 4  # after which reading the same text again gains little (Muennighoff et al., 2023, arXiv:2305.16264)


@dataclass(frozen=True)
class Plan:
    """What a recipe will need. Sizes are in bytes, times in seconds; none where nobody can tell yet."""

    recipe: Recipe
    arch: Architecture
    device: Device
    ranks: int
    precision: Precision
    footprint: Footprint
    works: tuple[Work, ...]
    most_rows: int
    text: Text
    steps: int | None
    step_seconds: tuple[float, ...]
    process: float
    """bytes of a whole process: the run's, and those of interpreter and libraries"""
    notes: tuple[str, ...] = ()

    @property
    def parameters(self) -> dict[str, int]:
        """By part and in `total`."""
        return parameter_counts(self.arch)

    @property
    def flops_per_token(self) -> float:
        """Of forward and backward pass, the mean over the run."""
        total, begin = 0.0, 0.0
        for stage in self.recipe.stages:
            total += stage.share * stage.batch_tokens * stage_flops(self.recipe, self.arch, stage, begin)
            begin += stage.share
        return total / mean_batch_tokens(self.recipe.stages)

    @property
    def tokens(self) -> float | None:
        """Tokens trained on, repeated ones counted each time."""
        return None if self.steps is None else self.steps * mean_batch_tokens(self.recipe.stages)

    @property
    def epochs(self) -> float | None:
        """How often the text is read."""
        return self.tokens / self.text.train if self.tokens and self.text.train else None

    @property
    def seconds(self) -> float | None:
        """Of training; `beside` and preparing the text come on top."""
        return None if self.steps is None else run_seconds(self.recipe, self.steps, list(self.step_seconds))

    @property
    def beside(self) -> dict[str, float]:
        """Seconds beside those of training, by what takes them."""
        if self.steps is None or self.seconds is None:
            return {}
        return beside(
            self.recipe,
            self.arch,
            self.device,
            self.precision,
            steps=self.steps,
            seconds=self.seconds,
            text=self.text,
            checkpoint=self.checkpoint,
        )

    @property
    def loss(self) -> float | None:
        """Nats a token that a scaling law expects."""
        if self.tokens is None:
            return None
        return expected_loss(self.parameters["total"], self.tokens, self.text.train or self.tokens)

    @property
    def checkpoint(self) -> float:
        """Bytes of one checkpoint."""
        counts = role_counts(self.arch)
        return WIDE * self.parameters["total"] + self.recipe.optimizer.state_bytes(counts)

    @property
    def checkpoints(self) -> int:
        """How many lie on the disk at once: the latest, the best, and the one being written."""
        return self.recipe.train.keep + 2

    @property
    def cache(self) -> float | None:
        """Bytes of the token cache; none, too, where the text is streamed."""
        if self.text.train is None or self.recipe.data.live:
            return None
        return (self.text.train + (self.text.held_out or 0)) * (2 if self.arch.vocabulary <= 2**16 else 4)

    @property
    def fits(self) -> bool:
        """Whether the device has the memory."""
        return self.footprint.total <= room(self.device)

    def cost(self, price: float) -> float | None:
        """What the run costs at `price` for an hour of one device."""
        if self.seconds is None:
            return None
        return (self.seconds + sum(self.beside.values())) / 3600 * self.ranks * price

    @property
    def warnings(self) -> Iterator[str]:
        """What is likely to be a mistake, each with its mend."""
        counts = self.parameters
        if not self.fits:
            mend = (
                f"memory.micro_batch={max(1, self.most_rows * self.works[0].length // self.arch.context)}"
                if self.most_rows
                else "a smaller model"
            )
            yield f"it does not fit into the memory of {self.device.name}; {mend} may"
        if self.tokens and self.tokens < FEW_TOKENS * counts["total"]:
            best = _number(best_tokens(counts["total"]))
            yield (
                f"{self.tokens / counts['total']:.2g} tokens a parameter are few, {best} would suit its size; "
                "a smaller model learns more in the same time"
            )
        if counts["embedding"] + counts["head"] > LARGE_VOCABULARY * counts["total"]:
            share = (counts["embedding"] + counts["head"]) / counts["total"]
            yield f"{share:.0%} of the parameters are the vocabulary's; a smaller tokenizer.vocabulary suits this model"
        if self.text.train and self.text.train < RARE * self.arch.vocabulary:
            yield f"{_number(self.text.train)} tokens of text are few for a vocabulary of {self.arch.vocabulary:,}"
        if self.epochs and self.epochs > MANY_EPOCHS:
            yield f"{self.epochs:.1f} epochs: after {MANY_EPOCHS}, the same text again teaches little"
        if (free := _free(self.recipe.runs)) < (self.cache or 0) + self.checkpoint * self.checkpoints:
            yield f"the disk has {size(free)} left, which is less than the run writes"


def plan(recipe: Recipe, *, device: str = "", devices: int = 1, price: float | None = None) -> Plan:
    """Work out what `recipe` needs on so many of `device` (by default the one at hand), and print it.

    `price` is that of an hour of one device, in any currency. Raises UserError.
    """
    console = Console(highlight=False, markup=False, soft_wrap=True)
    made = make_plan(recipe, find_device(device) if device else at_hand(recipe, console.print), devices)
    _show(made, price, console)
    return made


def make_plan(recipe: Recipe, device: Device, ranks: int = 1) -> Plan:
    """What `recipe` needs on `ranks` of `device`. Raises UserError."""
    notes: list[str] = []
    precision = _precision(recipe, device)
    vocabulary = vocabulary_of(recipe)
    if is_auto(recipe):
        choice = choose(recipe, vocabulary, device, precision=precision, ranks=ranks)
        recipe = choice.recipe
        notes.append(choice.why)
    arch = recipe.model.with_vocabulary(vocabulary)
    compiled = recipe.train.compile == "yes"

    def planned(blocks: int | None) -> list[Work]:
        return works(recipe, device, precision=precision, compiled=compiled, ranks=ranks, blocks=blocks)

    made = planned(fitting(recipe, arch, planned, room(device), ranks) or None)
    text = text_of(recipe, vocabulary, notes.append)
    seconds = step_seconds(recipe, arch, device, made, precision, ranks)
    return Plan(
        recipe=recipe,
        arch=arch,
        device=device,
        ranks=ranks,
        precision=precision,
        footprint=largest(recipe, arch, made),
        works=tuple(made),
        most_rows=most_rows(recipe, arch, made[0], room(device)),
        text=text,
        steps=_steps(recipe, arch, text, seconds),
        step_seconds=tuple(seconds),
        process=process(recipe, arch, made, device.kind),
        notes=tuple(notes),
    )


def at_hand(recipe: Recipe, say: Callable[[str], None]) -> Device:
    """The device that training would take here, in the number format that it would take, its peak measured."""
    from ingot.distributed import World
    from ingot.engine.precision import choose_precision
    from ingot.estimate.here import this_device

    world, arch = World.alone(), recipe.model.with_vocabulary(vocabulary_of(recipe))
    return this_device(world.device, choose_precision(recipe.train.precision, arch, world, say))


def _precision(recipe: Recipe, device: Device) -> Precision:
    asked = recipe.train.precision
    if asked == "auto":
        return device.precision
    if asked not in device.peaks:
        raise UserError(
            f"{device.name} does not multiply in {asked}",
            where="recipe: train.precision",
            mend=f"train.precision={device.precision} suits it",
        )
    return asked


def _steps(recipe: Recipe, arch: Architecture, text: Text, seconds: list[float]) -> int | None:
    duration = Duration.parse(recipe.train.duration)
    if recipe.train.steps:
        return recipe.train.steps
    if duration.unit == "minute":
        return steps_for_minutes(duration.amount, recipe.stages, seconds)
    if duration.unit == "epoch" and not text.train:
        return None
    parameters = parameter_counts(arch)["total"]
    return steps_for(duration, recipe.stages, epoch_tokens=int(text.train or 0), parameters=parameters)


def _show(made: Plan, price: float | None, console: Console) -> None:
    rows = list(_rows(made, price))
    if console.is_terminal:
        table = Table.grid(padding=(0, 2))
        for row in rows:
            table.add_row(*row)
        console.print(table)
    else:  # a thing a line, for grep
        width = max(len(name) for name, _ in rows)
        for name, line in rows:
            console.print(f"{name:{width}}  {line}")
    for line in (*made.notes, *(f"warning: {warning}" for warning in made.warnings)):
        console.print(line)


def _rows(made: Plan, price: float | None) -> Iterator[tuple[str, str]]:
    """Names and lines, in the order in which one asks."""
    device, counts, parts = made.device, made.parameters, made.footprint.parts
    source = "measured here" if device.measured else "as its data sheet has it"
    if device.busy > BUSY:
        source += f" while others had {device.busy:.0%} of the processors: a calm machine is faster"
    peak = f"{device.peaks[made.precision] / 1e12:.3g} TFLOP/s {source}"
    yield made.recipe.name, f"on {made.ranks} × {device.name}, {device.memory / 1e9:.0f} GB, {made.precision}, {peak}"
    by_part = ", ".join(f"{name} {_number(count)}" for name, count in counts.items() if count and name != "total")
    yield "parameters", f"{counts['total']:,}: {by_part}"
    flops = made.flops_per_token
    yield "FLOPs", f"{flops / 1e9:.3g} G a token" + (f", {flops * made.tokens:.2e} in all" if made.tokens else "")
    libraries = "Python and PyTorch" if device.kind == "cpu" else "CUDA and libraries"
    parts = {libraries: made.process - made.footprint.total, **parts}
    held = ", ".join(f"{name} {size(part)}" for name, part in parts.items() if part >= 5e5)
    yield "memory", f"{size(made.process)} of {size(device.memory)}, the most in {made.footprint.moment}: {held}"
    work = made.works[0]
    fitting = f"{made.most_rows:,} fit" if made.most_rows else "not one fits"
    yield "at once", f"{work.rows:,} rows of {work.length:,} tokens in a forward pass; {fitting}"
    yield "run", _run(made)
    if made.seconds is not None and made.tokens is not None:
        share = "a guess until a run has measured its steps"
        yield "time", f"{_time(made.seconds)} of training, {_number(made.tokens / made.seconds)} tokens/s; {share}"
        more = {name: seconds for name, seconds in made.beside.items() if seconds >= 1}
        told = ", ".join(f"{name} {_time(seconds)}" for name, seconds in more.items())
        yield "beside", f"about {_time(sum(made.beside.values()))} more: {told}; preparing the text comes before"
    if made.cost(price or 0):
        yield "cost", f"{made.cost(price or 0):,.2f} at {price:g} an hour for each device"
    cache = "no token cache, the text is streamed" if made.recipe.data.live else "token cache unknown"
    cache = f"token cache {size(made.cache)}" if made.cache else cache
    yield "disk", f"{cache}, {made.checkpoints} checkpoints of {size(made.checkpoint)}"
    if made.loss is not None and counts["total"] >= SMALLEST_FITTED:  # of a smaller one the law says nonsense
        yield "loss", f"{made.loss:.2f} nats a token by Chinchilla's law, on its text and tokenizer ({SOURCE})"


def _run(made: Plan) -> str:
    live = made.recipe.data.live
    unknown = "streamed, as much as it takes" if live else "nobody knows how much text yet"
    text = f"about {_number(made.text.train)} tokens of text" if made.text.train else unknown
    if made.steps is None:
        return f"{made.recipe.train.duration}; {text}: `ingot prepare` tells"
    epochs = f", {made.epochs:.2g} epochs of {text}" if made.epochs else f"; {text}"
    return f"{made.steps:,} steps, {_number(made.tokens or 0)} tokens{epochs}"


def _number(number: float) -> str:
    """A count in three digits: 25.2M."""
    for unit, scale in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= scale:
            return f"{number / scale:.3g}{unit}"
    return f"{number:.3g}"


def _time(seconds: float) -> str:
    """In the largest unit of which there are two."""
    for unit, scale in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * scale:
            return f"{seconds / scale:,.1f} {unit}"
    return f"{seconds:,.0f} seconds"


def _free(folder: Path) -> float:
    """Bytes left on the disk that `folder` lies on, or will."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free
