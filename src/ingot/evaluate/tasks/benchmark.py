"""A named task and its records, wherever they lie; one reads every record and accounts for each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ingot.errors import UserError
from ingot.evaluate.tasks.task import Item, Task, Unusable
from ingot.evaluate.text import Tally

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Benchmark:
    """A task by its name. `records` gives what is asked; what is no record is the reason in words."""

    name: str
    task: Task
    records: Callable[[], Iterable[Record | str]]
    source: str
    """where items and prompt come from"""
    shape: Callable[[Record], Record] = dict
    """what happens to a record before the templates"""
    metric: str = ""
    """the metric to compare by; empty: the kind's own"""

    @property
    def primary(self) -> str:
        """The metric to compare by."""
        return self.metric or self.task.primary

    def items(self, tally: Tally, limit: int | None = None) -> list[Item]:
        """The usable items, or `limit` of the records evenly spread; `tally` counts all records.

        Raises UserError for a task without records.
        """
        records = list(self.records())
        if not records:
            raise UserError("this task has no items", where=self.name, mend="look at its file")
        items = []
        for record in (records[place] for place in tally.spread(len(records), limit)):
            try:
                if isinstance(record, str):
                    raise Unusable(record)
                items.append(self.task.item(self._shaped(record)))
            except Unusable as unusable:
                tally.skip(str(unusable))
        return items

    def _shaped(self, record: Record) -> Record:
        try:
            return self.shape(record)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise Unusable(f"missing field: {error}") from None
