"""What every configured class derives from: `Config`, and `Choice` for families of interchangeable classes.

Each member of a family (optimizers, schedules, sources …) names itself: `class Muon(Optimizer, name="muon")`.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_serializer, model_validator

from ingot.errors import nearest


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


def config_class(annotation: Any) -> type[Config] | None:
    """The first configuration class inside a type such as `list[Source]` or `Muon | None`."""
    if isinstance(annotation, type) and issubclass(annotation, Config):
        return annotation
    return next(filter(None, map(config_class, typing.get_args(annotation))), None)
