"""A folder with a YAML file and a file of JSON lines is a task."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ingot.config.check import validate
from ingot.config.text import parse_yaml
from ingot.errors import UserError, nearest
from ingot.evaluate.tasks.benchmark import Benchmark
from ingot.evaluate.tasks.packaged import check_installed
from ingot.evaluate.tasks.standard import STANDARD
from ingot.evaluate.tasks.task import Task

TABLE = ("data", "source")  # keys of the YAML beside those of the task


def find(names: Iterable[str]) -> list[Benchmark]:
    """The tasks of those names, or in those folders. Raises UserError with the nearest name for an unknown one.

    Raises it too where the package of the standard ones is missing: before anything else is done.
    """
    return [_find(name) for name in dict.fromkeys(names)]


def _find(name: str) -> Benchmark:
    if name in STANDARD:
        check_installed()
        return STANDARD[name]
    path = Path(name).expanduser()
    if path.is_dir():
        return local(path)
    mend = f"{nearest(name, STANDARD)}; or give a folder with a YAML file and a file of JSON lines"
    raise UserError(f"there is no task {name!r}", where="tasks", mend=mend)


def local(folder: Path) -> Benchmark:
    """The task in `folder`: `kind`, its templates, and `data`, the file of records (the only .jsonl by default).

    Raises UserError for what is no task.
    """
    settings = _only(folder, ("*.yaml", "*.yml"), "a YAML file that says what is asked")
    try:
        values = parse_yaml(settings.read_text(encoding="utf-8"), where=str(settings))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the task can't be read ({error})", where=str(settings), mend="check the file") from None
    if not isinstance(values, Mapping):
        raise UserError("a task is a mapping of keys to values", where=str(settings), mend="begin with kind: cloze")
    kinds = Task.choices()
    if values.get("kind") not in kinds:
        what = f"the kind of a task is {' or '.join(kinds)}"
        raise UserError(what, where=f"{settings}: kind", mend=nearest(str(values.get("kind")), kinds))
    asked = {key: value for key, value in values.items() if key not in ("kind", *TABLE)}
    task = validate(kinds[values["kind"]], asked, where=str(settings))
    assert isinstance(task, Task)
    file = folder / str(values["data"]) if "data" in values else _only(folder, ("*.jsonl",), "a file of JSON lines")
    if not file.is_file():
        raise UserError("there is no such file", where=str(file), mend=f"name it as data in {settings.name}")
    return Benchmark(folder.resolve().name, task, partial(_records, file), str(values.get("source", folder)))


def _records(file: Path) -> Iterator[Mapping[str, Any] | str]:
    """Each line's record, or why it is none; empty lines are nothing."""
    with file.open("rb") as lines:
        for line in lines:
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                yield "not valid JSON"
                continue
            yield record if isinstance(record, dict) else "no JSON object"


def _only(folder: Path, patterns: tuple[str, ...], what: str) -> Path:
    found = sorted(path for pattern in patterns for path in folder.glob(pattern))
    if len(found) != 1:
        mend = f"put {what} there" if not found else "name one as data, or keep one alone"
        raise UserError(f"{len(found)} files here could be {what}", where=str(folder), mend=mend)
    return found[0]
