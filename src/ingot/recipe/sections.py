"""The recipe's own sections: what is read, the loop, and what is done around it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from ingot.config.config import Config, YesNoAuto
from ingot.data.clean import Cleaning
from ingot.data.packing import Layout
from ingot.data.source import Conversations, HeldOut, Source
from ingot.rhythm import Duration, Every


class Data(Config):
    """What is read, and what is kept back to measure on."""

    sources: list[Source] = Field(min_length=1)
    """where the text comes from, in order"""
    held_out: HeldOut = HeldOut()
    """documents that are never trained on"""
    clean: Cleaning = Cleaning()
    """what is done to each text, and which are left out"""
    packing: Layout = Field(default_factory=lambda data: _layout_for(data.get("sources", [])))
    """slices: text cut at every model.context tokens, no padding; best_fit: whole documents packed, conversations cut
    between turns alone; by itself best_fit where a source is of the kind conversations, else slices"""
    live: bool = False
    """stream the text while training instead of preparing a token cache, as for a corpus that no disk holds; a run then
    can't tell epochs, find duplicates, or go on with any other number of processes"""

    @model_validator(mode="after")
    def _all_have_weights_or_none(self) -> Self:
        given = sum(source.weight is not None for source in self.sources)
        if given not in (0, len(self.sources)):
            raise ValueError(f"{given} of {len(self.sources)} sources have a weight; give one to all, or to none")
        return self

    @model_validator(mode="after")
    def _can_be_streamed(self) -> Self:
        if self.live and self.clean.duplicates != "none":
            raise ValueError("clean.duplicates takes all of the text at once, so it needs a token cache: live=false")
        for source in self.sources if self.live else []:
            if any((source.max_documents, source.max_bytes, source.target_tokens)):
                raise ValueError(f"{source.name} has a limit, which needs a token cache: live=false")
        return self


def _layout_for(sources: Sequence[Source]) -> Layout:
    return "best_fit" if any(isinstance(source, Conversations) for source in sources) else "slices"


class Stage(Config):
    """A part of the run with rows of its own length and batches of its own size."""

    share: float = Field(gt=0, le=1)
    """part of the run's steps; the shares of all stages add up to 1"""
    length: int = Field(gt=0)
    """tokens in a row; divides model.context"""
    batch_tokens: int = Field(gt=0)
    """tokens in a step"""
    weights: list[float] = []
    """weight of each source during this stage, in their order, in any unit, 0 allowed; empty: those of data.sources"""


class Evaluation(Config):
    """Validation during the run, on held-out documents."""

    every: str = "10%"
    """steps ('100 steps'), a share of the run ('10%'; of a short run a larger one, so that evaluations take no more
    than a quarter of what training does), 'epoch' or 'never'"""
    max_tokens: int = Field(default=50_000, gt=0)
    """tokens scored each time, windows spread evenly over the held-out text; the end of a run scores all of it"""
    tasks: list[str] = []
    """standard tasks, such as piqa and hellaswag, or folders of tasks, that are scored as the run goes on"""
    tasks_every: str = "25%"
    """steps, a share of the run, 'epoch' or 'never'"""
    tasks_items: int = Field(default=100, gt=0)
    """items of each task, evenly spread; `ingot evaluate` scores all of them"""

    _parses = field_validator("every", "tasks_every", mode="before")(classmethod(lambda cls, text: Every.spelled(text)))


class EarlyStopping(Config):
    """Ends a run that learns nothing more, by the validation during it; its best checkpoint is kept."""

    patience: int = Field(default=0, ge=0)
    """evaluations in a row without a gain after which the run ends; 0: it goes on to its end"""
    min_gain: float = Field(default=0.0, ge=0)
    """nats a token by which the loss must fall below the lowest before to count as a gain"""


class Health(Config):
    """What a run does about steps that would harm it: it leaves them out, and in the end goes back and past them."""

    spike: float = Field(default=10.0, ge=0)
    """robust standard deviations above the median of the last losses that make a loss a spike; 0: no loss is one"""
    patience: int = Field(default=3, ge=1)
    """updates left out in a row, for a spike or what is no number, after which the run goes back to a checkpoint"""
    rollbacks: int = Field(default=3, ge=0)
    """times that a run goes back before it ends with an error"""
    rate_factor: float = Field(default=1.0, gt=0, le=1)
    """by which the rate is multiplied each time, from there on"""


class Samples(Config):
    """Text written during the run, so that one can watch the model learn."""

    every: str = "10%"
    """steps ('100 steps'), a share of the run ('10%'; of a short run a larger one, of at least 10 steps), 'epoch' or
    'never'"""
    prompts: list[str] = ["The", "I"]
    """what the samples begin with"""
    max_new_tokens: int = Field(default=60, gt=0)
    """tokens in a sample"""
    temperature: float = Field(default=0.8, ge=0)
    """0 takes the likeliest token each time"""

    _parses = field_validator("every", mode="before")(classmethod(lambda cls, text: Every.spelled(text)))


class Training(Config):
    """The loop: how long, in what batches, and what is kept."""

    duration: str = "20 tokens per parameter"
    """'300 steps', '10M tokens', '2 epochs', '5 minutes' or '20 tokens per parameter'"""
    settled: str = Field(default="", pattern=r"^(\d+ steps for .+)?$")
    """what `duration` came to, as '290 steps for 5 minutes'; the run writes it here so that a resume is exact"""
    batch_tokens: int = Field(default=16_384, gt=0)
    """tokens in a step"""
    stages: list[Stage] = []
    """lengths and batch sizes that change during the run; empty: rows of model.context throughout"""
    clip: float = Field(default=1.0, gt=0)
    """largest norm of the gradient"""
    precision: Literal["auto", "fp32", "bf16", "fp16", "fp8"] = "auto"
    """number format of the matrix products; auto: the fastest that trains a small model here; fp8: Hopper, torchao"""
    compile: YesNoAuto = "auto"
    """torch.compile; auto: where a compiler is at hand and the run, as far as can be told when it begins, gains more
    time by it than compiling takes, which is from about five minutes on; a run keeps to what it began with"""
    save_every: str = "10%"
    """steps, a share of the run, 'epoch' or 'never' (the end, signals and evaluations save all the same)"""
    keep: int = Field(default=2, ge=1)
    """checkpoints to keep beside the best and the tagged ones"""

    _parses = field_validator("save_every", mode="before")(classmethod(lambda cls, text: Every.spelled(text)))
    _lasts = field_validator("duration", mode="before")(classmethod(lambda cls, text: Duration.spelled(text)))

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


class Memory(Config):
    """How a step fits into the memory of the device. It changes what is kept and when, not what is computed."""

    micro_batch: int | Literal["auto"] = "auto"
    """rows of model.context tokens in one forward pass; auto: as many as the batch has, halved until they fit"""
    checkpoint_every: int = Field(default=0, ge=0)
    """every so many blocks, one is computed again in the backward pass instead of kept; 0: none, 1: all of them"""

    @field_validator("micro_batch", mode="before")
    @classmethod
    def _is_auto_or_a_number(cls, value: Any) -> Any:
        if value != "auto" and not (isinstance(value, int) and value > 0):
            raise ValueError(f"micro_batch is a number of rows from 1 on, or auto, not {value}")
        return value
