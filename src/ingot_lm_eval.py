"""Makes `lm_eval --model ingot` work: lm-evaluation-harness looks for models in a registry of its own alone.

Python runs `offer` at its start, by `ingot_lm_eval.pth` beside this file. That costs next to nothing, so there are no
imports here; nothing happens unless the harness itself is imported.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # as in `typing`, whose import would take longer than all else
if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.machinery import ModuleSpec
    from types import ModuleType

REGISTRY = "lm_eval.models"  # the module that fills the harness's registry
MODEL = "ingot.evaluate.harness:Harnessed"


class Finder:
    """Waits for the harness's registry, steps aside, and has our model put into it."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """As Python asks for each module: none for all others."""
        if name != REGISTRY:
            return None
        sys.meta_path.remove(Finder)
        from importlib.util import find_spec

        spec = find_spec(name)
        if spec and spec.loader:
            spec.loader.exec_module = _filled(spec.loader.exec_module)  # type: ignore[method-assign, assignment]
        return spec


def offer() -> None:
    """From now on the harness finds the model `ingot`."""
    if Finder not in sys.meta_path:
        sys.meta_path.insert(0, Finder)


def _filled(fill: Callable[[ModuleType], None]) -> Callable[[ModuleType], None]:
    def exec_module(module: ModuleType) -> None:
        fill(module)
        from lm_eval.api.registry import model_registry

        model_registry.register("ingot", target=MODEL)

    return exec_module
