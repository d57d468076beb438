"""How several processes share the work of a step: configurations that build an engine. No PyTorch until one is built.

Rajbhandari et al. (2020, arXiv:1910.02054) count the stages: optimizer state, gradients and parameters, each sharded.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

from ingot.config.config import Choice
from ingot.errors import UserError
from ingot.extras import pip_install

if TYPE_CHECKING:
    from ingot.distributed import World
    from ingot.engine.engine import Engine
    from ingot.engine.strategy import Strategy
    from ingot.model.decoder import Decoder
    from ingot.model.objective import Objective
    from ingot.optim.optimizer import Optimizer


class Parallel(Choice):
    """How processes share the work; all the same where there is one. One class statement adds another way."""

    def check(self) -> None:
        """Raise UserError where what this needs is not installed."""

    def takes(self, optimizer: Optimizer) -> None:
        """Raise ValueError for an optimizer that can't be shared out so."""

    def build(
        self,
        model: Decoder,
        optimizer: Optimizer,
        world: World,
        *,
        clip: float,
        precision: str,
        objective: Objective | None = None,
    ) -> Engine:
        """The engine that trains `model`: the main rank's weights count, the others may bring one without memory.

        Raises UserError where what this needs is not installed.
        """
        self.check()
        return self.engine(world)(model, optimizer, clip=clip, precision=precision, objective=objective)

    @abstractmethod
    def engine(self, world: World) -> Callable[..., Engine]:
        """What makes the engine of these processes from what `build` is given."""


class Native(Parallel):
    """The ways of PyTorch itself, which differ in what each process holds."""

    def engine(self, world: World) -> Callable[..., Engine]:
        """The native engine, with the strategy that this asks for."""
        from ingot.engine.native import NativeEngine
        from ingot.engine.strategy import Alone

        return partial(NativeEngine, strategy=self.strategy(world) if world.size > 1 else Alone(world))

    @abstractmethod
    def strategy(self, world: World) -> Strategy:
        """What is held where, for several processes."""


class Automatic(Native, name="auto"):
    """The fastest way, which is ddp: it asks for no more memory than one process alone does."""

    def strategy(self, world: World) -> Strategy:
        """As for ddp."""
        return Replicated().strategy(world)


class Replicated(Native, name="ddp"):
    """Every process holds everything and computes on rows of its own; gradients are summed (DDP)."""

    def strategy(self, world: World) -> Strategy:
        """A copy on every rank."""
        from ingot.engine.strategy import Copies

        return Copies(world)


class GradientsSharded(Native, name="zero2"):
    """Gradients and optimizer state are shared out; the parameters are gathered once for each step (FSDP2)."""

    def strategy(self, world: World) -> Strategy:
        """Shards, whole while a step is computed."""
        from ingot.engine.strategy import Shards

        return Shards(world, whole_while_stepping=True)


class Sharded(Native, name="zero3"):
    """Parameters too are shared out, and each block's are gathered just while it computes (FSDP2)."""

    def strategy(self, world: World) -> Strategy:
        """Shards, whole one block at a time."""
        from ingot.engine.strategy import Shards

        return Shards(world, whole_while_stepping=False)


class DeepSpeed(Parallel, name="deepspeed"):
    """DeepSpeed's ZeRO (ingot's extra `deepspeed`), AdamW alone; zero2 and zero3 do without it what it does."""

    stage: Literal[1, 2, 3] = 2
    """what is shared out: 1 the optimizer's state, 2 gradients too, 3 parameters too"""
    offload: Literal["none", "cpu"] = "none"
    """where the optimizer's state lies, and is updated: with the model, or in the host's memory"""

    def check(self) -> None:
        """Look for it without loading it."""
        if find_spec("deepspeed") is None:
            raise UserError(
                "DeepSpeed is not installed",
                where=f"parallel.kind={self.kind}",
                mend=f"{pip_install('deepspeed')}, or do the same without it: {self.native}",
            )

    @property
    def native(self) -> str:
        """What to set for the same without DeepSpeed."""
        way = "parallel=zero3" if self.stage == 3 else "parallel=zero2"
        return f"{way} optimizer.offload=true" if self.offload == "cpu" else way

    def takes(self, optimizer: Optimizer) -> None:
        """It cuts tensors anywhere, so what looks at whole matrices or rows can't follow."""
        keeps = optimizer.to_dict()
        if optimizer.kind != "adamw":
            what = f"{optimizer.kind} looks at whole rows of the matrices, which DeepSpeed cuts anywhere"
            raise ValueError(f"{what}; try {self.native} or optimizer=adamw")
        if keeps["state"] != "fp32" or keeps["offload"]:
            raise ValueError("with DeepSpeed AdamW's state is float32; parallel.offload=cpu keeps it in the host")

    def engine(self, world: World) -> Callable[..., Engine]:
        """DeepSpeed's engine, with one process too."""
        from ingot.engine.deepspeed import DeepSpeedEngine

        return partial(DeepSpeedEngine, world=world, stage=self.stage, offload=self.offload == "cpu")
