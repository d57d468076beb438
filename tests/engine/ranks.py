"""What every rank of test_parallel.py runs, one of several or alone, and leaves in a file what it found.

Alone it is the reference that several ranks are held against.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ingot.checkpoint.state import load_state, save_rows, save_state, size_of, tensors_file
from ingot.data.loader import IGNORED, TokenBatch
from ingot.distributed import World
from ingot.engine.engine import Engine
from ingot.engine.parallel import Parallel
from ingot.evaluate.loss import held_out_loss
from ingot.model.architecture import Architecture
from ingot.model.decoder import Decoder
from ingot.optim.exchange import replicated, sharded
from ingot.optim.optimizer import AdamW, Muon

ROWS, STEPS, SAVED_AT = 8, 4, 2
FAMILIES = {
    "native": {kind: kind for kind in ("ddp", "zero2", "zero3")},
    "deepspeed": {
        "deepspeed-1": {"kind": "deepspeed", "stage": 1},
        "deepspeed-2": {"kind": "deepspeed"},
        "deepspeed-3": {"kind": "deepspeed", "stage": 3},
        "deepspeed-offload": {"kind": "deepspeed", "offload": "cpu"},
    },
}
"""of ways to share the work, by name"""
WAYS: dict[str, object] = {"auto": "auto", **FAMILIES["native"], **FAMILIES["deepspeed"]}
# 61 and 3 rows do not split evenly over two ranks; a tied and an untied head; norms with and without bias.
SHAPES = {
    "llama": Architecture(family="llama", vocabulary=61, context=16, layers=3, hidden_size=32, heads=2),
    "gpt2": Architecture(family="gpt2", vocabulary=61, context=16, layers=2, hidden_size=33, heads=3, mlp_size=51),
}
OPTIMIZERS = {"adamw": AdamW(lr=0.01), "muon": Muon()}
COURSES = {"native": (("llama", "muon"), ("gpt2", "adamw")), "deepspeed": (("gpt2", "adamw"),)}


def rows(step: int) -> TokenBatch:
    """The whole batch of a step; the further down a row is, the more of its targets are masked."""
    draw = torch.Generator().manual_seed(step)
    tokens = torch.randint(61, (ROWS, 17), generator=draw)
    targets = tokens[:, 1:].clone()
    targets[torch.rand(targets.shape, generator=draw) < torch.arange(ROWS)[:, None] / ROWS] = IGNORED
    return batch(tokens[:, :-1], targets)


def batch(inputs: Tensor, targets: Tensor) -> TokenBatch:
    positions = torch.arange(16).expand(len(inputs), -1).contiguous()
    count = int((targets != IGNORED).sum())
    return TokenBatch(inputs.contiguous(), targets.contiguous(), positions, packed=False, target_count=count)


def shares(step: int, world: World) -> list[TokenBatch]:
    """This rank's two micro-batches of a step."""
    whole, most = rows(step), ROWS // world.size // 2
    begins = [world.rank * 2 * most, (world.rank * 2 + 1) * most]
    return [batch(whole.inputs[one : one + most], whole.targets[one : one + most]) for one in begins]


def model(shape: str, world: World) -> Decoder:
    """The same weights on one rank alone as on the main one of several; the others have none."""
    with torch.device("cpu" if world.main else "meta"):
        return Decoder(SHAPES[shape], generator=torch.Generator().manual_seed(1))


def engine(kind: str, shape: str, optimizer: str, world: World, precision: str = "fp32") -> Engine:
    parallel = Parallel.model_validate(WAYS[kind])
    return parallel.build(model(shape, world), OPTIMIZERS[optimizer], world, clip=1.0, precision=precision)


def any_optimizer(kind: str) -> str:
    """The most demanding one that this way to share the work takes."""
    return "adamw" if kind in FAMILIES["deepspeed"] else "muon"


def advance(one: Engine, steps: range) -> dict[str, list[float]]:
    results = [one.step(shares(step, one.world), factor=1.0, step=step, seed=1) for step in steps]
    return {
        "loss": [result.loss.item() for result in results],
        "norm": [result.gradient_norm.item() for result in results],
        "targets": [result.targets for result in results],
    }


def weights(one: Engine) -> dict[str, Tensor]:
    whole = one.whole(torch.device("cpu"))
    return {} if whole is None else {name: value.detach().clone() for name, value in whole.named_parameters()}


def course(make: Callable[[], Engine], kept: Path) -> dict[str, Any]:
    """A whole run, which keeps its state half-way; and how it is gone on with from there, by a new engine."""
    one = make()
    first = advance(one, range(SAVED_AT))
    keep(kept, one)
    held = size_of(one.state())
    second = advance(one, range(SAVED_AT, STEPS))
    other = make()
    resume(other, kept)
    again = advance(other, range(SAVED_AT, STEPS))
    ends = weights(one), weights(other)
    same = all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    found = {"first": first, "second": second, "weights": ends[0], "state_bytes": held}
    return {**found, "resumed_bitwise": same and again == second}


def keep(kept: Path, one: Engine) -> None:
    """What all ranks hold, each in a file of its own."""
    kept.mkdir(exist_ok=True)
    state = {"engine": one.state(), "weights": weights(one)}
    if one.world.main:
        save_state(kept, state, size=one.world.size)
    else:
        save_rows(kept / tensors_file(one.world.rank), state)


def resume(one: Engine, kept: Path) -> None:
    one.world.most(0)  # all ranks have written
    state = load_state(kept)
    one.load_weights(state["weights"])
    one.load_state(state["engine"])


