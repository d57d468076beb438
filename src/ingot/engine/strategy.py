"""What each process of a native engine holds, and how the parts become whole: applied to the model from outside.

Gradients are summed over the ranks, never averaged: the loss is divided by the targets of the whole batch already.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from ingot.distributed import World
from ingot.engine.loss_model import LossModel
from ingot.engine.precision import NARROW
from ingot.model.attention import Context
from ingot.model.decoder import Decoder
from ingot.optim.muon import local

if TYPE_CHECKING:
    from torch.distributed.fsdp import FSDPModule

Forward = Callable[[Tensor, Context], Tensor]  # of a block


class Strategy(ABC):
    """One way for `world` to share the work of a step."""

    def __init__(self, world: World):
        self.world = world

    @abstractmethod
    def place(self, model: Decoder, precision: str) -> None:
        """Give `model` its memory on this rank's device, and every rank the weights of the main one.

        On the other ranks it may come without memory.
        """

    def wrap(self, loss_model: LossModel) -> Callable[..., Any]:
        """What a training step calls in place of `loss_model`, which holds the model."""
        return loss_model

    def compile(self, loss_model: LossModel) -> LossModel:
        """Have `loss_model` compiled when it is first used; what to try that on, by this rank alone.

        Block by block: gradients are exchanged between one block's backward pass and the next one's. Blocks of one
        shape share what is compiled, and a model of one block can stand for all.
        """
        _compile_blocks(loss_model.model)
        one = loss_model.model.arch.model_copy(update={"layers": 1})
        small = Decoder(one).to(self.world.device)
        small.blocks[0].recompute = loss_model.model.blocks[0].recompute
        _compile_blocks(small)
        return LossModel(small, loss_model.objective, loss_model.device, loss_model.precision)

    def uncompile(self, loss_model: LossModel) -> None:
        """Undo `compile`."""
        for block in loss_model.model.blocks:
            vars(block).pop("forward", None)

    @contextlib.contextmanager
    def accumulating(self, *, last: bool) -> Iterator[None]:
        """Around forward and backward of one micro-batch, the `last` of a step or not."""
        yield

    def gradient_norm(self, gradients: list[Tensor]) -> Tensor:
        """The norm of all gradients together, from this rank's part of them; the same on every rank."""
        return nn.utils.get_total_norm(gradients, foreach=True)

    @abstractmethod
    def load(self, model: Decoder, weights: Mapping[str, Tensor]) -> None:
        """Put the main rank's whole `weights`, by name, into every rank's part of `model`."""

    def parameter(self, model: Decoder, name: str) -> Tensor:
        """One parameter of `model`, whole, on every rank."""
        return model.get_parameter(name).detach()

    def whole(self, model: Decoder, device: torch.device | None) -> Decoder | None:
        """The model with all its weights on `device`, on the main rank."""
        return model if self.world.main else None

    def _copy(self, model: Decoder, device: torch.device | None) -> Decoder | None:
        """The same in new memory, gathered one tensor after another."""
        weights = {}
        for name in [name for name, _ in model.named_parameters()]:
            value = self.parameter(model, name)
            if self.world.main:
                weights[name] = value.to(device or self.world.device)
        if not self.world.main:
            return None
        with torch.device("meta"):
            copy = Decoder(model.arch)
        copy.load_state_dict(weights, assign=True)
        return copy


def _compile_blocks(model: Decoder) -> None:
    for block in model.blocks:
        block.forward = partial(_forward, block.forward, torch.compile(block.forward, dynamic=False))


def _forward(plain: Forward, compiled: Forward, x: Tensor, context: Context) -> Tensor:
    """Compiled in a training step alone: evaluation and samples come in many shapes, each minutes of compiling."""
    return (compiled if torch.is_grad_enabled() else plain)(x, context)


class Alone(Strategy):
    """One process."""

    def place(self, model: Decoder, precision: str) -> None:
        """Onto the device."""
        model.to(self.world.device)

    def compile(self, loss_model: LossModel) -> LossModel:
        """Tried on the very thing."""
        _compile_blocks(loss_model.model)
        return loss_model

    @torch.no_grad()
    def load(self, model: Decoder, weights: Mapping[str, Tensor]) -> None:
        """A copy."""
        for name, parameter in model.named_parameters():
            parameter.copy_(weights[name])


