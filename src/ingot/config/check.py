"""Values into a configuration, and what is wrong with them in one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import ValidationError

from ingot.config.changes import override
from ingot.config.config import Choice, Config, config_class
from ingot.errors import UserError, nearest

C = TypeVar("C", bound=Config)


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
