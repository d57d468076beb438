"""Values with others put in: overrides from the command line, and a recipe into its base."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ingot.config.text import parse_yaml, yaml_word
from ingot.errors import UserError


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
