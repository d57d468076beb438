"""One shape's training steps in this process: prints what it held before and at most, in bytes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import psutil
import torch

from ingot.data.loader import TokenBatch
from ingot.distributed import World, compile_into, most_held
from ingot.engine.device import keep_freed_memory
from ingot.engine.parallel import Automatic
from ingot.model.architecture import Architecture
from ingot.model.decoder import Decoder
from ingot.model.objective import Objective
from ingot.optim.optimizer import Optimizer

SMALL = {"layers": 1, "hidden_size": 64, "heads": 2, "kv_heads": 0, "head_size": 0, "mlp_size": 0, "context": 32}
STEPS = 14  # for the gaps between blocks of the heap go on growing for ten and more


def train(arch: Architecture, rows: int, passes: int, steps: int, compiled: bool) -> None:
    """Some steps on random tokens, each of so many forward passes."""
    model, optimizer = Decoder(arch), Optimizer.model_validate(SPEC["optimizer"])
    loss, world = Objective.model_validate(SPEC["loss"]), World.alone("cpu")
    engine = Automatic().build(model, optimizer, world, clip=1.0, precision=SPEC["precision"], objective=loss)
    length = arch.context
    batches = []
    for _ in range(passes):
        tokens = torch.randint(arch.vocabulary, (rows, length + 1))
        positions = torch.arange(length).expand(rows, -1).contiguous()
        inputs, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
        batches.append(TokenBatch(inputs, targets, positions, SPEC["packed"], rows * length))
    if compiled:
        engine.compile(batches[:1])
    for step in range(steps):
        engine.step(batches, factor=1.0, step=step, seed=1, candidates=loss.candidates(step / steps))


SPEC = json.loads(sys.argv[1])
keep_freed_memory(torch.device("cpu"))
compile_into(Path(SPEC["folder"]))
train(Architecture(**SPEC["arch"] | SMALL | {"vocabulary": 256}), 2, 1, 1, False)  # what libraries take once
before = psutil.Process().memory_info().rss
train(Architecture(**SPEC["arch"]), SPEC["rows"], SPEC["passes"], STEPS, SPEC["compiled"])
print(json.dumps([before, most_held()]))
