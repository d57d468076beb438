"""`ingot bench generate`: ingot beside transformers and llama.cpp, with the same weights.

Each contender lives in a process of its own, and all take turns, task by task.
"""

from __future__ import annotations

import contextlib
import importlib.util
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from ingot.bench.turns import answer, begin
from ingot.bench.writers import Writer
from ingot.engine.compiled import reason
from ingot.errors import UserError
from ingot.extras import pip_install
from ingot.model.architecture import Architecture
from ingot.model.decoder import Decoder
from ingot.model.huggingface import save_model
from ingot.tokenizer.training import BPE

SHAPES = {
    "135M": Architecture(
        family="llama", vocabulary=49152, context=2048, layers=30, hidden_size=576, heads=9, kv_heads=3,
        mlp_size=1536, tied=True,
    ),
    "15M": Architecture(
        family="llama", vocabulary=32000, context=1024, layers=6, hidden_size=288, heads=6, mlp_size=768, tied=True
    ),
}  # fmt: skip
LEAST_ROUNDS = 3
LLAMA_CPP = ("bf16", "q8_0", "q4_0")


@dataclass(frozen=True)
class Task:
    """So many texts of so many tokens are continued by so many; the tokens that count."""

    texts: int
    prompt: int
    new: int
    counted: int


TASKS = {
    "1 text": Task(1, 8, 64, 64),
    "16 texts": Task(16, 8, 32, 16 * 32),
    "reading 512": Task(1, 512, 1, 512),
}


@dataclass
class Contender:
    """A writer, and the seconds that it took for each task."""

    writer: Writer
    pipe: Connection
    seconds: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in TASKS})

    def rate(self, task: str) -> float:
        """Tokens a second, by the fastest round: what disturbs a machine only ever slows it."""
        return TASKS[task].counted / min(self.seconds[task])


def bench_generate(shape: str, seconds: float) -> Mapping[str, Contender]:
    """Measure every contender, for about `seconds` in all once they are warm, and print the table.

    One that fails is left out, with a line that says why. Raises UserError where ingot itself is among them.
    """
    if shape not in SHAPES:
        raise UserError(f"there is no shape {shape!r}", where="bench", mend=f"take one of {', '.join(SHAPES)}")
    console = Console(highlight=False)
    running: dict[str, Contender] = {}

    def leave_out(name: str, why: object) -> None:
        console.print(f"left out: {name}: {why}", markup=False, soft_wrap=True)
        running.pop(name, None)

    with tempfile.TemporaryDirectory(prefix="ingot-bench-") as place:
        folder = Path(place)
        missing = _write_model(SHAPES[shape], folder)
        for writer in _writers():
            if why := missing.get(writer.maker):
                leave_out(writer.name, why)
                continue
            console.print(f"warming up: {writer.name}", style="dim")
            pipe = begin(_work, writer, folder)
            if why := answer(pipe):
                leave_out(writer.name, why)
            else:
                running[writer.name] = Contender(writer, pipe)
        end, rounds = time.monotonic() + seconds, 0
        while running and (time.monotonic() < end or rounds < LEAST_ROUNDS):
            for task in TASKS:
                for name, contender in list(running.items()):
                    took = answer(contender.pipe, task)
                    contender.seconds[task].append(took) if isinstance(took, float) else leave_out(name, took)
            rounds += 1
        for contender in running.values():
            contender.pipe.close()  # which ends the process
    if not any(contender.writer.maker == "ingot" for contender in running.values()):
        raise UserError("nothing of ingot's own could be measured", where="bench", mend="see what was left out above")
    console.print(_table(running, shape, rounds))
    return running


def _writers() -> list[Writer]:
    wanted = {"transformers": ("fp32", "bf16"), "llama.cpp": LLAMA_CPP, "ingot": ("fp32", "bf16", "int8", "int4")}
    return [Writer(maker, numbers) for maker, some in wanted.items() for numbers in some]


def _write_model(arch: Architecture, folder: Path) -> dict[str, str]:
    """The same random weights for all, as a folder and as GGUF files; who can't take part, and why."""
    torch.manual_seed(0)
    model, text = Decoder(arch), "A few words, of which nobody reads any."
    tokenizer = BPE(vocabulary=300).train(iter([text]))
    save_model(model, folder, end=tokenizer.end)
    tokenizer.save(folder)
    missing = {}
    if not importlib.util.find_spec("transformers"):
        missing["transformers"] = pip_install("hf")
    if not (importlib.util.find_spec("xllamacpp") and importlib.util.find_spec("gguf")):
        missing["llama.cpp"] = pip_install("export")
        return missing
    from ingot.convert.gguf.writer import write

    for kind in LLAMA_CPP:
        write(folder / f"{kind}.gguf", model, tokenizer, kind)
    return missing


def _work(writer: Writer, folder: Path, pipe: Connection) -> None:
    """A contender's process: warm up, say so or what went wrong, then do and time the task of each word received."""
    try:
        context = max(task.prompt + task.new for task in TASKS.values()) + 8
        write = writer.open(folder, context)
        for task in TASKS.values():
            write(_prompts(task), min(task.new, 4))
    except Exception as error:  # whatever it is, the others are still worth measuring
        pipe.send(reason(error))
        return
    pipe.send("")
    with contextlib.suppress(EOFError):
        while name := pipe.recv():
            task = TASKS[name]
            prompts = _prompts(task)
            began = time.perf_counter()
            write(prompts, task.new)
            pipe.send(time.perf_counter() - began)


def _prompts(task: Task) -> list[list[int]]:
    return torch.randint(256, (task.texts, task.prompt)).tolist()


def _table(running: Mapping[str, Contender], shape: str, rounds: int) -> Table:
    arch = SHAPES[shape]
    title = (
        f"Tokens a second on {torch.get_num_threads()} threads: {shape} parameters ({arch.layers} layers, hidden size "
        f"{arch.hidden_size}, vocabulary {arch.vocabulary:,}), always the likeliest token.\n"
        f"64 after 1 text of 8 tokens, 32 after each of 16 texts, and reading 512. Fastest of {rounds} rounds."
    )
    table = Table(title=title, title_justify="left")
    table.add_column("writer", no_wrap=True)
    for task in TASKS:
        table.add_column(task, justify="right", no_wrap=True)
    for name, contender in running.items():
        table.add_row(name, *(f"{contender.rate(task):,.0f}" for task in TASKS))
    return table
