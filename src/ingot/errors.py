"""How a command ends early: by the one error that a user sees, or by Ctrl-C that was heard and answered."""

from __future__ import annotations


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
