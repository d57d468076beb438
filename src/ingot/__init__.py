"""ingot raises a language model from raw text.

The verbs of the command line are callable here: `ingot.prepare(recipe)` and `ingot.train(recipe)`, with a `Recipe` from
`ingot.Recipe.load("demo")`. Nothing heavy is imported until one of them is asked for.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

__version__ = "0.1.0"

# verb → the module and the function that do it
_VERBS = {
    "evaluate": ("ingot.evaluate.verb", "evaluate"),
    "plan": ("ingot.plan.job", "plan"),
    "prepare": ("ingot.prepare", "prepare"),
    "train": ("ingot.train.run", "train"),
}
_LAZY = {
    "Evaluator": "ingot.evaluate.evaluator",
    "LanguageModel": "ingot.language_model",
    "ModelManager": "ingot.manager",
    "Recipe": "ingot.recipe.recipe",
    "generate_text": "ingot.language_model",
    "load": "ingot.language_model",
}


class _Verb(ModuleType):
    """A module that can be called as the verb it is named after, so that `ingot.train` is both."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        module, function = _VERBS[self.__name__.removeprefix(f"{__name__}.")]
        return getattr(importlib.import_module(module), function)(*args, **kwargs)


class _Package(ModuleType):
    """This package: whichever way a verb's module comes to be imported, it is callable from then on."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _VERBS and type(value) is ModuleType:
            value.__class__ = _Verb
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name in _VERBS:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_VERBS, *_LAZY})
