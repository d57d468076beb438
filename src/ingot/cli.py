"""The command line: one function per verb. PyTorch is loaded by the verb that needs it, not by `ingot --help`."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import (
    App,
    CycloptsError,
    MissingArgumentError,
    Parameter,
    UnknownCommandError,
    UnknownOptionError,
    UnusedCliTokensError,
)

from ingot import __version__
from ingot.errors import UserError

if TYPE_CHECKING:
    from ingot.generate.generator import Generator
    from ingot.generate.sampling import Sampling

# Exit statuses: a mistake that the user can mend; Ctrl-C (128 + SIGINT); nobody reads the output any more.
MISTAKE, INTERRUPTED, UNREAD = 2, 130, 1

app = App(
    name="ingot",
    help="Raise a language model from raw text.",
    version=__version__,
    help_format="plaintext",
    default_parameter=Parameter(negative=""),
    suppress_keyboard_interrupt=False,  # `run` says so in one line
)
recipes = App(
    name="recipes", help="List the built-in recipes, show one, explain every key, or list the corpora known by name."
)
bench = App(name="bench", help="Measure this machine against its ceilings, and against peers.")
for family in (recipes, bench):
    app.command(family)

RecipeName = Annotated[str, Parameter(help="a recipe file, or the name of a built-in recipe")]
Overrides = Annotated[str, Parameter(help="key=value, such as model.layers=12; `ingot recipes explain` lists the keys")]


@app.command(usage="Usage: ingot demo [KEY=VALUE …]")
def demo(*overrides: Overrides) -> None:
    """Raise a small model from packaged text in minutes, and write a report on it; again: go on."""
    from ingot.demo import demo

    demo(overrides)


@recipes.command(name="list", usage="Usage: ingot recipes list")
def list_recipes() -> None:
    """Name, size and purpose of each built-in recipe."""
    from ingot.estimate.text import vocabulary_of
    from ingot.model.architecture import parameter_counts
    from ingot.recipe import Recipe, builtin_recipes

    rows = []
    for name, path in builtin_recipes().items():
        recipe = Recipe.load(name)
        model = recipe.model.with_vocabulary(vocabulary_of(recipe))
        purpose = path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
        total = parameter_counts(model)["total"]
        rows.append((name, f"{total / 1e9:.2f}B" if total >= 1e9 else f"{total / 1e6:.1f}M", purpose))
    _print_table(["recipe", "parameters", "purpose"], rows)


@recipes.command(usage="Usage: ingot recipes show RECIPE [KEY=VALUE …]")
def show(recipe: RecipeName, /, *overrides: Overrides) -> None:
    """The whole recipe as YAML, every default filled in."""
    from ingot.config import to_yaml
    from ingot.recipe import Recipe

    print(to_yaml(Recipe.load(recipe, overrides)), end="")


@recipes.command(usage="Usage: ingot recipes explain [KEY]")
def explain(
    prefix: Annotated[
        str, Parameter(name="KEY", help="only the keys that begin so, such as train or optimizer[muon]")
    ] = "",
    /,
) -> None:
    """Every key of a recipe: type, default, meaning and unit."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from ingot.config import explain as keys_of
    from ingot.config import nearest
    from ingot.recipe import Recipe

    every = list(keys_of(Recipe))
    keys = [key for key in every if key.path.startswith(prefix)]
    if not keys:
        raise UserError(f"there is no key {prefix!r}", mend=nearest(prefix, [key.path for key in every]))
    if not sys.stdout.isatty():  # one key a line, for grep
        rows = [(key.path, key.type, key.default, key.meaning) for key in keys]
        _print_table(["key", "type", "default", "meaning"], rows)
        return
    table = Table(box=None, pad_edge=False, show_header=False, leading=1)
    for key in keys:
        default = f" = {key.default}" if key.default not in ("", "needed") else f"  {key.default}"
        table.add_row(Text.assemble((key.path, "bold"), "\n", (f"  {key.type}{default}", "dim")), Text(key.meaning))
    Console(highlight=False).print(table)


