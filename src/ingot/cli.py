"""The command line: one function per verb. PyTorch is loaded by the verb that needs it, not by `ingot --help`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, CycloptsError, MissingArgumentError, Parameter, UnknownCommandError, UnusedCliTokensError

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
recipes = App(name="recipes", help="List the built-in recipes, show one, or explain every key.")
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
    from ingot.model.architecture import parameter_counts
    from ingot.recipe import Recipe, builtin_recipes

    rows = []
    for name, path in builtin_recipes().items():
        recipe = Recipe.load(name)
        vocabulary = recipe.model.vocabulary or getattr(recipe.tokenizer, "vocabulary", 0)
        model = recipe.model.model_copy(update={"vocabulary": vocabulary})
        purpose = path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
        rows.append((name, f"{parameter_counts(model)['total'] / 1e6:.1f}M", purpose))
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


@app.command(usage="Usage: ingot prepare RECIPE [KEY=VALUE …]")
def prepare(recipe: RecipeName, /, *overrides: Overrides) -> None:
    """Make the tokenizer and the token cache that a recipe needs; what is there already is kept."""
    from ingot.prepare import prepare
    from ingot.recipe import Recipe

    prepare(Recipe.load(recipe, overrides))


@app.command(usage="Usage: ingot train RECIPE [KEY=VALUE …] [--fresh]")
def train(
    recipe: RecipeName,
    /,
    *overrides: Overrides,
    fresh: Annotated[bool, Parameter(help="begin anew; a run of the same name is moved aside")] = False,
) -> None:
    """Train: prepare what is missing, and go on with what was begun. Ctrl-C saves and ends."""
    from ingot.recipe import Recipe
    from ingot.train.run import train

    train(Recipe.load(recipe, overrides), fresh=fresh)


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


def _load_generator(reference: str, runs: Path) -> Generator:
    from ingot.checkpoint.registry import resolve
    from ingot.distributed import World
    from ingot.generate.generator import Generator
    from ingot.model.huggingface import load_model
    from ingot.tokenizer.tokenizer import Tokenizer

    folder = resolve(reference, runs)
    network = load_model(folder, device=World.join().device).eval()
    return Generator(network, Tokenizer.load(folder))


def _write_continuations(generator: Generator, prompts: Sequence[str], sampling: Sampling) -> None:
    """One prompt is continued as one watches; several are written together, a blank line between them."""
    if len(prompts) == 1:
        pieces = generator.stream(prompts[0], sampling)
        print(prompts[0] + next(pieces, ""), end="", flush=True)  # the first piece first: a bad prompt prints nothing
        for piece in pieces:
            print(piece, end="", flush=True)
        print()
        return
    made = generator.generate(list(prompts), sampling)
    print("\n\n".join(prompt + generation.text for prompt, generation in zip(prompts, made, strict=True)))


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
        print(f"ingot: {error if isinstance(error, UserError) else _misuse(error)}", file=sys.stderr)
        return MISTAKE
    except KeyboardInterrupt:
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
    message = " ".join(str(error).split()).rstrip(".")
    return message if "Did you mean" in message else f"{message}; {look}"


def _unknown(word: str, within: App) -> str:
    from ingot.config import nearest

    if word.startswith("-"):
        return f"there is no option {word!r}; {nearest(word, ['--help', '--version'])}"
    return f"there is no command {word!r}; {nearest(word, [name for name in within if not name.startswith('-')])}"


def _drop_output() -> None:
    """Send what is still unwritten nowhere, or Python complains about the closed pipe while it exits."""
    import os

    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
