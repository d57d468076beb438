"""Where recipes lie: files, and those that come with the package."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

from ingot.config.changes import merged
from ingot.config.text import parse_yaml
from ingot.errors import UserError, nearest


def read(path: Path, within: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The values in a recipe's file, put into those of the recipe that it names as its `base`."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the recipe can't be read ({error})", where=str(path), mend="check the file") from None
    values = parse_yaml(text, where=str(path))
    if not isinstance(values, dict):
        what = "a recipe is a mapping of keys to values"
        raise UserError(what, where=str(path), mend="see `ingot recipes show demo`")
    if "base" not in values:
        return values
    base = find(str(values.pop("base")))
    if base in (*within, path):
        raise UserError("a recipe can't be its own base", where=f"{path}: base", mend="name another one")
    return merged(read(base, (*within, path)), values)


def builtin_recipes() -> dict[str, Path]:
    """The recipes that come with the package, by name."""
    folder = Path(str(resources.files("ingot") / "recipes"))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find(recipe: str) -> Path:
    """The file of `recipe`: a path, or the name of a built-in one. Raises UserError with the nearest name."""
    path, known = Path(recipe), builtin_recipes()
    if path.is_file():
        return path
    if recipe in known:
        return known[recipe]
    if path.suffix in (".yaml", ".yml") or path.parent != Path():
        raise UserError("there is no such file", where=recipe, mend="check the path, or see `ingot recipes list`")
    if (beside := path.with_name(f"{path.name}.yaml")).is_file():
        raise UserError(f"there is no recipe {recipe!r}", mend=f"did you mean the file {beside}?")
    raise UserError(f"there is no recipe {recipe!r}", mend=nearest(recipe, known, "`ingot recipes list`"))
