"""`ingot models`: what there is, whether it is whole, and what comes in from elsewhere."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ingot.cli.app import family, print_table
from ingot.errors import UserError

models = family("models", "List, show, verify, tag, import and remove models.")

Id = Annotated[str, Parameter(name="MODEL", help="a run's name, name@best, name@1200, or a tag")]
Runs = Annotated[Path, Parameter(name="--runs", help="folder of all runs")]
RUNS = Path("runs")


@models.default
@models.command(name="list", usage="Usage: ingot models list [--json] [--runs DIR]")
def list_models(
    *,
    as_json: Annotated[bool, Parameter(name="--json", help="one JSON object a line")] = False,
    runs: Runs = RUNS,
) -> None:
    """Every checkpoint of every run: size, tokens trained on, loss on held-out text, and whether it is whole."""
    from ingot.manager import ModelManager

    facts = [one.facts() for one in ModelManager(runs).list_models()]
    if as_json:
        for one in facts:
            print(json.dumps(one))
        return
    if not facts:
        print(f"no models below {runs}; `ingot demo` makes one, `ingot models import` brings one in")
        return
    rows = [
        (
            one["id"],
            one["version"],
            one["family"],
            f"{one['parameters'] / 1e6:,.1f}M",
            f"{one['bytes'] / 2**20:,.1f} MiB",
            f"{one['tokens']:,}",
            "" if one["loss"] is None else f"{one['loss']:.4f}",
            one["created"][:16].replace("T", " "),
            " ".join(one["tags"]),
            one["integrity"],
        )
        for one in facts
    ]
    print_table(
        ["model", "version", "family", "parameters", "size", "tokens", "loss", "created", "tags", "integrity"], rows
    )


@models.command(usage="Usage: ingot models show MODEL [--runs DIR]")
def show(model: Id, /, *, runs: Runs = RUNS) -> None:
    """The card of a model: data, licence, training, lineage, evaluation, limits."""
    from ingot.manager import ModelManager

    print(ModelManager(runs).show(model))


@models.command(usage="Usage: ingot models verify [MODEL] [--runs DIR]")
def verify(model: Id = "", /, *, runs: Runs = RUNS) -> None:
    """Check the SHA-256 of every file of a model, or of all; the first that differs is named."""
    from ingot.manager import ModelManager

    for one in ModelManager(runs).verify(model):
        print(f"{one.id}  {one.version}  whole")


@models.command(usage="Usage: ingot models tag MODEL NAME [--runs DIR]")
def tag(model: Id, name: Annotated[str, Parameter(name="NAME", help="the tag")], /, *, runs: Runs = RUNS) -> None:
    """Give a model a name of its own, which also keeps it from being pruned."""
    from ingot.manager import ModelManager

    print(f"{name} -> {ModelManager(runs).tag(model, name).id}")


@models.command(name="import", usage="Usage: ingot models import SOURCE [--name NAME] [--tokenizer FILE] [--runs DIR]")
def import_model(
    source: Annotated[Path, Parameter(name="SOURCE", help="a Hugging Face folder, a .gguf, or llama2.c's .bin")],
    /,
    *,
    name: Annotated[str, Parameter(help="the run's name; none: that of the source")] = "",
    tokenizer: Annotated[
        Path | None, Parameter(help="llama2.c's tokenizer.bin, where it is not beside the .bin")
    ] = None,
    runs: Runs = RUNS,
) -> None:
    """Bring a model in from elsewhere; it then trains on, chats, serves and evaluates like one made here."""
    from ingot.convert.source import import_model as bring_in
    from ingot.model.architecture import parameter_counts
    from ingot.model.huggingface import load_architecture

    made = bring_in(source, name, runs, tokenizer)
    arch = load_architecture(made.model)
    run = made.path.parent.parent.name
    print(f"{run}@{made.step}: {parameter_counts(arch)['total']:,} parameters, {arch.family} -> {made.path}")


@models.command(usage="Usage: ingot models remove MODEL [--yes] [--runs DIR]")
def remove(model: Id, /, *, yes: Annotated[bool, Parameter(help="do not ask")] = False, runs: Runs = RUNS) -> None:
    """Remove a checkpoint, or by a run's bare name the whole run. Asks first."""
    from ingot.manager import ModelManager

    manager = ModelManager(runs)
    found = manager.removes(model)
    size = sum(one.bytes for one in found)
    said = f"{', '.join(one.id for one in found)}: {size / 2**20:,.1f} MiB"
    if not yes:
        if not sys.stdin.isatty():
            raise UserError("nobody is there to ask", where="models remove", mend="give --yes to remove it unasked")
        if input(f"remove {said}? [y/N] ").strip().lower() not in ("y", "yes"):
            print("nothing was removed")
            return
    manager.remove(model)
    print(f"removed {said}")
