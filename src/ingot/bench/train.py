"""`ingot bench train`: a whole training step of ingot beside plain PyTorch and transformers.

Each contender lives in a process of its own, set up as its users set it up, and all take turns step by step, so that a
machine whose speed drifts drifts for all of them.
"""

from __future__ import annotations

import contextlib
import importlib.util
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from ingot.bench.plain import PlainDecoder, TransformersDecoder
from ingot.bench.turns import answer, begin
from ingot.data.loader import TokenBatch
from ingot.distributed import World
from ingot.engine.compiled import reason
from ingot.engine.device import describe, has_compiler, keep_freed_memory, matmul_peak
from ingot.engine.parallel import Automatic
from ingot.engine.precision import by_speed, narrowed
from ingot.errors import UserError
from ingot.model.architecture import Architecture, flops_per_token
from ingot.model.decoder import Decoder
from ingot.optim.optimizer import AdamW

SHAPE = Architecture(
    family="qwen3", vocabulary=8192, context=256, layers=6, hidden_size=384, heads=6, kv_heads=6, mlp_size=1024
)
ROWS = 16
LEAST_ROUNDS = 3


@dataclass
class Contender:
    """One way to make a training step: `maker`, `precision`, compiled or not; and the seconds that its steps took."""

    maker: str
    precision: str
    compiled: bool
    seconds: list[float] = field(default_factory=list)

    @property
    def name(self) -> str:
        """In words."""
        return f"{self.maker}, {'compiled' if self.compiled else 'eager'}, {self.precision}"

    @property
    def tokens_per_second(self) -> float:
        """By the median step."""
        return ROWS * SHAPE.context / statistics.median(self.seconds)


def bench_train(seconds: float) -> list[Contender]:
    """Measure every contender, for about `seconds` in all once they are warm, and print the table.

    One that fails is left out, with a line that says why. Raises UserError where ingot itself is among them.
    """
    console, device = Console(highlight=False), World.alone().device
    running: list[tuple[Contender, Connection]] = []

    def leave_out(contender: Contender, reason: object) -> None:
        console.print(f"left out: {contender.name}: {reason}", markup=False, soft_wrap=True)

    for contender in _contenders(device):
        console.print(f"warming up: {contender.name}", style="dim")
        pipe = begin(_work, contender, device)
        if problem := answer(pipe):
            leave_out(contender, problem)
        else:
            running.append((contender, pipe))
    rates: dict[str, list[float]] = {precision: [] for precision in ("fp32", "bf16")}
    end, rounds = time.monotonic() + seconds, 0
    while running and (time.monotonic() < end or rounds < LEAST_ROUNDS):
        for contender, pipe in list(running):
            took = answer(pipe, "step")
            if isinstance(took, float):
                contender.seconds.append(took)
            else:
                leave_out(contender, took)
                running.remove((contender, pipe))
        for precision, found in rates.items():
            found.append(matmul_peak(device, precision))
        rounds += 1
    for _, pipe in running:
        pipe.close()  # which ends the process
    measured = [contender for contender, _ in running]
    if not any(contender.maker == "ingot" for contender in measured):
        raise UserError("no step of ingot's own could be measured", where="bench", mend="see what was left out above")
    peaks = {precision: statistics.median(found) for precision, found in rates.items()}  # as the steps: by the median
    console.print(_table(measured, peaks, describe(device).device, rounds))
    return measured


def _contenders(device: torch.device) -> list[Contender]:
    """All in the precision that is fastest here, and plain PyTorch's autocast to bf16, with which most begin."""
    fastest = by_speed(World(0, 1, device))[0]
    modes = [False, True] if has_compiler(device) else [False]
    plain = [("PyTorch", precision, mode) for precision in dict.fromkeys(("bf16", fastest)) for mode in modes]
    peer = [("transformers", fastest, False)] if importlib.util.find_spec("transformers") else []
    own = [("ingot", fastest, mode) for mode in modes]
    return [Contender(*setting) for setting in (*plain, *peer, *own)]


def _work(contender: Contender, device: torch.device, pipe: Connection) -> None:
    """A contender's process: warm up, say so or what went wrong, then make and time a step for each word received."""
    try:
        step = (_ingot_step if contender.maker == "ingot" else _plain_step)(contender, device)
        for _ in range(2):
            step()
    except Exception as error:  # whatever it is, the others are still worth measuring
        pipe.send(reason(error))
        return
    pipe.send("")
    with contextlib.suppress(EOFError):
        while pipe.recv():
            began = time.perf_counter()
            step()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            pipe.send(time.perf_counter() - began)


def _plain_step(contender: Contender, device: torch.device) -> Callable[[], object]:
    """The loop that one writes by hand: autocast, cross-entropy over all logits, fused AdamW, clipping."""
    model = (PlainDecoder if contender.maker == "PyTorch" else TransformersDecoder)(SHAPE).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    forward = torch.compile(model) if contender.compiled else model
    tokens = torch.randint(SHAPE.vocabulary, (ROWS, SHAPE.context + 1)).to(device)
    inputs, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()

    def step() -> float:
        with narrowed(contender.precision, tokens.device):
            loss = forward(inputs, targets)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return step


def _ingot_step(contender: Contender, device: torch.device) -> Callable[[], object]:
    """The step that `ingot train` makes. Raises what the compiler raises where it was to be compiled and can't be."""
    keep_freed_memory(device)
    world = World(0, 1, device)
    engine = Automatic().build(Decoder(SHAPE), AdamW(), world, clip=1.0, precision=contender.precision)
    tokens = torch.randint(SHAPE.vocabulary, (ROWS, SHAPE.context + 1))
    positions = torch.arange(SHAPE.context).expand(ROWS, -1).contiguous()
    batch = TokenBatch(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous(), positions, False, ROWS * SHAPE.context)
    if contender.compiled:
        engine.compile([batch])
    return lambda: engine.step([batch], factor=1.0, step=0, seed=1).loss.item()


def step_seconds(steps: int = 5) -> float:
    """Seconds of ingot's own step on this machine, uncompiled, by the median: what other costs are set against."""
    device = World.alone().device
    step = _ingot_step(Contender("ingot", by_speed(World(0, 1, device))[0], False), device)
    step()
    seconds = []
    for _ in range(steps):
        began = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def _table(contenders: list[Contender], peaks: dict[str, float], device: str, rounds: int) -> Table:
    flops = flops_per_token(SHAPE, SHAPE.context)
    rates = ", ".join(f"{peak / 1e9:,.0f} GFLOP/s in {precision}" for precision, peak in peaks.items())
    title = (
        f"Whole training steps on {device}: {SHAPE.layers} layers, hidden size {SHAPE.hidden_size}, {ROWS} rows of "
        f"{SHAPE.context} tokens, vocabulary {SHAPE.vocabulary:,}, AdamW.\nMatmul peak measured beside them: {rates}. "
        f"Median of {rounds} steps each."
    )
    table = Table(title=title, title_justify="left")
    for column in ("step", "tokens/s", "of peak", "ingot ahead by"):
        table.add_column(column, justify="left" if column == "step" else "right", no_wrap=True)
    best = max(contender.tokens_per_second for contender in contenders if contender.maker == "ingot")
    for contender in contenders:
        rate = contender.tokens_per_second
        table.add_row(
            contender.name, f"{rate:,.0f}", f"{rate * flops / max(peaks.values()):.0%}", f"{best / rate:.2f}x"
        )
    return table
