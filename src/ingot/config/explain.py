"""Every key of a configuration with its type, default and meaning."""

from __future__ import annotations

import ast
import inspect
import textwrap
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from ingot.config.config import Choice, Config, config_class
from ingot.config.text import yaml_word


@dataclass(frozen=True)
class Key:
    """One key of a configuration, as `ingot recipes explain` shows it."""

    path: str
    type: str
    default: str
    meaning: str


def explain(cls: type[Config], prefix: str = "", within: frozenset[type[Config]] = frozenset()) -> Iterator[Key]:
    """Every key below `cls`, depth first; each member of a choice shows its own keys under `key[kind]`.

    A family that lies within itself, as sources that stand in for a source do, is explained once.
    """
    meanings = _meanings(cls)
    for name, field in cls.model_fields.items():
        path = f"{prefix}{name}"
        inner = config_class(field.annotation)
        by_others = field.default_factory_takes_validated_data  # the meaning says how
        default = "" if inner or by_others else "needed" if field.is_required() else yaml_word(field.get_default())
        shape = typing.get_origin(field.annotation)
        listed = ".0" if inner and shape in (list, tuple) else ""
        yield Key(path, _type_name(field.annotation), default, meanings.get(name, ""))
        if inner and inner in within:
            continue
        if inner and issubclass(inner, Choice) and not inner.kind:
            for kind, member in inner.choices().items():
                yield Key(f"{path}{listed}[{kind}]", "kind", "", (member.__doc__ or "").strip().split("\n")[0])
                yield from explain(member, f"{path}{listed}[{kind}].", within | {inner})
        elif inner:
            yield from explain(inner, f"{path}{listed}.", within)


def _meanings(cls: type[Config]) -> dict[str, str]:
    """The docstring under each field: read from the source here alone, for pydantic's way slows down every start."""
    found: dict[str, str] = {}
    for base in reversed([base for base in cls.__mro__ if issubclass(base, Config)]):
        (statement,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(statement, ast.ClassDef)
        for field, below in pairwise(statement.body):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(below, ast.Expr)
                and isinstance(below.value, ast.Constant)
            ):
                found[ast.unparse(field.target)] = " ".join(str(below.value.value).split())
    return found


def _type_name(annotation: Any) -> str:
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return "mapping" if issubclass(annotation, Config) else annotation.__name__
    arguments = typing.get_args(annotation)
    origin = typing.get_origin(annotation)
    if origin is typing.Literal:
        return " | ".join(map(str, arguments))
    if origin in (typing.Union, types.UnionType):
        return " | ".join("null" if argument is type(None) else _type_name(argument) for argument in arguments)
    inside = ", ".join(_type_name(argument) for argument in arguments if argument is not Ellipsis)
    return f"{'list' if origin is tuple else getattr(origin, '__name__', origin)} of {inside}"
