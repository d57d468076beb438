"""DeepSpeed's ZeRO behind the native engine's step: it shares out, sums up, clips and updates; all else stays ours.

Weights stay in float32 and products are narrowed by autocast, as without it, so that runs can move between the two.
Rajbhandari et al. (2020, arXiv:1910.02054); Ren et al. (2021, arXiv:2101.06840) for the state in the host's memory.
"""

from __future__ import annotations

import contextlib
import logging
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ingot.checkpoint.state import Rows
from ingot.distributed import World
from ingot.engine.loss_model import LossModel
from ingot.engine.native import NativeEngine, may_apply
from ingot.engine.strategy import Copies, own_rows
from ingot.errors import UserError
from ingot.model.decoder import Decoder
from ingot.model.objective import Objective
from ingot.optim.optimizer import Optimizer

MEANS = ("exp_avg", "exp_avg_sq")  # what AdamW keeps of a parameter, beside its steps
NO_NUMBER = -1.0  # a norm, as DeepSpeed writes it that some gradient is no number: it then leaves the step out


class Flat(Copies):
    """ZeRO 1 and 2: every rank has all weights, in flat buffers of which each updates its own part."""

    engine: Any = None
    """DeepSpeed's own, once there is one"""

    def wrap(self, loss_model: LossModel) -> Callable[..., Any]:
        """Nothing yet: DeepSpeed wraps the model and its optimizer together."""
        return loss_model

    @contextlib.contextmanager
    def accumulating(self, *, last: bool) -> Iterator[None]:
        """Gradients are shared out with each micro-batch, and put together with the last."""
        self.engine.set_gradient_accumulation_boundary(last)
        yield

    def load(self, model: Decoder, weights: Mapping[str, Tensor]) -> None:
        """Sent to all ranks, and then to the copy that is updated."""
        super().load(model, weights)
        if self.engine:
            self.engine.optimizer.refresh_fp32_params()


class Split(Flat):
    """ZeRO 3: each rank holds a part of every tensor, and modules put theirs together while they compute."""

    def place(self, model: Decoder, precision: str) -> None:
        """As for stage 2; DeepSpeed splits the weights up when it wraps the model."""
        super().place(model, precision)
        hidden, roles = model.hidden, model.roles()

        def then_the_head(*tokens: Tensor, **others: Any) -> Tensor:
            """The loss asks for the head's weight outside of any module."""
            states = hidden(*tokens, **others)
            if _is_apart(model.head_weight):
                model.head_weight.all_gather()  # type: ignore[attr-defined]
            return states

        model.hidden = then_the_head  # type: ignore[method-assign, assignment]
        model.roles = lambda: roles  # type: ignore[method-assign]  # split up, tensors have no shape to tell it by

    def compile(self, loss_model: LossModel) -> LossModel:
        """Hooks gather the weights in the middle of what would be compiled."""
        raise UserError("DeepSpeed's stage 3 is not compiled")

    @torch.no_grad()
    def load(self, model: Decoder, weights: Mapping[str, Tensor]) -> None:
        """One tensor after another, put together, filled on the main rank, and split up again."""
        if not self.engine:
            super().load(model, weights)
            return
        for name, parameter in model.named_parameters():
            with _together(parameter, filled=True):
                if self.world.main:
                    parameter.copy_(weights[name])
        self.engine.optimizer.refresh_fp32_params()

    @torch.no_grad()
    def parameter(self, model: Decoder, name: str) -> Tensor:
        """A copy, put together."""
        with _together(model.get_parameter(name)):
            return model.get_parameter(name).detach().clone()

    @torch.no_grad()
    def whole(self, model: Decoder, device: torch.device | None) -> Decoder | None:
        """A copy, put together one tensor after another."""
        return self._copy(model, device)


