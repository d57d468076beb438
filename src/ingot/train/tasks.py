"""Tasks in the training loop: a slice of each, recorded in metrics.jsonl."""

from __future__ import annotations

from ingot.evaluate.tasks.local import find
from ingot.evaluate.tasks.scoring import Examination
from ingot.evaluate.text import Tally
from ingot.train.loop import State
from ingot.train.parts import Parts


class Tasks:
    """The tasks of a recipe's `evaluation`, scored as it says."""

    def __init__(self, parts: Parts):
        """Raises UserError for a task that is not there, or that has no items, before the first step."""
        self._parts, self._items = parts, parts.recipe.evaluation.tasks_items
        self._benchmarks = find(parts.recipe.evaluation.tasks)
        for benchmark in self._benchmarks:
            benchmark.items(Tally(), self._items)

    def score(self, state: State) -> None:
        """Score a slice of each task and record it; the main rank's work, on the whole model."""
        parts = self._parts
        model = parts.engine.whole() if self._benchmarks else None
        if model is None:
            return
        record: dict[str, object] = {"kind": "tasks", "step": state.step, "tokens": state.tokens}
        record |= {"seconds": state.seconds, "items": self._items}
        examination = Examination(model, parts.tokenizer)
        for benchmark in self._benchmarks:
            parts.meter.doing(f"scoring {benchmark.name}")
            found = examination.score(benchmark, self._items)
            record |= {f"{found.task}/{name}": measure.value for name, measure in found.metrics.items()}
            shown = found.metrics[found.primary]
            if shown.value is not None:
                sure = "" if shown.low is None else f" ({shown.low:.3f}–{shown.high:.3f})"
                guessing = "" if found.chance is None else f", guessing {found.chance:.3f}"
                line = f"{found.task} {found.primary} {shown.value:.3f}{sure}{guessing}"
                parts.meter.say(f"step {state.step:>6,}  {line} on {found.items.read:,} items")
        parts.tracker.log(record)