@recipes.command(usage="Usage: ingot recipes corpora")
def corpora() -> None:
    """The corpora that a source of the kind hub knows by name: where they lie, how large they are, whose they are."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from ingot.data.corpora import CORPORA

    if not sys.stdout.isatty():  # one corpus a line, for grep
        rows = [(name, one.path, one.configuration, one.size, one.licence, one.note) for name, one in CORPORA.items()]
        _print_table(["corpus", "on the hub", "configuration", "size", "licence", "what it is"], rows)
        return
    table = Table(box=None, pad_edge=False, show_header=False, leading=1)
    for name, one in CORPORA.items():
        place = f"{one.path}, {one.configuration}" if one.configuration else one.path
        about = f"{one.note[0].upper()}{one.note[1:]}. {one.size}. Licence: {one.licence}."
        table.add_row(Text.assemble((name, "bold"), "\n", (f"  {place}", "dim")), Text(about))
    Console(highlight=False).print(table)


@app.command(usage="Usage: ingot prepare RECIPE [KEY=VALUE …]")
def prepare(recipe: RecipeName, /, *overrides: Overrides) -> None:
    """Make the tokenizer and the token cache that a recipe needs; what is there already is kept."""
    from ingot.recipe import Recipe

    loaded = Recipe.load(recipe, overrides)  # before PyTorch, as everywhere here: a mistake is told at once
    from ingot.prepare import prepare

    prepare(loaded)


@app.command(usage="Usage: ingot plan RECIPE [KEY=VALUE …] [--device NAME] [--devices NUMBER] [--price PRICE]")
def plan(
    recipe: RecipeName,
    /,
    *overrides: Overrides,
    device: Annotated[str, Parameter(help="a GPU such as H100, T4 or RTX-4090; none: what this machine has")] = "",
    devices: Annotated[int, Parameter(help="how many of them share the work")] = 1,
    price: Annotated[float | None, Parameter(help="of an hour of one device, in any currency")] = None,
) -> None:
    """What a recipe will need: parameters, FLOPs, memory, disk, time, cost. Starts nothing."""
    from ingot.plan import plan
    from ingot.recipe import Recipe

    plan(Recipe.load(recipe, overrides), device=device, devices=devices, price=price)


@app.command(usage="Usage: ingot train RECIPE [KEY=VALUE …] [--fresh] [--dry-run]")
def train(
    recipe: RecipeName,
    /,
    *overrides: Overrides,
    fresh: Annotated[bool, Parameter(help="begin anew; a run of the same name is moved aside")] = False,
    dry_run: Annotated[bool, Parameter(help="all but training: the model's shape, the data's start, one step")] = False,
) -> None:
    """Train: prepare what is missing, and go on with what was begun. Ctrl-C saves and ends."""
    from ingot.recipe import Recipe

    loaded = Recipe.load(recipe, overrides)
    if dry_run:
        from ingot.train.dry import dry_run as rehearse

        rehearse(loaded)
        return
    from ingot.train.run import train

    train(loaded, fresh=fresh)


@app.command(usage="Usage: ingot generate MODEL [PROMPT …] [OPTIONS]")
def generate(
    model: Annotated[str, Parameter(help="a run's name, name@best, name@latest, name@1200, or a model folder")],
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


@bench.command(name="train", usage="Usage: ingot bench train [--seconds SECONDS]")
def time_training(
    seconds: Annotated[float, Parameter(help="time to measure for, all contenders together")] = 60.0,
) -> None:
    """Training throughput beside plain PyTorch and transformers, as shares of this machine's matmul peak."""
    from ingot.bench.train import bench_train

    bench_train(seconds)


@bench.command(name="prepare", usage="Usage: ingot bench prepare [--megabytes MEGABYTES] [--rounds ROUNDS]")
def time_preparing(
    megabytes: Annotated[float, Parameter(help="text to prepare; below 64, ingot starts no second process")] = 120.0,
    rounds: Annotated[int, Parameter(help="times that each contender prepares it")] = 3,
) -> None:
    """Making a token cache beside tiktoken, nanoGPT's way and tokenizers, and what reading it costs a step."""
    from ingot.bench.prepare import bench_prepare

    bench_prepare(megabytes, rounds)


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


def _print_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """One line for each row, in columns as wide as they need to be."""
    columns = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    for row in (heads, *rows):
        line = "  ".join(f"{part:{width}}" for part, width in zip(row, columns, strict=True))
        print(line.rstrip())


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0, or 2 and one line on standard error for a mistake of the user's."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """The exit status of `ingot` with these arguments."""
    try:
        app(list(arguments), exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except (UserError, CycloptsError) as error:
        from ingot.distributed import fails_first

        if fails_first():  # of several processes one says it
            print(f"ingot: {error if isinstance(error, UserError) else _misuse(error)}", file=sys.stderr)
        return MISTAKE
    except KeyboardInterrupt as interrupt:
        from ingot.train.stop import Stopped

        if not isinstance(interrupt, Stopped):
            print("ingot: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        _drop_output()
        return UNREAD
    return 0


def _misuse(error: CycloptsError) -> str:
    """What is wrong with the arguments, in one line that names the nearest right word or where to look."""
    verb = " ".join(error.command_chain or ())
    look = f"see `{' '.join(['ingot', verb]).strip()} --help`"
    if isinstance(error, MissingArgumentError) and error.argument and not error.argument.name.startswith("-"):
        return f"{verb} needs {error.argument.name.upper()}; {look}"
    if isinstance(error, UnknownCommandError) and error.unused_tokens:
        return _unknown(error.unused_tokens[0], error.app or app)
    if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        return f"{verb} has no use for {error.unused_tokens[0]!r}; {look}"
    if isinstance(error, UnknownOptionError) and (key := _key_with_dashes(error)):
        return f"there is no option {error.token.value!r}; a recipe's keys have no dashes: {key}"
    message = " ".join(str(error).split()).rstrip(".")
    return message if "Did you mean" in message else f"{message}; {look}"


def _key_with_dashes(error: UnknownOptionError) -> str:
    """`key=value` as it was meant, where an option that is none is a recipe's key; else empty."""
    from ingot.recipe import Recipe

    word, words = error.token.value, error.unused_tokens or []
    key, _, value = word.lstrip("-").partition("=")
    parameters = inspect.signature(error.target).parameters if error.target else {}
    if "overrides" not in parameters or key.partition(".")[0] not in Recipe.model_fields:
        return ""
    following = words[words.index(word) + 1 :] if word in words else []
    return f"{key}={value or next(iter(following), '…')}"


def _unknown(word: str, within: App) -> str:
    from ingot.config import nearest

    if word.startswith("-"):
        return f"there is no option {word!r}; {nearest(word, ['--help', '--version'])}"
    return f"there is no command {word!r}; {nearest(word, [name for name in within if not name.startswith('-')])}"


def _drop_output() -> None:
    """Send what is still unwritten nowhere, or Python complains about the closed pipe while it exits."""
    import os

    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
