"""How several processes share the work of a step: configurations that build an engine. No PyTorch until one is built.

Rajbhandari et al. (2020, arXiv:1910.02054) count the stages: optimizer state, gradients and parameters, each sharded.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from ingot.config import Choice

if TYPE_CHECKING:
    from ingot.distributed import World
    from ingot.engine.engine import Engine
    from ingot.engine.strategy import Strategy
    from ingot.model.decoder import Decoder
    from ingot.model.objective import Objective
    from ingot.optim.optimizer import Optimizer


class Parallel(Choice):
    """How processes share the work; all the same where there is one. One class statement adds another way."""

    @abstractmethod
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
        """The engine that trains `model`: the main rank's weights count, the others may bring one without memory."""


class Native(Parallel):
    """The ways of PyTorch itself, which differ in what each process holds."""

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
        """The native engine, with the strategy that this asks for."""
        from ingot.engine.native import NativeEngine
        from ingot.engine.strategy import Alone

        strategy = self.strategy(world) if world.size > 1 else Alone(world)
        return NativeEngine(model, optimizer, strategy, clip=clip, precision=precision, objective=objective)

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
