"""One shape's training steps in this process: prints what it held before and at most, in bytes."""

from __future__ import annotations

import json
import resource
import sys

import psutil
import torch

from ingot.data.loader import TokenBatch
from ingot.distributed import World
from ingot.engine.device import keep_freed_memory
from ingot.engine.parallel import Automatic
from ingot.model.architecture import Architecture
from ingot.model.decoder import Decoder
from ingot.optim.optimizer import Optimizer

SMALL = {"layers": 1, "hidden_size": 64, "heads": 2, "kv_heads": 0, "head_size": 0, "mlp_size": 0, "context": 32}


def train(arch: Architecture, rows: int, passes: int, steps: int) -> None:
    """Some steps on random tokens, each of so many forward passes."""
    model, optimizer = Decoder(arch), Optimizer.model_validate(SPEC["optimizer"])
    engine = Automatic().build(model, optimizer, World.alone("cpu"), clip=1.0, precision=SPEC["precision"])
    length = arch.context
    batches = []
    for _ in range(passes):
        tokens = torch.randint(arch.vocabulary, (rows, length + 1))
        positions = torch.arange(length).expand(rows, -1).contiguous()
        inputs, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
        batches.append(TokenBatch(inputs, targets, positions, SPEC["packed"], rows * length))
    for step in range(steps):
        engine.step(batches, factor=1.0, step=step, seed=1)


SPEC = json.loads(sys.argv[1])
keep_freed_memory(torch.device("cpu"))
train(Architecture(**SPEC["arch"] | SMALL | {"vocabulary": 256}), 2, 1, 1)  # what libraries take once
before = psutil.Process().memory_info().rss
train(Architecture(**SPEC["arch"]), SPEC["rows"], SPEC["passes"], 3)
print(json.dumps([before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024]))