class Copies(Strategy):
    """All weights, gradients and optimizer state on every rank (PyTorch's DistributedDataParallel)."""

    _wrapped: nn.parallel.DistributedDataParallel

    def place(self, model: Decoder, precision: str) -> None:
        """Onto the device, the same on every rank."""
        if self.world.main:
            model.to(self.world.device)
        else:
            model.to_empty(device=self.world.device)
        self.load(model, dict(model.named_parameters()))

    def wrap(self, loss_model: LossModel) -> Callable[..., Any]:
        """Sums gradients in buckets, while the backward pass still makes others."""
        self._wrapped = nn.parallel.DistributedDataParallel(loss_model, gradient_as_bucket_view=True)
        self._wrapped.register_comm_hook(None, lambda _, bucket: _sum_bucket(bucket))  # DDP reads annotations
        return self._wrapped

    @contextlib.contextmanager
    def accumulating(self, *, last: bool) -> Iterator[None]:
        """Sums over the ranks once, with the last micro-batch."""
        with contextlib.nullcontext() if last else self._wrapped.no_sync():
            yield

    @torch.no_grad()
    def load(self, model: Decoder, weights: Mapping[str, Tensor]) -> None:
        """Sent to all ranks, one tensor after another."""
        for name, parameter in model.named_parameters():
            if self.world.main:
                parameter.copy_(weights[name])
            torch.distributed.broadcast(parameter.detach(), 0)


class Shards(Strategy):
    """The rows of every tensor shared out over the ranks (PyTorch's FSDP2), each block's gathered when it computes.

    `whole_while_stepping`: once gathered, they stay until the step's last backward pass, which saves gathering them
    for each pass of each micro-batch. Gradients are shared out as soon as a micro-batch has made them.
    """

    def __init__(self, world: World, *, whole_while_stepping: bool):
        super().__init__(world)
        self._whole_while_stepping = whole_while_stepping

    def place(self, model: Decoder, precision: str) -> None:
        """Shards the model without memory, then fills the shards: no device ever holds all of it."""
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import (
            FSDPModule,
            MixedPrecisionPolicy,
            fully_shard,
            register_fsdp_forward_method,
        )

        weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
        model.to("meta")
        mesh = init_device_mesh(self.world.device.type, (self.world.size,))
        self._narrow = NARROW[precision]
        # Blocks are gathered as they are multiplied, at half the traffic; what is added up stays wide.
        policy = MixedPrecisionPolicy(self._narrow, reduce_dtype=torch.float32, cast_forward_inputs=False)
        for block in model.blocks:
            fully_shard(block, mesh=mesh, reshard_after_forward=not self._whole_while_stepping, mp_policy=policy)
        fully_shard(model, mesh=mesh, reshard_after_forward=False)
        self._modules = [module for module in model.modules() if isinstance(module, FSDPModule)]
        for module in self._modules:
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
        register_fsdp_forward_method(model, "hidden")  # after which the head's weight, too, is there for the loss
        if self._narrow:  # narrow weights work with narrow products only, also where the model is measured
            model.hidden = torch.autocast(self.world.device.type, self._narrow)(model.hidden)  # type: ignore[method-assign]
        model.to_empty(device=self.world.device)
        self.load(model, weights)

    def compile(self, loss_model: LossModel) -> LossModel:
        """Tried with weights of the type in which blocks are gathered."""
        trial = super().compile(loss_model)
        if self._narrow:
            trial.model.blocks.to(self._narrow)
        return trial

    @contextlib.contextmanager
    def accumulating(self, *, last: bool) -> Iterator[None]:
        """Keeps the parameters whole for the next micro-batch, where that is the way."""
        if self._whole_while_stepping:
            self._root.set_reshard_after_backward(last)
        yield

    def gradient_norm(self, gradients: list[Tensor]) -> Tensor:
        """From the norms of all shards."""
        return self.world.sum(super().gradient_norm(gradients) ** 2).sqrt()

    @torch.no_grad()
    def load(self, model: Decoder, weights: Mapping[str, Tensor]) -> None:
        """Sent to all ranks, one tensor after another; each keeps its rows."""
        for module in self._modules:
            module.reshard()  # what a measurement has gathered is out of date now
        for name, parameter in model.named_parameters():
            value = torch.empty(parameter.shape, dtype=parameter.dtype, device=self.world.device)
            if self.world.main:
                value.copy_(weights[name])
            torch.distributed.broadcast(value, 0)
            local([parameter])[0].copy_(own_rows(value, self.world))

    @torch.no_grad()
    def parameter(self, model: Decoder, name: str) -> Tensor:
        """A copy, gathered."""
        for module in self._modules:
            module.reshard()  # what a measurement has gathered may be narrow
        return cast(Any, model.get_parameter(name)).full_tensor()

    def whole(self, model: Decoder, device: torch.device | None) -> Decoder | None:
        """A copy, gathered one tensor after another."""
        return self._copy(model, device)

    @property
    def _root(self) -> FSDPModule:
        return self._modules[0]


def _sum_bucket(bucket: torch.distributed.GradBucket) -> torch.futures.Future[Tensor]:
    """DDP's own way of reducing divides by the number of ranks."""
    work = torch.distributed.all_reduce(bucket.buffer(), async_op=True)
    future: torch.futures.Future[Any] = work.get_future()
    return future.then(lambda done: done.value()[0])


def own_rows(value: Tensor, world: World) -> Tensor:
    """The rows of a whole tensor that this rank holds where tensors are sharded."""
    return value.split(world.rows(len(value)))[world.rank]
