"""What every rank of test_lean_ranks.py runs, one of two or alone: narrow optimizer state, shared out."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import torch
from ranks import SAVED_AT, STEPS, advance, course, resume

from ingot.checkpoint.state import Rows, load_state, save_state
from ingot.distributed import World
from ingot.engine.engine import Engine
from ingot.engine.memory import recompute
from ingot.engine.parallel import Parallel
from ingot.model.architecture import Architecture
from ingot.model.decoder import Decoder
from ingot.optim.optimizer import AdamW8bit, Muon

# Matrices large enough to be narrowed; 61 rows of embedding and head do not split evenly.
SHAPE = Architecture(
    family="llama", vocabulary=61, context=16, layers=2, hidden_size=72, heads=2, mlp_size=270, dropout=0.0
)
COURSES = {
    "adamw8bit": AdamW8bit(lr=0.01),
    "muon-bf16": Muon(state="bf16"),
}


def engine(kind: str, name: str, world: World) -> Engine:
    with torch.device("cpu" if world.main else "meta"):
        model = Decoder(SHAPE, generator=torch.Generator().manual_seed(1))
    recompute(model, 1)
    return Parallel.model_validate(kind).build(model, COURSES[name], world, clip=1.0, precision="fp32")


def ran(kind: str, name: str, world: World, kept: Path) -> dict[str, object]:
    """A course, and the numbers in which the optimizer's state was kept."""
    found = course(partial(engine, kind, name, world), kept)
    states = load_state(kept)["engine"]["optimizer"]["state"].values()
    pieces = (value.pieces[0] if isinstance(value, Rows) else value for values in states for value in values.values())
    kinds = sorted({str(piece.dtype) for piece in pieces})
    return found | {"losses": found["first"]["loss"] + found["second"]["loss"], "kinds": kinds}


def main(folder: Path) -> None:
    """Every course; with several ranks also those that one rank alone began."""
    world = World.join("cpu")
    torch.set_num_threads(1)
    found: dict[str, object] = {}
    with world.together():
        for name in COURSES:
            for kind in ("ddp", "zero3") if world.size > 1 else ("auto",):
                found[f"{kind}-{name}"] = ran(kind, name, world, folder / f"{world.size}-{kind}-{name}")
            if world.size > 1:
                one = engine("zero3", name, world)
                resume(one, folder / f"1-auto-{name}")
                found[f"{name}-taken-over"] = advance(one, range(SAVED_AT, STEPS))["loss"]
        if world.main:
            save_state(folder / f"found-{world.size}", found)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
