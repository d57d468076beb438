"""`ingot bench prepare`: JSON lines to a token cache, beside how others do it, and what reading the cache costs.

Every contender is a process of its own, timed from its start to its end, Python's own start and the writing included.
All read the same corpus and have the same vocabulary; they take turns, round by round.
"""

from __future__ import annotations

import importlib.util
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from ingot.bench.corpus import write_corpus
from ingot.bench.loading import seconds_per_read
from ingot.config.text import to_yaml
from ingot.data.build.report import count
from ingot.data.cache import TokenCache
from ingot.data.source import HeldOut, Local
from ingot.distributed import cores
from ingot.errors import UserError
from ingot.extras import pip_install
from ingot.model.architecture import Architecture
from ingot.recipe.recipe import Recipe
from ingot.recipe.sections import Data
from ingot.tokenizer.training import BPE, TokenizerFile

VOCABULARY = 16_384
TRAIN_BYTES = 20_000_000  # of the corpus, for the vocabulary
LOOK_SECONDS = 0.1  # between two looks at a contender's memory


@dataclass
class Contender:
    """One way to prepare, and what its rounds took. `needs`: the library without which it can't run."""

    name: str
    command: list[str]
    needs: str = ""
    seconds: list[float] = field(default_factory=list)
    peaks: list[int] = field(default_factory=list)  # bytes of memory, over all of its processes

    @property
    def median(self) -> float:
        """Seconds of the median round."""
        return statistics.median(self.seconds)


def bench_prepare(megabytes: float, rounds: int) -> list[Contender]:
    """Measure every contender `rounds` times on `megabytes` of text, and print the table.

    One that fails is left out, with a line that says why. Raises UserError where ingot itself is, and where there is no
    text at hand.
    """
    console = Console(highlight=False, markup=False, soft_wrap=True)
    with tempfile.TemporaryDirectory(prefix="ingot-bench-") as name:
        folder = Path(name)
        console.print(f"writing {megabytes:,.0f} MB of text", style="dim")
        documents, size, new = write_corpus(folder / "corpus.jsonl", megabytes)
        console.print(f"training a tokenizer of {VOCABULARY:,} tokens for all", style="dim")
        _write_tokenizer(folder)
        running = _installed(_contenders(folder), console)
        for _ in range(rounds):
            for contender in list(running):
                if problem := _measure(contender, folder):
                    console.print(f"left out: {contender.name}: {problem}")
                    running.remove(contender)
        if not any(contender.name == "ingot" for contender in running):
            raise UserError("ingot's own preparing could not be measured", where="bench", mend="see what was left out")
        console.print(_table(running, f"{documents:,} documents, {size / 1e6:,.0f} MB", new, size, rounds))
        console.print(_loading(next((folder / "ingot").glob("*/index.json")).parent))
    return running


def _write_tokenizer(folder: Path) -> None:
    source = Local(path=str(folder / "corpus.jsonl"), max_bytes=TRAIN_BYTES)
    texts = (record.text for part in source.parts() for record in source.documents(part) if hasattr(record, "text"))
    BPE(vocabulary=VOCABULARY, train_bytes=TRAIN_BYTES).train(texts).save(folder / "tokenizer")


def _contenders(folder: Path) -> list[Contender]:
    """What is measured: ingot as it is called from a shell, and its peers."""
    recipe = Recipe(
        name="bench",
        data=Data(sources=[Local(path=str(folder / "corpus.jsonl"))], held_out=HeldOut(share=0)),
        tokenizer=TokenizerFile(path=str(folder / "tokenizer")),
        model=Architecture(family="qwen3", context=256, layers=1, hidden_size=64, heads=1),  # a recipe names one
        cache=folder / "ingot",
    )
    (folder / "recipe.yaml").write_text(to_yaml(recipe), encoding="utf-8")
    places = [str(folder / place) for place in ("corpus.jsonl", "tokens.bin", "tokenizer")]

    def peer(name: str, key: str, needs: str = "tiktoken") -> Contender:
        return Contender(name, ["-m", "ingot.bench.peers", key, *places], needs)

    return [
        peer("tiktoken, a plain loop", "tiktoken"),
        peer("tiktoken, two threads", "tiktoken-threads"),
        peer("nanoGPT's way", "nanogpt"),
        peer("tokenizers, batches", "tokenizers", "tokenizers"),
        Contender("ingot", ["-m", "ingot", "prepare", str(folder / "recipe.yaml")]),
    ]


