"""The recipe: a whole run as one frozen, validated value, from YAML and `key=value` overrides."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from ingot.config import Config, nearest, override, parse_yaml, validate
from ingot.data.source import HeldOut, Source
from ingot.errors import UserError
from ingot.model.architecture import Architecture
from ingot.model.initial import Initialization, Scaled
from ingot.model.objective import Full, Objective
from ingot.optim.optimizer import AdamW, Optimizer
from ingot.optim.schedule import Cosine, Schedule
from ingot.tokenizer.training import BPE, TokenizerConfig

_DURATION = re.compile(r"([\d_.]+)\s*([kMB]?)\s+(steps?|tokens?|epochs?|minutes?|tokens? per parameter)")
_SCALE = {"": 1, "k": 1_000, "M": 1_000_000, "B": 1_000_000_000}
_EVERY = re.compile(r"(\d+)\s+steps?|(\d+(?:\.\d+)?)\s*%|never")


@dataclass(frozen=True)
class Duration:
    """How long to train: an amount of one unit, as in `300 steps`, `10M tokens` or `20 tokens per parameter`."""

    amount: float
    unit: Literal["step", "token", "epoch", "minute", "token per parameter"]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `text`. Raises ValueError that shows the forms there are."""
        match = _DURATION.fullmatch(text.strip())
        if not match or not float(match[1]):
            raise ValueError(
                f"{text!r} is no duration; write one as '300 steps', '10M tokens', '2 epochs', '5 minutes' "
                "or '20 tokens per parameter'"
            )
        unit: Any = match[3].replace("tokens", "token").removesuffix("s")
        return cls(float(match[1]) * _SCALE[match[2]], unit)


@dataclass(frozen=True)
class Every:
    """When something recurs: after a number of steps, or after a share of the run."""

    steps: int = 0
    share: Fraction = Fraction(0)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `text`. Raises ValueError that shows the forms there are."""
        match = _EVERY.fullmatch(text.strip())
        if not match or match[1] == "0":
            raise ValueError(f"{text!r} is no rhythm; write it as '100 steps', '10%' (of the run) or 'never'")
        return cls(int(match[1] or 0), Fraction(match[2] or 0) / 100)

    def due(self, step: int, steps: int) -> bool:
        """Whether it falls due right after `step` of `steps`; a share falls due at the step that completes it."""
        if self.steps:
            return step % self.steps == 0
        if not self.share:
            return False
        return step * Fraction(1, steps) // self.share > (step - 1) * Fraction(1, steps) // self.share


class Data(Config):
    """What is read, and what is kept back to measure on."""

    sources: list[Source] = Field(min_length=1)
    """where the text comes from, in order"""
    held_out: HeldOut = HeldOut()
    """documents that are never trained on"""


class Stage(Config):
    """A part of the run with rows of its own length and batches of its own size."""

    share: float = Field(gt=0, le=1)
    """part of the run's steps; the shares of all stages add up to 1"""
    length: int = Field(gt=0)
    """tokens in a row; divides model.context"""
    batch_tokens: int = Field(gt=0)
    """tokens in a step"""


class Evaluation(Config):
    """Validation during the run, on held-out documents."""

    every: str = "10%"
    """steps ('100 steps'), a share of the run ('10%') or 'never'"""
    max_tokens: int = Field(default=50_000, gt=0)
    """tokens scored each time, windows spread evenly over the held-out text; the end of a run scores all of it"""

    _parses = field_validator("every")(classmethod(lambda cls, text: Every.parse(text) and text))


class Samples(Config):
    """Text written during the run, so that one can watch the model learn."""

    every: str = "10%"
    """steps ('100 steps'), a share of the run ('10%') or 'never'"""
    prompts: list[str] = ["The", "I"]
    """what the samples begin with"""
    max_new_tokens: int = Field(default=60, gt=0)
    """tokens in a sample"""
    temperature: float = Field(default=0.8, ge=0)
    """0 takes the likeliest token each time"""

    _parses = field_validator("every")(classmethod(lambda cls, text: Every.parse(text) and text))


