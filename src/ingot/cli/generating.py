"""`ingot generate`: a trained model continues texts, those of the command line or those of a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from ingot.cli.app import ModelName, app, loading
from ingot.cli.sampling import Quantize, SamplingOptions
from ingot.errors import UserError

if TYPE_CHECKING:
    from ingot.generate.generator import Generator
    from ingot.generate.sampling import Sampling
    from ingot.language_model import LanguageModel


DEFAULTS = SamplingOptions()


@app.command(usage="Usage: ingot generate MODEL [PROMPT …] [OPTIONS]")
def generate(
    model: ModelName,
    /,
    *prompts: Annotated[str, Parameter(name="PROMPT", help="text to continue; none: the model begins a document")],
    options: SamplingOptions = DEFAULTS,
    input: Annotated[
        Path | None, Parameter(help="prompts from a file: .txt, one a line, or .jsonl, which may also hold messages")
    ] = None,
    output: Annotated[
        Path | None, Parameter(help="results into a file: .json, .jsonl, .csv, .md or .txt; the same command goes on")
    ] = None,
    quantize: Quantize = None,
    runs: Annotated[Path, Parameter(help="folder of all runs")] = Path("runs"),
) -> None:
    """Continue each PROMPT with a trained model, on standard output; or many from a file, into another."""
    sampling = options.sampling("generate")
    if input is None and output is None:
        _write_continuations(_load(model, runs, quantize).generator, prompts or [""], sampling)
        return
    from ingot.batches.prompts import prompts_of, read_prompts
    from ingot.batches.results import continuous, form_of

    if input and prompts:
        raise UserError("prompts are given here and in a file", where="generate", mend="leave one of them out")
    if output:
        form_of(output)  # before the model is loaded: a wrong name is told at once
    entries = read_prompts(input) if input else prompts_of(prompts or [""])
    loaded = _load(model, runs, quantize)
    from ingot.batches.job import Job, results_of

    made = Job(loaded, entries, sampling).run(output)
    print(
        f"{len(made):,} texts in {output}" if output else continuous(results_of(entries, made)), end="\n" * bool(output)
    )


def _load(reference: str, runs: Path, quantize: Quantize) -> LanguageModel:
    from ingot.language_model import load

    with loading():
        return load(reference, runs=runs, quantize=quantize)


def _write_continuations(generator: Generator, prompts: Sequence[str], sampling: Sampling) -> None:
    """One prompt is continued as one watches; several are written together, a rule between them."""
    if len(prompts) == 1:
        pieces = generator.stream(prompts[0], sampling)
        print(prompts[0] + next(pieces, ""), end="", flush=True)  # the first piece first: a bad prompt prints nothing
        for piece in pieces:
            print(piece, end="", flush=True)
        print()
        return
    from ingot.batches.results import RULE

    made = generator.generate(list(prompts), sampling)
    print(RULE.join(prompt + generation.text for prompt, generation in zip(prompts, made, strict=True)))
