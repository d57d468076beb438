"""How a command ends early: by the one error a user sees, with its mend, or by Ctrl-C that was heard and answered."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

FEW = 5  # names that one line shows


class UserError(Exception):
    """A mistake that the user can mend. The command line prints it in one line and exits with status 2."""

    def __init__(self, what: str, where: str = "", mend: str = ""):
        super().__init__(what, where, mend)  # by position: an error of a worker process comes back pickled that way
        self.what = what
        self.where = where
        self.mend = mend

    def __str__(self) -> str:
        """`where: what (mend)` in one line, whatever line breaks the parts carried."""
        line = f"{self.where}: {self.what}" if self.where else self.what
        if self.mend:
            line = f"{line}; {self.mend}"
        return " ".join(line.split())


class Stopped(KeyboardInterrupt):
    """Ctrl-C that took effect once all was saved or answered, and said so: nothing is left to say."""


def nearest(name: str, known: Sequence[str] | Mapping[str, Any], all_by: str = "") -> str:
    """The mend for a misspelt name: the nearest known one, or all of them; of many a few, where `all_by` shows all."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    if near:
        return f"did you mean {near[0]!r}?"
    if all_by and len(known) > FEW:
        some = difflib.get_close_matches(name, list(known), n=FEW, cutoff=0)
        return f"the nearest of {len(known)} are {', '.join(some)}; {all_by} shows all"
    return f"known: {', '.join(known)}"
