"""`ingot serve`: an OpenAI-compatible API and a web page over trained models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.types import PositiveInt, UInt16

from ingot.cli.app import app, loading, missing_models_first
from ingot.cli.sampling import Quantize
from ingot.errors import Stopped, UserError

if TYPE_CHECKING:
    from ingot.language_model import LanguageModel

MODELS = "run names, name@best, name@latest, name@1200, or model folders; the first is the default"


@app.command(usage="Usage: ingot serve MODEL [MODEL …] [OPTIONS]")
def serve(
    model: Annotated[str, Parameter(help=MODELS)],
    /,
    *more: Annotated[str, Parameter(name="MODEL", help="more of them, to compare")],
    host: Annotated[str, Parameter(help="address to listen on; beyond loopback only with --keys")] = "127.0.0.1",
    port: Annotated[UInt16, Parameter(help="0: any that is free")] = 8000,
    keys: Annotated[Path | None, Parameter(help="a file of API keys, one a line; without it, no key is needed")] = None,
    slots: Annotated[int, Parameter(help="answers that each model writes at once")] = 16,
    queue: Annotated[int, Parameter(help="answers that wait for a slot; past it, clients are told to come later")] = 64,
    seconds: Annotated[float, Parameter(help="the longest that one request may take")] = 300,
    tokens: Annotated[int | None, Parameter(help="tokens of one answer at most; none: as the context holds")] = None,
    context: Annotated[
        PositiveInt | None, Parameter(help="tokens of prompt and answer; none: as the model reads")
    ] = None,
    drain: Annotated[float, Parameter(help="seconds that open answers have when the server is told to stop")] = 30,
    quantize: Quantize = None,
    runs: Annotated[Path, Parameter(help="folder of all runs")] = Path("runs"),
) -> None:
    """Serve models: OpenAI's API at /v1, a page to talk to them at /, and /health and /metrics."""
    from importlib.util import find_spec

    from ingot.config.check import validate
    from ingot.extras import pip_install
    from ingot.serve.limits import Limits

    options = {"slots": slots, "queue": queue, "seconds": seconds, "tokens": tokens, "drain": drain}
    limits = validate(Limits, options, where="serve")
    with missing_models_first(model, *more, runs=runs):
        if missing := [name for name in ("fastapi", "uvicorn", "prometheus_client") if not find_spec(name)]:
            raise UserError(f"{missing[0]} is not installed", where="serve", mend=pip_install("serve"))
    with loading():
        from ingot.serve import server
    from ingot.serve.keys import Keys

    known = Keys.read(keys) if keys else None
    listening = server.listen(host, port, keys)  # before the models are loaded: a busy port is told at once
    models = _load([model, *more], runs, quantize)
    address = server.address_of(listening)
    print(f"{', '.join(models)} at {address} (page), {address}/v1 (API); Ctrl-C stops", flush=True)
    try:
        server.serve(models, listening, limits, keys=known, context=context)
    except Stopped:
        print("stopped")
        raise


def _load(references: list[str], runs: Path, quantize: Quantize) -> dict[str, LanguageModel]:
    """The models by the names they are served under: the reference, or the folder's own name for a path."""
    from ingot.language_model import load

    if len(set(references)) < len(references):
        raise UserError("a model is named twice", where="serve", mend="name each one once")
    loaded = {reference: load(reference, runs=runs, quantize=quantize) for reference in references}
    names = {reference: Path(reference).resolve().name if "/" in reference else reference for reference in references}
    clear = len(set(names.values())) == len(names)
    return {names[reference] if clear else reference: model for reference, model in loaded.items()}
