"""What a model answered before, kept: an interrupted evaluation goes on, and a repeated one takes no time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ingot.track.tracker import JsonLines


class Answers:
    """Answers of one model by a digest of what it was asked, in a file of JSON lines; without a file, in memory."""

    def __init__(self, file: Path | None = None):
        """A line that a kill cut short is dropped. Raises UserError for a place that can't be written to."""
        self._lines = JsonLines(file) if file else None
        self._known: dict[str, Any] = {}
        if self._lines:
            self._known = {record["asked"]: record["answer"] for record in self._lines.records()}

    def __contains__(self, asked: str) -> bool:
        return asked in self._known

    def __getitem__(self, asked: str) -> Any:
        return self._known[asked]

    def keep(self, asked: str, answer: Any) -> None:
        """Note an answer, a plain value."""
        self._known[asked] = answer
        if self._lines:
            self._lines.log({"asked": asked, "answer": answer})

    def close(self) -> None:
        """Close the file."""
        if self._lines:
            self._lines.close()


def digest(parts: Iterable[Any]) -> str:
    """What stands for a question: 128 bits over plain values."""
    return hashlib.sha256(json.dumps(list(parts), ensure_ascii=True).encode()).hexdigest()[:32]
