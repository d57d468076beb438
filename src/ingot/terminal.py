"""Where jobs speak: lines that a terminal breaks between words, and that nothing breaks in a pipe or a file."""

from __future__ import annotations

from rich.console import Console


def plain_console(*, quiet: bool = False) -> Console:
    """A console for plain text on standard output; a `quiet` one, as on all ranks but the first, says nothing."""
    console = Console(highlight=False, markup=False, quiet=quiet)
    console.soft_wrap = not console.is_terminal
    return console
