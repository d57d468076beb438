"""Configuration as frozen, validated values: YAML and `key=value` overrides in, one-line errors out.

Every configured class derives from `Config`; a family of interchangeable classes (optimizers, schedules, sources …)
derives from `Choice`, and each member names itself in its class statement: `class Muon(Optimizer, name="muon")`.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import re
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, model_serializer, model_validator
from pydantic_core import to_jsonable_python

from ingot.errors import UserError

C = TypeVar("C", bound="Config")


def _yes_or_no(value: Any) -> Any:
    words = {"true": "yes", "on": "yes", "false": "no", "off": "no"}
    return words.get(str(value).lower(), value)


YesNoAuto = Annotated[Literal["auto", "yes", "no"], BeforeValidator(_yes_or_no)]
"""a switch that can be left to the program; YAML's other words for yes and no are taken, too"""


class Config(BaseModel):
    """A frozen value. An unknown key is an error; the docstring under a field says what it means."""

    # A validator is built when it is first needed: most commands, and the processes that help, need few of them.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, defer_build=True)

    def to_dict(self) -> dict[str, Any]:
        """Plain mappings, lists and scalars: what YAML and JSON can hold."""
        return self.model_dump(mode="json", serialize_as_any=True)


class Choice(Config):
    """A family of interchangeable configurations, told apart by the key `kind`.

    A mapping with `kind: muon`, or the bare word `muon`, becomes the member that named itself so. A mapping without
    `kind` becomes the first member of the family.
    """

    members: ClassVar[dict[str, type[Choice]]] = {}
    kind: ClassVar[str] = ""

    def __init_subclass__(cls, name: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if name:
            cls.kind = name
            cls.members[name] = cls
        elif Choice in cls.__bases__:  # a new family: its members gather in a table of its own
            cls.members = {}

    @model_validator(mode="wrap")
    @classmethod
    def _choose(cls, value: Any, handler: Any) -> Any:
        if isinstance(value, cls):
            return value
        if isinstance(value, str):
            value = {"kind": value}
        if not isinstance(value, Mapping):
            return handler(value)
        value = dict(value)
        allowed = cls.choices()
        kind = value.pop("kind", next(iter(allowed)))
        if not isinstance(kind, str) or kind not in allowed:
            raise ValueError(f"there is no {cls.__name__.lower()} of kind {kind!r}; {nearest(str(kind), allowed)}")
        member = allowed[kind]
        return handler(value) if member is cls else member.model_validate(value)

    @classmethod
    def choices(cls) -> dict[str, type[Choice]]:
        """The members that a value of this class can be: all of a family, or a member alone."""
        return {name: member for name, member in cls.members.items() if issubclass(member, cls)}

    @model_serializer(mode="wrap")
    def _with_kind(self, handler: Any) -> dict[str, Any]:
        return {"kind": self.kind, **handler(self)}


class _Loader(yaml.SafeLoader):
    """YAML whose scalars follow YAML 1.2: `1e-3` and `010` (ten) are numbers, `no` and `2026-11-05` are words."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in known if tag.rpartition(":")[2] in ("null", "merge")]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def integer(self, node: yaml.ScalarNode) -> int:
        """Decimal, `0o` octal or `0x` hexadecimal; underscores group digits."""
        text = str(self.construct_scalar(node)).replace("_", "")
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))


class _Dumper(yaml.SafeDumper):
    """YAML in which a string that either version of YAML would take for something else stands in quotes."""

    def string(self, text: str) -> yaml.ScalarNode:
        """In double quotes, which escape them, where it holds one of Unicode's own line breaks: single ones fold it."""
        return self.represent_scalar("tag:yaml.org,2002:str", text, style='"' if _BREAKS & set(text) else None)


_BREAKS = set("\x85\u2028\u2029")

# The first pattern that matches decides: an integer matches that of a float as well.
_SCALARS = {
    "bool": ("tTfF", r"^(?:true|True|TRUE|false|False|FALSE)$"),
    "int": ("-+0123456789", r"^(?:[-+]?[0-9][0-9_]*|0o[0-7]+|0x[0-9a-fA-F]+)$"),
    "float": (
        "-+0123456789.",
        r"^[-+]?(?:(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?|\.(?:inf|Inf|INF))$"
        r"|^\.(?:nan|NaN|NAN)$",
    ),
}
for _name, (_first, _pattern) in _SCALARS.items():
    for _side in (_Loader, _Dumper):
        _side.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(_pattern), list(_first))
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.integer)
_Dumper.add_representer(str, _Dumper.string)