class DeepSpeedEngine(NativeEngine):
    """The native engine's step, in which DeepSpeed shares out gradients, AdamW's state and, at stage 3, the weights."""

    def __init__(
        self,
        model: Decoder,
        optimizer: Optimizer,
        world: World,
        *,
        stage: int,
        offload: bool,
        clip: float,
        precision: str,
        objective: Objective | None = None,
    ):
        self._stage, self._offload = stage, offload
        self._judgement: tuple[Tensor, float] = torch.zeros(()), math.inf  # the step's loss, and the limit for it
        self._norm = torch.zeros(())
        world.form_group()
        _ready(world.device)
        self._held = (Split if stage == 3 else Flat)(world)
        super().__init__(model, optimizer, self._held, clip=clip, precision=precision, objective=objective)

    def renew_optimizer(self) -> None:
        """Have DeepSpeed wrap model and optimizer, anew where it has: what a step that failed left behind is gone."""
        import deepspeed

        if self._held.engine:
            self._held.engine.destroy()
        super().renew_optimizer()
        self._parameters = [list(group["params"]) for group in self.optimizer.param_groups]
        engine, *_ = deepspeed.initialize(
            model=self._loss_model, optimizer=self.optimizer, config=self._config(), dist_init_required=False
        )
        self._forward = self._held.engine = engine
        norm = "_get_norm_groups" if self._stage == 3 else "scaled_global_norm"
        setattr(engine.optimizer, norm, partial(self._judged, getattr(engine.optimizer, norm)))
        self._begin_means()

    def _config(self) -> dict[str, Any]:
        zero: dict[str, Any] = {"stage": self._stage}
        if self._offload:
            zero["offload_optimizer"] = {"device": "cpu", "pin_memory": self.world.device.type == "cuda"}
        return {
            "train_micro_batch_size_per_gpu": 1,  # unused: batches come as they are
            "gradient_clipping": self.clip,
            "zero_optimization": zero,
            "zero_allow_untested_optimizer": True,  # ours, which updates each number by itself
            "zero_force_ds_cpu_optimizer": False,
            "steps_per_print": None,
        }

    def _begin_means(self) -> None:
        """Give AdamW its state before its first step, so that DeepSpeed can find the parts of it by parameter."""
        inner = self._held.engine.optimizer
        flats = inner.fp32_partitioned_groups_flat if self._stage == 3 else inner.single_partition_of_fp32_groups
        for flat in flats:
            fused = self.optimizer.param_groups[0]["fused"]
            steps = torch.zeros((), device=flat.device if fused else "cpu")
            self.optimizer.state[flat] = {"step": steps} | {name: torch.zeros_like(flat.data) for name in MEANS}
        if self._stage != 3:
            inner._lazy_init_hp_params_optimizer_state()

    def _backward(self, share: Tensor) -> None:
        """DeepSpeed takes the mean over the ranks, where a sum is meant."""
        engine = self._held.engine
        engine.optimizer.override_loss_scale(self._scaler.scale)
        engine.backward(share * self.world.size, scale_wrt_gas=False)

    def _update(self, loss: Tensor, limit: float) -> tuple[Tensor, bool]:
        """Clip and update, unless the answer to DeepSpeed's question for the norm forbids it."""
        self._judgement = loss, limit
        self._norm = torch.full((), math.inf)
        self._held.engine.step()
        return self._norm, not self._held.engine.optimizer.overflow

    def _judged(self, ask: Callable[[], Any]) -> Any:
        """What DeepSpeed hears in place of the gradient's norm, or norms of its groups, that `ask` gives."""
        answer, several = ask(), self._stage == 3
        norms = torch.stack([norm.detach().float().cpu() for norm in (answer if several else [answer])])
        if (norms >= 0).all():
            self._norm = norms.norm() / self._scaler.scale
        loss, limit = self._judgement
        if may_apply(loss.cpu(), self._norm, limit):
            return answer
        refused = torch.full((), NO_NUMBER, device=self.world.device)
        return [refused] if several else refused

    def state(self) -> dict[str, Any]:
        """The optimizer's state as the native engine has it, this rank's rows of it.

        A tensor is put together on every rank, which keeps its rows of it in the host's memory, and then the next.
        """
        from deepspeed.utils import safe_get_full_optimizer_state

        steps = next(iter(self.optimizer.state.values()))["step"].cpu()
        states: dict[int, dict[str, Any]] = {}
        groups, number = [], 0
        for group, parameters in zip(self.optimizer.param_groups, self._parameters, strict=True):
            groups.append({**group, "params": list(range(number, number + len(parameters)))})
            for parameter in parameters:
                states[number] = {"step": steps.clone()}
                for name in MEANS:
                    whole = safe_get_full_optimizer_state(parameter, name)
                    states[number][name] = Rows((own_rows(whole, self.world).clone().cpu(),))
                number += 1
        return {"optimizer": {"state": states, "param_groups": groups}, "scaler": self._scaler.state()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from `state`, of this engine or of the native one; each rank keeps its part."""
        whole, parameters = state["optimizer"], [one for group in self._parameters for one in group]
        for group, kept in zip(self.optimizer.param_groups, whole["param_groups"], strict=True):
            group.update({name: value for name, value in kept.items() if name != "params"})
        for number, means in whole["state"].items():
            for name in MEANS:
                mean = means[name]
                self._put(parameters[number], name, mean.read() if isinstance(mean, Rows) else mean)
        steps = max((float(means["step"]) for means in whole["state"].values()), default=0.0)
        for kept in self.optimizer.state.values():
            kept["step"].fill_(steps)
        self._scaler.load_state(state["scaler"])

    def _put(self, parameter: Tensor, name: str, value: Tensor) -> None:
        """This rank's part of the whole `value`, in place of what it has of a running mean of `parameter`."""
        from deepspeed import utils

        if self._stage != 3:
            utils.safe_set_full_optimizer_state(parameter, value.float(), name)
            return
        part = utils.safe_get_local_optimizer_state(parameter, name).clone()
        own = value.flatten()[self.world.rank * part.numel() :][: part.numel()]  # of the last rank less: it is padded
        part[: own.numel()].copy_(own)
        utils.safe_set_local_optimizer_state(parameter, part, name)


def _ready(device: torch.device) -> None:
    """Load DeepSpeed for `device`, silent but for errors; on a CPU without what it would compile first, for minutes."""
    logging.disable(logging.WARNING)
    try:
        from deepspeed.accelerator import set_accelerator
        from deepspeed.utils import logger

        if device.type == "cpu":
            set_accelerator(_plain_cpu())
    finally:
        logging.disable(logging.NOTSET)
    logger.setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")  # of names that it calls


def _plain_cpu() -> Any:
    from deepspeed.accelerator.cpu_accelerator import CPU_Accelerator

    class Plain(CPU_Accelerator):
        """Leaves collectives to gloo, and AdamW to PyTorch's own kernel."""

        def create_op_builder(self, op_name: str) -> None:
            """There is nothing to compile."""

    return Plain()


def _is_apart(parameter: Any) -> bool:
    from deepspeed.runtime.zero.partition_parameters import ZeroParamStatus

    return getattr(parameter, "ds_status", None) == ZeroParamStatus.NOT_AVAILABLE


@contextlib.contextmanager
def _together(parameter: Tensor, *, filled: bool = False) -> Iterator[None]:
    """A tensor whole on every rank within the block; with `filled`, what the main rank writes is kept."""
    import deepspeed

    with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0 if filled else None):
        yield
