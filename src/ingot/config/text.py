"""Configurations as YAML, whose scalars follow YAML 1.2."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml
from pydantic_core import to_jsonable_python

from ingot.config.config import Config
from ingot.errors import UserError


class _Loader(yaml.SafeLoader):
    """YAML whose scalars follow YAML 1.2: `1e-3` and `010` (ten) are numbers, `no` and `2026-11-05` are words."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in known if tag.rpartition(":")[2] in ("null", "merge")]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def mapping(self, node: yaml.MappingNode) -> Iterator[dict[Any, Any]]:
        """As PyYAML makes it, but a key that stands twice is an error: one of its values would be lost."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    what = f"{key.value!r} stands there twice"
                    raise yaml.constructor.ConstructorError(None, None, what, key.start_mark)
                seen.add(key.value)
        yield from self.construct_yaml_map(node)

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
_Loader.add_constructor("tag:yaml.org,2002:map", _Loader.mapping)
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
        last = len(text.splitlines())  # what breaks off is noticed on the line after
        line = f"{where}:{min(mark.line + 1, last)}" if mark and "\n" in text else where
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
