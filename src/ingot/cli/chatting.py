"""`ingot chat`: a conversation with a trained model, in this terminal or through a pipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ingot.cli.app import ModelName, app, loading
from ingot.cli.sampling import ChatOptions, Quantize

DEFAULTS = ChatOptions()


@app.command(usage="Usage: ingot chat MODEL [OPTIONS]")
def chat(
    model: ModelName,
    /,
    *,
    system: Annotated[str, Parameter(help="a message that tells the model what it is; none: no such message")] = "",
    options: ChatOptions = DEFAULTS,
    quantize: Quantize = None,
    runs: Annotated[Path, Parameter(help="folder of all runs")] = Path("runs"),
) -> None:
    """Talk with a trained model. /help lists the commands; Ctrl-C stops an answer, Ctrl-D leaves."""
    sampling = options.sampling("chat")
    from ingot.chat.terminal import talk
    from ingot.language_model import load

    with loading():
        loaded = load(model, runs=runs, quantize=quantize)
    talk(loaded, sampling, system)
