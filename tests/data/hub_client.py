"""The hub's real clients in a process of their own, since they read HF_ENDPOINT when they are imported.

Takes one task a line as JSON, what to `do` and with what, and answers each in one line. Waits are written down and
not waited.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import datasets

from ingot.data.document import Conversation, Document
from ingot.data.hub import Hub
from ingot.data.resolved import resolve
from ingot.data.source import Source
from ingot.errors import UserError
from ingot.hub import download

waits: list[float] = []
logged: list[str] = []
clock = time.monotonic


class _Kept(logging.Handler):
    """What is logged, kept."""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        logged.append(record.getMessage())


def read(source: Source, folder: Path) -> dict[str, Any]:
    """Settle a source, and read all of it; a record as its text, the messages of a conversation, or why it is none."""
    said: list[str] = []
    records: list[Any] = []
    try:
        (settled,) = resolve([source], folder, said.append)
        for part in settled.parts():
            for record in settled.documents(part):
                if isinstance(record, Document):
                    records.append(record.text)
                elif isinstance(record, Conversation):
                    records.append([asdict(message) for message in record.messages])
                else:
                    records.append({"dropped": record.reason, "place": part.place(record.offset)})
    except UserError as error:
        return {"error": str(error), "said": said, "records": records}
    sizes = [part.size for part in settled.parts()]
    return {"records": records, "said": said, "settled": settled.to_dict(), "name": settled.name, "sizes": sizes}


def fetch(repository: str, file: str) -> dict[str, Any]:
    """Download one file of a model."""
    try:
        return {"text": download(repository, file, kind="model").read_text()}
    except UserError as error:
        return {"error": str(error)}


def main() -> None:
    """Answer until the tasks end."""
    time.sleep = waits.append  # type: ignore[assignment]
    time.monotonic = lambda: clock() + sum(waits)
    datasets.config.STREAMING_READ_MAX_RETRIES = 2  # of 20, so that a test gets to our own tries sooner
    logging.getLogger("ingot.data.hub_files").addHandler(_Kept())
    tasks: dict[str, Callable[..., dict[str, Any]]] = {
        "read": lambda folder, **values: read(Hub.model_validate(values), Path(folder)),
        "fetch": fetch,
    }
    for line in sys.stdin:
        waits.clear()
        logged.clear()
        task = json.loads(line)
        answer = tasks[task.pop("do")](**task)
        print(json.dumps(answer | {"waits": waits, "logged": logged}), flush=True)


if __name__ == "__main__":
    main()