class Training(Config):
    """The loop: how long, in what batches, and what is kept."""

    duration: str = "20 tokens per parameter"
    """'300 steps', '10M tokens', '2 epochs', '5 minutes' or '20 tokens per parameter'"""
    settled: str = Field(default="", pattern=r"^(\d+ steps for .+)?$")
    """what `duration` came to, as '290 steps for 5 minutes'; the run writes it here so that a resume is exact"""
    batch_tokens: int = Field(default=16_384, gt=0)
    """tokens in a step"""
    micro_tokens: int | None = Field(default=None, gt=0)
    """tokens in one forward pass; null: the whole batch"""
    stages: list[Stage] = []
    """lengths and batch sizes that change during the run; empty: rows of model.context throughout"""
    clip: float = Field(default=1.0, gt=0)
    """largest norm of the gradient"""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """number format of the matrix products; auto measures which one this machine multiplies faster"""
    compile: Literal["auto", "yes", "no"] = "auto"
    """torch.compile; auto: where a compiler is at hand and the run is long enough to gain from it"""
    save_every: str = "10%"
    """steps, a share of the run, or 'never' (the end, a stop signal and evaluations save all the same)"""
    keep: int = Field(default=2, ge=1)
    """checkpoints to keep beside the best and the tagged ones"""

    _parses = field_validator("save_every")(classmethod(lambda cls, text: Every.parse(text) and text))
    _lasts = field_validator("duration")(classmethod(lambda cls, text: Duration.parse(text) and text))

    @property
    def steps(self) -> int | None:
        """The settled number of steps, where it was settled for this very duration."""
        steps, _, duration = self.settled.partition(" steps for ")
        return int(steps) if duration == self.duration else None

    @model_validator(mode="after")
    def _stages_are_the_whole_run(self) -> Self:
        total = sum(stage.share for stage in self.stages)
        if self.stages and abs(total - 1) > 1e-6:
            raise ValueError(f"the shares of train.stages add up to {total:g}; they must add up to 1")
        return self


class Recipe(Config):
    """A whole run."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """the run's name and its folder's"""
    seed: int = Field(default=1, ge=0, lt=2**32)
    """of the weights, the order of the data and dropout"""
    runs: Path = Path("runs")
    """folder of all runs"""
    cache: Path = Path("cache")
    """folder of tokenizers and token caches, shared by all runs"""
    data: Data
    """what is read"""
    tokenizer: TokenizerConfig = BPE()
    """how text becomes tokens"""
    model: Architecture
    """the network"""
    init: Initialization = Scaled()
    """the weights before the first step"""
    optimizer: Optimizer = AdamW()
    """how a gradient becomes an update"""
    loss: Objective = Full()
    """what a target is compared with"""
    schedule: Schedule = Cosine()
    """how the rate changes over the run"""
    train: Training = Training()
    """the loop"""
    evaluation: Evaluation = Evaluation()
    """validation during the run"""
    samples: Samples = Samples()
    """text written during the run"""

    @classmethod
    def load(cls, recipe: str | Path, overrides: Sequence[str] = ()) -> Self:
        """The recipe in a file, or the built-in one of that name, with `overrides` (`model.layers=12`) put in.

        Raises UserError for a name that is not known, a misspelt key, a wrong type or an impossible combination.
        """
        path = find(str(recipe))
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"the recipe can't be read ({error})", where=str(path), mend="check the file") from None
        values = parse_yaml(text, where=str(path))
        if not isinstance(values, dict):
            raise UserError(
                "a recipe is a mapping of keys to values", where=str(path), mend="see `ingot recipes show demo`"
            )
        return validate(cls, override(values, overrides), where=str(path), mend="see `ingot recipes explain`")

    @property
    def folder(self) -> Path:
        """Where the run lies."""
        return self.runs / self.name

    def with_training(self, **values: Any) -> Self:
        """The recipe with some values of `train` replaced."""
        return self.model_copy(update={"train": self.train.model_copy(update=values)})

    @property
    def stages(self) -> list[Stage]:
        """The stages of the run: at least one."""
        whole = Stage(share=1, length=self.model.context, batch_tokens=self.train.batch_tokens)
        return self.train.stages or [whole]

    @model_validator(mode="after")
    def _lengths_and_batches_split(self) -> Self:
        block = self.model.context
        for stage in self.stages:
            if block % stage.length:
                near = max(length for length in range(1, block + 1) if block % length == 0 and length <= stage.length)
                raise ValueError(
                    f"rows of {stage.length} tokens do not divide the context of {block}; "
                    f"{near} is the next shorter length that does"
                )
            if stage.batch_tokens % block:
                whole = block * max(1, round(stage.batch_tokens / block))
                raise ValueError(
                    f"a batch of {stage.batch_tokens:,} tokens does not split into rows of {block:,} (model.context); "
                    f"batch_tokens={whole} is the nearest that does"
                )
            micro = self.train.micro_tokens or stage.batch_tokens
            if micro % stage.length or stage.batch_tokens % micro:
                raise ValueError(
                    f"a batch of {stage.batch_tokens:,} tokens in rows of {stage.length:,} does not split into "
                    f"micro-batches of {micro:,}; train.micro_tokens={stage.length} does"
                )
        return self


def builtin_recipes() -> dict[str, Path]:
    """The recipes that come with the package, by name."""
    folder = Path(str(resources.files("ingot") / "recipes"))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find(recipe: str) -> Path:
    """The file of `recipe`: a path, or the name of a built-in one. Raises UserError with the nearest name."""
    path, known = Path(recipe), builtin_recipes()
    if path.is_file():
        return path
    if recipe in known:
        return known[recipe]
    if path.suffix in (".yaml", ".yml") or path.parent != Path():
        raise UserError("there is no such file", where=recipe, mend="check the path, or see `ingot recipes list`")
    raise UserError(f"there is no recipe {recipe!r}", mend=nearest(recipe, known))
