"""What was written after many prompts, as a file of the form that its name asks for."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ingot.errors import UserError
from ingot.generate.token import Reason

RULE = "\n\n---\n\n"


@dataclass(frozen=True)
class Result:
    """A prompt and what was written after it."""

    prompt: str
    text: str
    reason: Reason
    """why the text ends: end, stop, length or context"""
    tokens: int
    """that were made"""
    answers: bool = False
    """whether the text is an answer to the prompt rather than its continuation"""

    @property
    def fields(self) -> dict[str, Any]:
        """As a record of a table."""
        return {"prompt": self.prompt, "text": self.text, "reason": self.reason, "tokens": self.tokens}


def form_of(path: Path) -> Callable[[Sequence[Result]], str]:
    """How results are written into a file of this name. Raises UserError for a name that is of no known form."""
    form = FORMS.get(path.suffix.lower())
    if not form:
        mend = f"give a name that ends in {', '.join(FORMS)}"
        raise UserError(f"results are not written as {path.suffix or 'a file without an ending'}", str(path), mend)
    return form


def continuous(results: Sequence[Result]) -> str:
    """Prompt and text of each as one text, a rule between them, as for a person to read."""
    whole = [f"{one.prompt}{RULE[:2] if one.answers else ''}{one.text}" for one in results]
    return RULE.join(whole) + "\n"


def _json(results: Sequence[Result]) -> str:
    return json.dumps([one.fields for one in results], ensure_ascii=False, indent=1) + "\n"


def _json_lines(results: Sequence[Result]) -> str:
    return "".join(json.dumps(one.fields, ensure_ascii=False) + "\n" for one in results)


def _table(results: Sequence[Result]) -> str:
    file = io.StringIO()
    rows = csv.DictWriter(file, ["prompt", "text", "reason", "tokens"], lineterminator="\n")
    rows.writeheader()
    rows.writerows(one.fields for one in results)
    return file.getvalue()


def _markdown(results: Sequence[Result]) -> str:
    sections = []
    for number, one in enumerate(results, 1):
        quoted = "\n".join(f"> {line}".rstrip() for line in one.prompt.split("\n"))
        sections.append(f"## {number}\n\n{quoted}\n\n{one.text.strip()}\n")
    return "\n".join(sections)


FORMS: dict[str, Callable[[Sequence[Result]], str]] = {
    ".json": _json,
    ".jsonl": _json_lines,
    ".csv": _table,
    ".md": _markdown,
    ".txt": continuous,
}
