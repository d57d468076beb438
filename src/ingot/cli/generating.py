"""`ingot generate`: a trained model continues texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from ingot.cli.app import ModelName, app

if TYPE_CHECKING:
    from ingot.generate.generator import Generator
    from ingot.generate.sampling import Sampling


@app.command(usage="Usage: ingot generate MODEL [PROMPT …] [OPTIONS]")
def generate(
    model: ModelName,
    /,
    *prompts: Annotated[str, Parameter(name="PROMPT", help="text to continue; none: the model begins a document")],
    max_new_tokens: Annotated[int, Parameter(help="tokens to write at most")] = 100,
    temperature: Annotated[float, Parameter(help="0: always the likeliest token; below 1: tamer; above: wilder")] = 1.0,
    top_k: Annotated[int, Parameter(help="choose among the k likeliest tokens; 0: among all")] = 0,
    top_p: Annotated[float, Parameter(help="choose among the likeliest tokens that make up this share")] = 1.0,
    repetition_penalty: Annotated[float, Parameter(help="above 1: less of what has been written already")] = 1.0,
    seed: Annotated[int | None, Parameter(help="the same seed gives the same text; none: another each time")] = None,
    runs: Annotated[Path, Parameter(help="folder of all runs")] = Path("runs"),
) -> None:
    """Continue each PROMPT with a trained model, on standard output."""
    from ingot.config import validate
    from ingot.generate.sampling import Sampling

    options = {
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "repetition_penalty": repetition_penalty,
        "seed": seed,
    }
    sampling = validate(Sampling, options, where="generate")
    _write_continuations(_load_generator(model, runs), prompts or [""], sampling)


def _load_generator(reference: str, runs: Path) -> Generator:
    from ingot.checkpoint.registry import resolve

    folder = resolve(reference, runs)  # before PyTorch is loaded: a wrong name is told at once
    from ingot.distributed import World
    from ingot.generate.generator import Generator
    from ingot.model.huggingface import load_model
    from ingot.tokenizer.tokenizer import Tokenizer

    network = load_model(folder, device=World.alone().device).eval()
    return Generator(network, Tokenizer.load(folder))


def _write_continuations(generator: Generator, prompts: Sequence[str], sampling: Sampling) -> None:
    """One prompt is continued as one watches; several are written together, a rule between them."""
    if len(prompts) == 1:
        pieces = generator.stream(prompts[0], sampling)
        print(prompts[0] + next(pieces, ""), end="", flush=True)  # the first piece first: a bad prompt prints nothing
        for piece in pieces:
            print(piece, end="", flush=True)
        print()
        return
    made = generator.generate(list(prompts), sampling)
    print("\n\n---\n\n".join(prompt + generation.text for prompt, generation in zip(prompts, made, strict=True)))
