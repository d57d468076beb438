"""What a run says: a live display, lines in log.txt, and one record a step in metrics.jsonl."""

from __future__ import annotations

import contextlib
import datetime
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from ingot.engine.engine import StepResult
from ingot.evaluate.loss import HeldOutLoss
from ingot.files import disk_errors
from ingot.model.architecture import Architecture, flops_per_token
from ingot.rhythm import in_words
from ingot.track.tracker import Tracker
from ingot.train.forecast import Outlook
from ingot.train.waiting import QUIET_SECONDS

if TYPE_CHECKING:
    from ingot.train.loop import State

WINDOW = 20  # steps over which the display averages
WORTH_SAYING = 60.0  # seconds left of a run, above which one wants to know
USAGE_SECONDS = 15.0  # between two records of what the machine is doing


class Meter:
    """The voice of a run; one that is not `active`, as on all ranks but the first, is silent."""

    def __init__(self, folder: Path, tracker: Tracker, *, active: bool = True):
        self.tracker = tracker
        self.active = active
        self.console = Console(highlight=False, quiet=not active)
        self._log = folder / "log.txt"
        self._recent: deque[tuple[float, int, float, float]] = deque(
            maxlen=WINDOW
        )  # of a step: seconds, tokens, loss, FLOPs
        self._validation = ""
        self._spoke = 0.0
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            TextColumn("step {task.completed:,.0f}/{task.total:,.0f}"),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
            console=self.console,
            expand=True,
        )
        self._status = Text()
        self._peak: float | None = None
        self._looked: float | None = None  # at the machine: when
        self.outlook: Outlook | None = None

    def measure_against(
        self, arch: Architecture, peak: Callable[[], float], usage: Callable[[], Mapping[str, float]]
    ) -> None:
        """Show speed as a share of `peak`, in FLOP/s, for a model of this shape, and record the `usage` of the machine.

        Both are asked for when a step was made.
        """
        self._arch, self._measure_peak, self._usage = arch, peak, usage

    def look_ahead(self, outlook: Callable[[], Outlook]) -> None:
        """Tell how long the run will take once its first steps show it; `outlook` is asked for after the first."""
        self._make_outlook = outlook

    @contextlib.contextmanager
    def live(self, name: str, step: int, steps: int) -> Iterator[None]:
        """Show the bar of a run that stands at `step` of `steps`, where the output is a terminal."""
        self._task = self._progress.add_task(name, completed=step, total=steps)
        if not self.console.is_terminal:
            yield
            return
        self.doing("making the first step")
        with Live(Group(self._progress, self._status), console=self.console, refresh_per_second=4):
            yield

    def doing(self, what: str) -> None:
        """Show under the bar, until the next step, why it stands still."""
        self._status.plain = f"{what} …"

    def say(self, line: str) -> None:
        """One line above the bar, and into log.txt with the time."""
        if not self.active:
            return
        self.console.print(line, markup=False, soft_wrap=not self.console.is_terminal)  # there, words are not cut
        stamp = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        with disk_errors(self._log), self._log.open("a", encoding="utf-8") as file:
            file.write(f"{stamp} {line}\n")

    def step(
        self, state: State, result: StepResult, *, norm: float, factor: float, seconds: float, length: int
    ) -> None:
        """Record one step of rows of `length` tokens, at `factor` of the peak learning rate."""
        loss, targets, speed = state.loss, result.targets, result.targets / seconds
        flops = targets * flops_per_token(self._arch, length, result.head_rows)
        self._recent.append((seconds, targets, loss, flops))
        record: dict[str, Any] = {"kind": "train", "step": state.step, "tokens": state.tokens, "loss": loss}
        record |= {"rate": factor, "gradient_norm": norm, "seconds": state.seconds, "tokens_per_second": speed}
        record |= {"length": length, "batch_tokens": targets, "flops": flops}
        if self._peak:
            record["share_of_peak"] = flops / seconds / self._peak
        self.tracker.log(record)
        self._show(state, factor)
        if not self._peak:  # the first step waits for no measurement
            self._peak = self._measure_peak()
            self.tracker.log({"kind": "peak", "step": state.step, "matmul_peak": self._peak})
        self._look_at_machine(state)
        self._look_ahead(state, seconds)

    def left_out(self, state: State, reason: str, *, loss: float, norm: float, first: int) -> None:
        """Record the step that `state` stands behind, whose update was not applied; its blocks begin with `first`."""
        record = {"kind": "health", "step": state.step, "tokens": state.tokens, "loss": loss, "gradient_norm": norm}
        record |= {"seconds": state.seconds, "reason": reason, "blocks": [first, state.blocks]}
        self.tracker.log(record)
        self.say(f"step {state.step:>6,}  {reason}: the update was left out")

    def validation(self, state: State, result: HeldOutLoss, *, whole: bool) -> None:
        """Record a measurement on held-out text; `whole`: on all of it."""
        record: dict[str, Any] = {"kind": "validation", "step": state.step, "tokens": state.tokens, "loss": result.loss}
        record |= {"perplexity": result.perplexity, "bits_per_byte": result.bits_per_byte, "seconds": state.seconds}
        self.tracker.log(record | {"scored_tokens": result.tokens, "whole": whole})
        told = math.isfinite(result.bits_per_byte)  # what a tokenizer that loses text does not tell
        self._validation = f"{result.bits_per_byte:.3f} bits/byte" if told else f"loss {result.loss:.3f}"
        self._validation += " held out"
        extent = "all held-out text" if whole else f"{result.tokens:,} held-out tokens"
        bits = f"{result.bits_per_byte:.4f} bits per byte, " if told else ""
        self.say(f"step {state.step:>6,}  {bits}loss {result.loss:.4f}, perplexity {result.perplexity:.1f} on {extent}")

    def _look_ahead(self, state: State, seconds: float) -> None:
        if not self.active:
            return
        self.outlook = self.outlook or self._make_outlook()
        if self.outlook.hear(state.step, seconds, state.seconds):
            whole = self.outlook.seconds or 0.0
            told = {"seconds": whole, "memory": self.outlook.memory}
            self.tracker.log({"kind": "outlook", "step": state.step, **told})
            if whole - state.seconds > WORTH_SAYING:
                self.say(f"forecast by its first steps: {in_words(whole - state.seconds)} of training are left")

    def _look_at_machine(self, state: State) -> None:
        """Record what the machine is doing, after the first step and then now and then."""
        if self.active and (self._looked is None or time.monotonic() - self._looked > USAGE_SECONDS):
            self._looked = time.monotonic()
            at = {"step": state.step, "tokens": state.tokens, "seconds": state.seconds}
            self.tracker.log({"kind": "system", **at, **self._usage()})

    def _show(self, state: State, factor: float) -> None:
        seconds, targets, losses, flops = (sum(column) for column in zip(*self._recent, strict=True))
        parts = [f"loss {losses / len(self._recent):.3f}", f"{targets / seconds:,.0f} tokens/s"]
        parts += [f"{flops / seconds / self._peak:.0%} of matmul peak"] if self._peak else []
        parts += [f"rate ×{factor:.2f}"]
        parts += [self._validation] if self._validation else []
        line = "  ·  ".join(parts)
        if self.console.is_terminal:
            self._status.plain = line
            self._progress.update(self._task, completed=state.step)
        elif time.monotonic() - self._spoke > QUIET_SECONDS:
            self._spoke = time.monotonic()
            self.console.print(f"step {state.step:>6,}  {line}", markup=False, soft_wrap=True)
