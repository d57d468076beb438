"""The command line: one function per verb. PyTorch is loaded by the verb that needs it, not by `ingot --help`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from cyclopts import CycloptsError

from ingot.cli import (
    bench,
    chatting,
    evaluating,
    exporting,
    generating,
    models,
    recipes,
    serving,
    sweeping,
    training,
    watching,
)
from ingot.cli.app import app
from ingot.cli.mistakes import misuse
from ingot.distributed import considerate_threads
from ingot.errors import Stopped, UserError

# importing a module adds its verbs
__all__ = [
    "app",
    "bench",
    "chatting",
    "evaluating",
    "exporting",
    "generating",
    "main",
    "models",
    "recipes",
    "run",
    "serving",
    "sweeping",
    "training",
    "watching",
]

# Exit statuses: a mistake that the user can mend; Ctrl-C (128 + SIGINT); nobody reads the output any more.
MISTAKE, INTERRUPTED, UNREAD = 2, 130, 1


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0, or 2 and one line on standard error for a mistake of the user's."""
    considerate_threads()
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """The exit status of `ingot` with these arguments."""
    try:
        app(list(arguments), exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except (UserError, CycloptsError) as error:
        from ingot.distributed import fails_first

        if fails_first():  # of several processes one says it
            print(f"ingot: {error if isinstance(error, UserError) else misuse(error)}", file=sys.stderr)
        return MISTAKE
    except Stopped:
        return INTERRUPTED
    except KeyboardInterrupt:
        print("ingot: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        _drop_output()
        return UNREAD
    return 0


def _drop_output() -> None:
    """Send what is still unwritten nowhere, or Python complains about the closed pipe while it exits."""
    import os

    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
