"""The recipe: a whole run as one value, from YAML and `key=value` overrides, and the checks across its parts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

import ingot.data.hub  # noqa: F401  # a kind of source is known once its module is imported
from ingot.config.check import validate
from ingot.config.config import Config
from ingot.data.mix import whole_numbers
from ingot.engine.parallel import Automatic, Parallel
from ingot.model.architecture import Architecture, Order
from ingot.model.initial import Initialization, Scaled
from ingot.model.objective import Full, Objective
from ingot.optim.optimizer import AdamW, Optimizer
from ingot.optim.schedule import Cosine, Schedule
from ingot.recipe.files import find, read
from ingot.recipe.sections import Data, EarlyStopping, Evaluation, Health, Memory, Samples, Stage, Training
from ingot.rhythm import Duration, Every
from ingot.tokenizer.training import BPE, TokenizerConfig, inherited
from ingot.track.tracking import Trackers


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
        values = read(path)
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
