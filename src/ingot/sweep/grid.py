"""The grid: `key=a,b,c` on the command line, and the runs that it comes to."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ingot.config.text import parse_yaml, yaml_word
from ingot.errors import UserError

MOST = 1_000  # runs of a sweep
LONGEST = 100  # characters of a run's name


@dataclass(frozen=True)
class Point:
    """One run: its name, and what it sets, by key as it was written and as a value."""

    name: str
    assignments: tuple[str, ...]
    values: dict[str, Any]


@dataclass(frozen=True)
class Grid:
    """The runs of a sweep; `keys` are those with several values, `fixed` sets what is the same for all."""

    keys: dict[str, list[Any]]
    fixed: tuple[str, ...]
    points: tuple[Point, ...]

    @classmethod
    def of(cls, assignments: Sequence[str]) -> Grid:
        """Every combination of the values, the last key changing fastest. Raises UserError."""
        swept: dict[str, list[str]] = {}
        fixed = []
        for assignment in assignments:
            key, equals, text = assignment.partition("=")
            if not equals or not key:
                what = f"{assignment!r} is not of the form key=value"
                raise UserError(what, where="command line", mend="try model.layers=2,4,8")
            if key in swept:
                raise UserError(f"{key} is given twice", where="command line", mend=f"try {key}=a,b,c")
            values = alternatives(text)
            if len(values) > 1:
                swept[key] = values
            else:
                fixed.append(assignment)
        if not swept:
            what = "there is nothing to sweep: no key has several values"
            raise UserError(what, where="command line", mend="try optimizer.lr=0.01,0.02,0.04")
        for key in {"name", "runs", "train.settled"} & {*swept, *(one.partition("=")[0] for one in fixed)}:
            raise UserError(
                f"a sweep chooses {key} itself", where="command line", mend="leave it out; see --name, --runs"
            )
        return cls({key: list(map(parse_yaml, values)) for key, values in swept.items()}, tuple(fixed), _points(swept))


def alternatives(text: str) -> list[str]:
    """The values that commas part: not those within brackets, braces or quotes, so `[1,2],[3]` is two lists."""
    parts, depth, quote = [""], 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        else:
            depth += (letter in "[{") - (letter in "]}")
        if letter == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += letter
    if len(parts) > 1 and not all(part.strip() for part in parts):
        raise UserError(f"a value is empty in {text!r}", where="command line", mend="write a,b,c without gaps")
    if len(set(parts)) < len(parts):
        raise UserError(f"a value comes twice in {text!r}", where="command line", mend="write each once")
    return [part.strip() for part in parts]


def _points(swept: dict[str, list[str]]) -> tuple[Point, ...]:
    combinations = list(itertools.islice(itertools.product(*swept.values()), MOST + 1))
    if len(combinations) > MOST:
        raise UserError(f"more than {MOST:,} runs", where="command line", mend="sweep fewer values at once")
    names = [_name(swept, texts) for texts in combinations]
    if len(set(names)) < len(names) or max(map(len, names)) > LONGEST:
        names = [f"{number:03}-{name[: LONGEST - 4]}" for number, name in enumerate(names, start=1)]
    return tuple(
        Point(
            name,
            tuple(f"{key}={text}" for key, text in zip(swept, texts, strict=True)),
            {key: parse_yaml(text) for key, text in zip(swept, texts, strict=True)},
        )
        for name, texts in zip(names, combinations, strict=True)
    )


def _name(swept: dict[str, list[str]], texts: Sequence[str]) -> str:
    """A folder's name such as `layers-4_lr-0.02`: what differs, in letters that any file system takes."""
    parts = [f"{key.rpartition('.')[2]}-{text}" for key, text in zip(swept, texts, strict=True)]
    if len({key.rpartition(".")[2] for key in swept}) < len(swept):
        parts = [f"{key}-{text}" for key, text in zip(swept, texts, strict=True)]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", "_".join(parts)).strip("-_.")


def spelled(values: dict[str, Any]) -> str:
    """Settings as they would be given: `model.layers=4 optimizer.lr=0.02`."""
    return " ".join(f"{key}={yaml_word(value)}" for key, value in values.items())
