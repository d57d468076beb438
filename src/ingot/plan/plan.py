"""What a recipe will need on a device: parameters, FLOPs, memory, disk, time, cost, and what looks like a mistake."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ingot.data.build.report import size
from ingot.errors import UserError
from ingot.estimate.auto import choose, is_auto
from ingot.estimate.beside import beside
from ingot.estimate.devices import Device
from ingot.estimate.memory import fitting, largest, most_rows, process, room, works
from ingot.estimate.scaling import SMALLEST_FITTED, best_tokens, expected_loss
from ingot.estimate.text import Text, text_of, vocabulary_of
from ingot.estimate.time import OF_DATA_SHEET, OF_MEASURED, run_seconds, step_flops, step_seconds, worth_compiling
from ingot.model.architecture import Architecture, parameter_counts
from ingot.model.memory import WIDE, Footprint, Precision, Work, role_counts
from ingot.recipe.recipe import Recipe
from ingot.rhythm import Duration
from ingot.train.past import Past
from ingot.train.timetable import mean_batch_tokens, steps_for, steps_for_minutes, too_few

# Training tokens a parameter below which a smaller model would learn more in the same time. It follows from the scaling
# law, so it is said of models as large as those that the law was fitted on; far below, others hold (docs/lab-log.md).
FEW_TOKENS = 5
# Of the parameters that are embedding and head. A vocabulary up to the second number is never called large: one half as
# large would spell every text with a twelfth more tokens, a smaller one with more still.
LARGE_VOCABULARY, SMALL_VOCABULARY = 2 / 3, 8_192
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
    past: Past | None = None
    """the run on this machine that `step_seconds` were measured in"""
    notes: tuple[str, ...] = ()

    @property
    def parameters(self) -> dict[str, int]:
        """By part and in `total`."""
        return parameter_counts(self.arch)

    @property
    def flops_per_token(self) -> float:
        """Of forward and backward pass, the mean over the run."""
        return step_flops(self.recipe, self.arch) / mean_batch_tokens(self.recipe.stages)

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
    def sustained(self) -> float:
        """FLOP/s of large products in a row, as the run before had them where there was one."""
        if self.past and self.tokens and self.seconds:
            return self.flops_per_token * self.tokens / self.seconds
        return self.device.peaks[self.precision] * (OF_MEASURED if self.device.measured else OF_DATA_SHEET)

    @property
    def compiled(self) -> bool:
        """Whether it will be compiled, where there is a compiler."""
        if self.past:
            return self.past.compiled
        if self.recipe.train.compile != "auto":
            return self.recipe.train.compile == "yes"
        return worth_compiling(self.recipe, self.seconds or 0.0)

    @property
    def beside(self) -> dict[str, float]:
        """Seconds beside those of training, by what takes them."""
        if self.steps is None or self.seconds is None:
            return {}
        return beside(
            self.recipe,
            self.arch,
            self.device.kind,
            sustained=self.sustained,
            steps=self.steps,
            compiled=self.compiled,
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
        fitted = counts["total"] >= SMALLEST_FITTED
        if fitted and self.tokens and self.tokens < FEW_TOKENS * counts["total"]:
            best = figure(best_tokens(counts["total"]))
            yield (
                f"{self.tokens / counts['total']:.2g} tokens a parameter are few, {best} would suit its size; "
                "a smaller model learns more in the same time"
            )
        if self.steps and (few := too_few(self.recipe, self.steps)):
            yield few
        share = (counts["embedding"] + counts["head"]) / counts["total"]
        if share > LARGE_VOCABULARY and self.arch.vocabulary > SMALL_VOCABULARY:
            yield f"{share:.0%} of the parameters are the vocabulary's; a smaller tokenizer.vocabulary suits this model"
        if self.text.train and self.text.train < RARE * self.arch.vocabulary:
            yield f"{figure(self.text.train)} tokens of text are few for a vocabulary of {self.arch.vocabulary:,}"
        if self.epochs and self.epochs > MANY_EPOCHS:
            yield f"{self.epochs:.1f} epochs: after {MANY_EPOCHS}, the same text again teaches little"
        if (free := _free(self.recipe.runs)) < (self.cache or 0) + self.checkpoint * self.checkpoints:
            yield f"the disk has {size(free)} left, which is less than the run writes"


def make_plan(recipe: Recipe, device: Device, ranks: int = 1, before: Past | None = None) -> Plan:
    """What `recipe` needs on `ranks` of `device`; its time as `before` took, where there is one. Raises UserError."""
    notes: list[str] = []
    precision = _precision(recipe, device)
    vocabulary = vocabulary_of(recipe)
    if is_auto(recipe):
        choice = choose(recipe, vocabulary, device, precision=precision, ranks=ranks)
        recipe = choice.recipe
        notes.append(choice.why)
    arch = recipe.model.with_vocabulary(vocabulary)
    compiled = before.compiled if before else recipe.train.compile == "yes"

    def planned(blocks: int | None) -> list[Work]:
        return works(recipe, device, precision=precision, compiled=compiled, ranks=ranks, blocks=blocks)

    made = planned(fitting(recipe, arch, planned, room(device), ranks) or None)
    text = text_of(recipe, vocabulary, notes.append)
    seconds = list(before.step_seconds) if before else step_seconds(recipe, arch, device, made, precision, ranks)
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
        past=before,
        notes=tuple(notes),
    )


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


def figure(number: float) -> str:
    """A count in three digits: 25.2M."""
    for unit, scale in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= scale:
            return f"{number / scale:.3g}{unit}"
    return f"{number:.3g}"


def _free(folder: Path) -> float:
    """Bytes left on the disk that `folder` lies on, or will."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free
