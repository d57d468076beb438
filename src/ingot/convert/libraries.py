"""Libraries of other programs, which only conversion needs."""

from __future__ import annotations

import importlib
from typing import Any

from ingot.errors import UserError
from ingot.extras import pip_install


def library(name: str, why: str) -> Any:
    """The module `name`. Raises UserError where it is not installed; `why` says what it is needed for."""
    try:
        return importlib.import_module(name)
    except ImportError:
        what = f"{name.partition('.')[0]} is not installed, which {why} needs"
        raise UserError(what, mend=pip_install("export")) from None