def _installed(contenders: Sequence[Contender], console: Console) -> list[Contender]:
    found = []
    for contender in contenders:
        if contender.needs and not importlib.util.find_spec(contender.needs):
            console.print(f"left out: {contender.name}: {contender.needs} is missing; {pip_install('bench')}")
        else:
            found.append(contender)
    return found


def _measure(contender: Contender, folder: Path) -> str:
    """One round of a contender; what went wrong, if something did."""
    shutil.rmtree(folder / "ingot", ignore_errors=True)
    (folder / "tokens.bin").unlink(missing_ok=True)
    with (folder / "said.txt").open("w+") as said:
        began = time.perf_counter()
        process = subprocess.Popen([sys.executable, *contender.command], stdout=said, stderr=said)
        peak = 0
        while True:
            try:
                process.wait(LOOK_SECONDS)
                break
            except subprocess.TimeoutExpired:
                peak = max(peak, _memory(process.pid))
        contender.seconds.append(time.perf_counter() - began)
        contender.peaks.append(peak)
        said.seek(0)
        lines = said.read().strip().splitlines()
    return "" if process.returncode == 0 else (lines or [f"exit status {process.returncode}"])[-1]


def _memory(process: int) -> int:
    """Bytes that a process and all below it hold; what several share is counted once, where the system tells."""
    total = 0
    try:
        parent = psutil.Process(process)
        for one in (parent, *parent.children(recursive=True)):
            held = one.memory_full_info()
            total += getattr(held, "pss", held.rss)
    except psutil.Error:  # it has just ended
        pass
    return total


def _table(contenders: Sequence[Contender], corpus: str, new: float, size: int, rounds: int) -> Table:
    title = (
        f"JSON lines to token ids: {corpus} without repeats, 1 word in {1 / max(new, 1e-9):,.0f} a new one; "
        f"{cores()} cores, vocabulary {VOCABULARY:,}.\n"
        f"From the start of a process to its end, median of {count(rounds, 'round')}; memory of all its processes."
    )
    table = Table(title=title, title_justify="left")
    for column in ("how", "seconds", "MB/s", "peak", "ingot ahead by"):
        table.add_column(column, justify="left" if column == "how" else "right", no_wrap=True)
    best = next(contender.median for contender in contenders if contender.name == "ingot")
    for contender in contenders:
        peak = f"{max(contender.peaks) / 1e6:,.0f} MB"
        rate, ahead = f"{size / 1e6 / contender.median:,.1f}", f"{contender.median / best:.2f}x"
        table.add_row(contender.name, f"{contender.median:,.2f}", rate, peak, ahead)
    return table


def _loading(cache: Path) -> str:
    """What reading the rows of a step costs, as a share of a step of the demo's size on this machine."""
    from ingot.bench.train import ROWS, SHAPE, step_seconds

    read = seconds_per_read(TokenCache.open(cache).train, context=SHAPE.context, batch_tokens=ROWS * SHAPE.context)
    step = step_seconds()
    return (
        f"Loading: {read * 1e3:,.2f} ms for a step of {ROWS} rows of {SHAPE.context} tokens, {read / step:.2%} of the "
        f"{step * 1e3:,.0f} ms that the step takes ({SHAPE.layers} layers, hidden size {SHAPE.hidden_size})."
    )
