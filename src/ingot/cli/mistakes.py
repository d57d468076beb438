"""What is wrong with the arguments, in one line that names the nearest right word or where to look."""

from __future__ import annotations

import inspect

from cyclopts import (
    App,
    CycloptsError,
    MissingArgumentError,
    UnknownCommandError,
    UnknownOptionError,
    UnusedCliTokensError,
)

from ingot.cli.app import app


def misuse(error: CycloptsError) -> str:
    """What is wrong with the arguments, in one line that names the nearest right word or where to look."""
    verb = " ".join(error.command_chain or ())
    look = f"see `{' '.join(['ingot', verb]).strip()} --help`"
    if isinstance(error, MissingArgumentError) and error.argument and not error.argument.name.startswith("-"):
        return f"{verb} needs {error.argument.name.upper()}; {look}"
    if isinstance(error, UnknownCommandError) and error.unused_tokens:
        return _unknown(error.unused_tokens[0], error.app or app)
    if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        if error.app and _commands(error.app):  # a family that does something without a command, too
            return _unknown(error.unused_tokens[0], error.app)
        return f"{verb} has no use for {error.unused_tokens[0]!r}; {look}"
    if isinstance(error, UnknownOptionError) and (key := _key_with_dashes(error)):
        return f"there is no option {error.token.value!r}; a recipe's keys have no dashes: {key}"
    message = " ".join(str(error).split()).rstrip(".")
    return message if "Did you mean" in message else f"{message}; {look}"


def _key_with_dashes(error: UnknownOptionError) -> str:
    """`key=value` as it was meant, where an option that is none is a recipe's key; else empty."""
    from ingot.recipe.recipe import Recipe

    word, words = error.token.value, error.unused_tokens or []
    key, _, value = word.lstrip("-").partition("=")
    parameters = inspect.signature(error.target).parameters if error.target else {}
    if "overrides" not in parameters or key.partition(".")[0] not in Recipe.model_fields:
        return ""
    following = words[words.index(word) + 1 :] if word in words else []
    return f"{key}={value or next(iter(following), '…')}"


def _unknown(word: str, within: App) -> str:
    from ingot.errors import nearest

    if word.startswith("-"):
        return f"there is no option {word!r}; {nearest(word, ['--help', '--version'])}"
    look = " ".join(dict.fromkeys(["ingot", *within.name, "--help"]))
    return f"there is no command {word!r}; {nearest(word, _commands(within), f'`{look}`')}"


def _commands(within: App) -> list[str]:
    return [name for name in within if not name.startswith("-")]
