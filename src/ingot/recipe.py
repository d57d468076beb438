"""The recipe: a whole run as one frozen, validated value, from YAML and `key=value` overrides."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

import ingot.data.hub  # noqa: F401  # a kind of source is known once its module is imported
from ingot.config import Config, YesNoAuto, merged, nearest, parse_yaml, validate
from ingot.data.clean import Cleaning
from ingot.data.mix import whole_numbers
from ingot.data.packing import Layout
from ingot.data.source import Conversations, HeldOut, Source
from ingot.engine.parallel import Automatic, Parallel
from ingot.errors import UserError
from ingot.model.architecture import Architecture, Order
from ingot.model.initial import Initialization, Scaled
from ingot.model.objective import Full, Objective
from ingot.optim.optimizer import AdamW, Optimizer
from ingot.optim.schedule import Cosine, Schedule
from ingot.rhythm import Duration, Every
from ingot.tokenizer.training import BPE, TokenizerConfig, inherited
from ingot.track.tracking import Trackers


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
    start: str = ""
    """a model to begin from instead of fresh weights, such as small@best; its tokenizer is taken, too"""
    grow: Order = "interleaved"
    """where layers go that the model to start from lacks: among its own, or stacked on top"""
    model: Architecture
    """the network; one larger than that of `start` computes the same at first"""
    init: Initialization = Scaled()
    """the weights before the first step"""
    optimizer: Optimizer = AdamW()
    """how a gradient becomes an update"""
    loss: Objective = Full()
    """what a target is compared with"""
    schedule: Schedule = Cosine()
    """how the rate changes over the run"""
    parallel: Parallel = Automatic()
    """how several processes, as torchrun starts them, share the work of a step"""
    memory: Memory = Memory()
    """how a step fits into the memory of the device"""
    train: Training = Training()
    """the loop"""
    evaluation: Evaluation = Evaluation()
    """validation during the run"""
    early_stopping: EarlyStopping = EarlyStopping()
    """the end of a run that learns nothing more"""
    health: Health = Health()
    """what happens to steps that would harm the run"""
    samples: Samples = Samples()
    """text written during the run"""
    track: Trackers = []
    """where the records go beside metrics.jsonl, as [tensorboard, wandb]"""

    @classmethod
    def load(cls, recipe: str | Path, overrides: Sequence[str] = ()) -> Self:
        """The recipe in a file, or the built-in one of that name, with `overrides` (`model.layers=12`) put in.

        A file that names a `base` holds only what differs from that recipe.
        Raises UserError for a name that is not known, a misspelt key, a wrong type or an impossible combination.
        """
        path = find(str(recipe))
        values = _read(path)
        return validate(cls, values, where=str(path), mend="see `ingot recipes explain`", overrides=overrides)

    @property
    def folder(self) -> Path:
        """Where the run lies."""
        return self.runs / self.name

    def start_folder(self) -> Path | None:
        """The folder of the model that the run starts from, verified; None for fresh weights. Raises UserError."""
        from ingot.checkpoint.registry import resolve

        return resolve(self.start, self.runs) if self.start else None

    def tokenizer_from(self, begun: Path | None) -> TokenizerConfig:
        """How the run comes by its tokenizer: from the model in `begun`, where it starts from or goes on with one."""
        return inherited(begun, self.tokenizer) if self.start and begun else self.tokenizer

    def with_training(self, **values: Any) -> Self:
        """The recipe with some values of `train` replaced."""
        return self.model_copy(update={"train": self.train.model_copy(update=values)})

    def with_memory(self, **values: Any) -> Self:
        """The recipe with some values of `memory` replaced."""
        return self.model_copy(update={"memory": self.memory.model_copy(update=values)})

    @property
    def micro_tokens(self) -> int | None:
        """Tokens in one forward pass of a rank; none: as many as it has in a step."""
        rows = self.memory.micro_batch
        return None if rows == "auto" else rows * self.model.context

    @property
    def stages(self) -> list[Stage]:
        """The stages of the run: at least one."""
        whole = Stage(share=1, length=self.model.context, batch_tokens=self.train.batch_tokens)
        return self.train.stages or [whole]

    @property
    def weights(self) -> list[list[float]]:
        """The weight of every source in each stage (stages, sources); empty: every token counts the same."""
        own = [source.weight for source in self.data.sources if source.weight is not None]
        weights = [stage.weights or own for stage in self.stages]
        return weights if any(weights) else []

    @property
    def mixture_changes(self) -> bool:
        """Whether the weights of the sources differ between stages."""
        return any(weights != self.weights[0] for weights in self.weights)

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
        return self

    @model_validator(mode="after")
    def _optimizer_can_be_shared_out(self) -> Self:
        self.parallel.takes(self.optimizer)
        return self

    @model_validator(mode="after")
    def _needs_no_epochs_where_it_streams(self) -> Self:
        rhythms = (self.train.save_every, self.evaluation.every, self.evaluation.tasks_every, self.samples.every)
        epochs = Duration.parse(self.train.duration).unit == "epoch" or any(Every.parse(one).epochs for one in rhythms)
        if self.data.live and epochs:
            raise ValueError("streaming, nobody knows how long an epoch is; give steps, or a token cache: live=false")
        return self

    @model_validator(mode="after")
    def _weights_make_a_mixture(self) -> Self:
        sources = len(self.data.sources)
        for number, weights in enumerate(self.weights, 1):
            if len(weights) != sources:
                raise ValueError(f"stage {number} of train.stages has {len(weights)} weights for {sources} sources")
            whole_numbers(weights)
        return self


def _read(path: Path, within: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The values in a recipe's file, put into those of the recipe that it names as its `base`."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the recipe can't be read ({error})", where=str(path), mend="check the file") from None
    values = parse_yaml(text, where=str(path))
    if not isinstance(values, dict):
        what = "a recipe is a mapping of keys to values"
        raise UserError(what, where=str(path), mend="see `ingot recipes show demo`")
    if "base" not in values:
        return values
    base = find(str(values.pop("base")))
    if base in (*within, path):
        raise UserError("a recipe can't be its own base", where=f"{path}: base", mend="name another one")
    return merged(_read(base, (*within, path)), values)


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
    raise UserError(f"there is no recipe {recipe!r}", mend=nearest(recipe, known, "`ingot recipes list`"))