def in_bf16(kind: str, world: World) -> dict[str, object]:
    """Two steps with narrow products."""
    return advance(engine(kind, "llama", "adamw", world, "bf16"), range(2))


def masked(kind: str, world: World) -> float:
    """The loss of a step in which only the first rank has a target: the others take part all the same."""
    one = engine(kind, "llama", "adamw", world)
    whole = rows(0)
    own = slice(0, 1) if world.main else slice(ROWS - 1, ROWS)
    targets = whole.targets[own] if world.main else torch.full_like(whole.targets[own], IGNORED)
    return one.step([batch(whole.inputs[own], targets)], factor=1.0, step=0, seed=1).loss.item()


def poisoned(kind: str, world: World) -> bool:
    """Whether a gradient that is no number on the last rank alone leaves every rank's weights as they were."""
    one = engine(kind, "llama", any_optimizer(kind), world)
    before = weights(one)
    if world.rank == world.size - 1:
        one.model.norm.register_forward_hook(lambda module, given, made: made * float("nan"))
    result = one.step(shares(0, world), factor=1.0, step=0, seed=1)
    after = weights(one)
    return not result.applied and all(torch.equal(before[name], after[name]) for name in before)


def leapt(kind: str, world: World) -> list[bool]:
    """Which steps are made, by every rank alike, below, at and above the loss that the whole batch has."""
    optimizer, made = any_optimizer(kind), []
    at = engine(kind, "llama", optimizer, world).step(shares(0, world), factor=1.0, step=0, seed=1).loss.item()
    for limit in (at - 1e-4, at, at + 1e-4):
        one = engine(kind, "llama", optimizer, world)
        before = weights(one)
        result = one.step(shares(0, world), factor=1.0, step=0, seed=1, limit=limit)
        after = weights(one)
        same = all(torch.equal(before[name], after[name]) for name in before)
        assert not world.main or same is not result.applied, "all of the update or nothing of it"
        assert result.applied is bool(world.agreed(result.applied))
        made.append(result.applied)
    return made


def scored(kind: str, world: World) -> list[float]:
    """The held-out loss, each rank on its own rows, between two steps, whose second is that of an unmeasured run."""
    one = engine(kind, "gpt2", "adamw", world)
    one.step(shares(0, world), factor=1.0, step=0, seed=1)
    loss = held_out_loss(one.model, shares(7, world), torch.ones(61, dtype=torch.long), world).loss
    after = one.step(shares(1, world), factor=1.0, step=1, seed=1).loss.item()
    return [loss, after]


def compiled(kind: str, world: World) -> dict[str, dict[str, list[float]]]:
    """The same two steps by an engine as it is, and by one that is compiled."""
    plain, faster = (engine(kind, "llama", "adamw", world) for _ in range(2))
    faster.compile(shares(0, world)[:1])
    return {"plain": advance(plain, range(2)), "compiled": advance(faster, range(2))}


def exchanged(world: World) -> bool:
    """Whether work on whole matrices comes back right, also where a rank has no matrix or no row of any."""

    def work(stack: Tensor) -> Tensor:
        return stack * stack.sum((1, 2), keepdim=True)

    right = []
    for count, height in product((1, 2, 5), (1, 2, 7)):
        whole = torch.rand(count, height, 3, generator=torch.Generator().manual_seed(count))
        first = sum(world.rows(height)[: world.rank])
        own = slice(first, first + world.rows(height)[world.rank])
        right.append(torch.equal(replicated(whole, world, work), work(whole)))
        right.append(torch.equal(sharded(whole[:, own], height, world, work), work(whole)[:, own]))
    return all(right)


def main(folder: Path, family: str) -> None:
    """Every course of a family, and the courses that the other number of ranks began, gone on with here."""
    world = World.join("cpu")
    torch.set_num_threads(1)
    found: dict[str, object] = {}
    if family == "compiled":
        with world.together():
            found = {kind: compiled(kind, world) for kind in ("ddp", "zero3")}
            if world.main:
                save_state(folder / "compiled", found)
        return
    kinds, courses = FAMILIES[family], COURSES[family]
    with world.together():
        for kind, (shape, optimizer) in product(kinds if world.size > 1 else ("auto",), courses):
            name = f"{shape}-{optimizer}"
            make = partial(engine, kind, shape, optimizer, world)
            found[f"{kind}-{name}"] = course(make, folder / f"{world.size}-{kind}-{name}")
        for kind, (shape, optimizer) in product(kinds, courses):
            begun = f"1-auto-{shape}-{optimizer}" if world.size > 1 else f"2-{kind}-{shape}-{optimizer}"
            if (folder / begun).exists():
                # what DeepSpeed has begun, one process goes on with without it
                one = engine(kind if world.size > 1 or family == "native" else "auto", shape, optimizer, world)
                resume(one, folder / begun)
                found[f"{kind}-{shape}-{optimizer}-taken-over"] = {
                    "second": advance(one, range(SAVED_AT, STEPS)),
                    "weights": weights(one),
                }
        for kind in kinds:
            found[f"{kind}-bf16"] = in_bf16(kind, world)
            found[f"{kind}-masked"] = masked(kind, world)
            found[f"{kind}-scored"] = scored(kind, world)
            found[f"{kind}-poisoned"] = poisoned(kind, world)
            found[f"{kind}-leapt"] = leapt(kind, world)
        if world.size > 1 and family == "native":
            found["exchanged"] = not world.any(not exchanged(world))
        if world.main:
            save_state(folder / f"found-{world.size}", found)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