def parse_yaml(text: str, where: str = "") -> Any:
    """The value that `text` holds. Raises UserError with the line for text that is not YAML."""
    try:
        return yaml.load(text, Loader=_Loader)
    except (ValueError, LookupError, AttributeError, RecursionError):  # PyYAML's own for `!!int x` and its like
        what = "not valid YAML: a value is not what its tag promises, or lies too deep"
        raise UserError(what, where=where, mend="put it in quotes") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"{where}:{mark.line + 1}" if mark and "\n" in text else where
        problem = getattr(error, "problem", None) or "the text could not be read"
        raise UserError(f"not valid YAML: {problem}", where=line, mend="mend that line") from None


def to_yaml(value: Config) -> str:
    """`value` as YAML that `load` reads back equal."""
    return yaml.dump(value.to_dict(), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def yaml_word(value: Any) -> str:
    """A plain value as YAML in one line, as it would stand behind a key."""
    plain = to_jsonable_python(value)
    text = yaml.dump(plain, Dumper=_Dumper, default_flow_style=True, allow_unicode=True, width=float("inf"))
    return text.removesuffix("...\n").rstrip("\n")


def override(values: dict[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """`values` with each `dotted.key=value` of `assignments` put in; the value is read as YAML.

    A number in the path is an index into a list: `data.sources.0.path=x.txt`.
    """
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key:
            raise UserError(
                f"{assignment!r} is not of the form key=value", where="command line", mend="try model.layers=12"
            )
        where = f"command line: {assignment}"
        values = _put(values, key.split("."), parse_yaml(text, where=where), where)
    return values


def _put(at: Any, path: list[str], value: Any, where: str) -> Any:
    head, *rest = path
    if isinstance(at, list):
        if not head.isdigit() or int(head) >= len(at):
            raise UserError(f"{head!r} is no index into a list of {len(at)}", where=where, mend="indices start at 0")
        index = int(head)
        return [*at[:index], _put(at[index], rest, value, where) if rest else value, *at[index + 1 :]]
    if isinstance(at, str):  # the bare word of a choice opens up into a mapping
        at = {"kind": at}
    if at is not None and not isinstance(at, Mapping):
        raise UserError(f"{yaml_word(at)} has no keys below it", where=where, mend="drop the last part")
    at = dict(at or {})
    if head == "kind" and not rest and at.get("kind") != value:
        return {"kind": value}  # another member of the family: the fields of the old one do not carry over
    at[head] = _put(at.get(head), rest, value, where) if rest else value
    return at


def merged(base: Any, changes: Any) -> Any:
    """`base` with `changes` put in, mappings key by key; another `kind` of a choice takes over none of the old keys."""
    if isinstance(base, str) and isinstance(changes, Mapping):
        base = {"kind": base}
    if not (isinstance(base, Mapping) and isinstance(changes, Mapping)):
        return changes
    if "kind" in changes and changes["kind"] != base.get("kind"):
        return dict(changes)
    return {**base, **{key: merged(base.get(key), value) for key, value in changes.items()}}


def validate(cls: type[C], values: Any, where: str, mend: str = "", overrides: Sequence[str] = ()) -> C:
    """`values`, with `overrides` put in, as a `cls`. Raises UserError that names the first wrong key and its mend.

    `mend`: where to look when all that is known is that a value does not fit.
    """
    if not isinstance(values, Mapping):
        raise UserError("a mapping of keys to values is expected", where=where, mend=mend)
    changed = override(dict(values), overrides)
    try:
        return cls.model_validate(changed)
    except ValidationError as error:
        mistake = error.errors()[0]
    path = [str(part) for part in mistake["loc"]]
    at = _blamed(cls, values, mistake, overrides) or (f"{where}: {'.'.join(path)}" if path else where)
    raise _explain_error(cls, changed, mistake, at, mend)


def _blamed(cls: type[Config], values: Any, mistake: Mapping[str, Any], overrides: Sequence[str]) -> str:
    """The overrides that made `mistake`, as the place to look for it; empty where `values` alone would have made it."""
    path = [str(part) for part in mistake["loc"]]
    keys = {assignment: assignment.partition("=")[0].split(".") for assignment in overrides}
    for assignment, key in reversed(keys.items()):
        if key == path[: len(key)]:
            return f"command line: {assignment if key == path else '.'.join(path)}"
    try:
        cls.model_validate(values)
    except ValidationError as error:
        if error.errors()[0]["msg"] == mistake["msg"]:
            return ""
    below = [assignment for assignment, key in keys.items() if key[: len(path)] == path]
    return f"command line: {' '.join(below)}" if below else ""


def _explain_error(
    cls: type[Config], values: Mapping[str, Any], error: Mapping[str, Any], at: str, mend: str
) -> UserError:
    path = [str(part) for part in error["loc"]]
    if error["type"] == "extra_forbidden":
        owner = _owner(cls, values, path[:-1])
        return UserError(f"there is no key {path[-1]!r}", where=at, mend=nearest(path[-1], list(owner.model_fields)))
    if error["type"] == "missing":
        return UserError("this key is needed", where=at, mend=f"add {'.'.join(path)}=…")
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "value_error":
        return UserError(message, where=at)
    needed = _NEEDED.get(error["type"]) or f"{message[0].lower()}{message[1:]}"
    return UserError(f"{needed}, not {error['input']!r}", where=at, mend=mend)


# What pydantic's longest-winded errors come to.
_NEEDED = {
    **dict.fromkeys(("int_type", "int_parsing", "int_parsing_size", "int_from_float"), "a whole number is needed"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number is needed"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false is needed"),
    "string_type": "text is needed",
}


def _owner(cls: type[Config], values: Any, path: Sequence[str]) -> type[Config]:
    """The class of the configuration that lies at `path` below `cls`; the choice of `kind` is looked up in `values`."""
    for part in path:
        if isinstance(values, list):
            values = values[int(part)]
        else:
            values = values.get(part) if isinstance(values, Mapping) else None
            if field := cls.model_fields.get(part):
                cls = config_class(field.annotation) or cls
    if issubclass(cls, Choice):
        kind = values.get("kind", "") if isinstance(values, Mapping) else values
        return cls.choices().get(str(kind)) or next(iter(cls.choices().values()))
    return cls


def config_class(annotation: Any) -> type[Config] | None:
    """The first configuration class inside a type such as `list[Source]` or `Muon | None`."""
    if isinstance(annotation, type) and issubclass(annotation, Config):
        return annotation
    return next(filter(None, map(config_class, typing.get_args(annotation))), None)


FEW = 5  # names that one line shows


def nearest(name: str, known: Sequence[str] | Mapping[str, Any], all_by: str = "") -> str:
    """The mend for a misspelt name: the nearest known one, or all of them; of many a few, where `all_by` shows all."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    if near:
        return f"did you mean {near[0]!r}?"
    if all_by and len(known) > FEW:
        some = difflib.get_close_matches(name, list(known), n=FEW, cutoff=0)
        return f"the nearest of {len(known)} are {', '.join(some)}; {all_by} shows all"
    return f"known: {', '.join(known)}"


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
