"""A plan in lines, in the order in which one asks."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from ingot.data.build.report import size
from ingot.estimate.scaling import SMALLEST_FITTED, SOURCE
from ingot.plan.plan import Plan, figure
from ingot.rhythm import in_words

BUSY = 0.1  # share of the processors in other hands that is worth a word


def show(made: Plan, price: float | None, console: Console) -> None:
    """Print the plan; with the `price` of an hour of a device, what the run costs."""
    rows = list(_rows(made, price))
    if console.is_terminal:
        table = Table.grid(padding=(0, 2))
        for row in rows:
            table.add_row(*row)
        console.print(table)
    else:  # a thing a line, for grep
        width = max(len(name) for name, _ in rows)
        for name, line in rows:
            console.print(f"{name:{width}}  {line}")
    for line in (*made.notes, *(f"warning: {warning}" for warning in made.warnings)):
        console.print(line)


def _rows(made: Plan, price: float | None) -> Iterator[tuple[str, str]]:
    """Names and lines, in the order in which one asks."""
    device, counts, parts = made.device, made.parameters, made.footprint.parts
    source = "measured here" if device.measured else "as its data sheet has it"
    if device.busy > BUSY:
        source += f" while others had {device.busy:.0%} of the processors: a calm machine is faster"
    peak = f"{device.peaks[made.precision] / 1e12:.3g} TFLOP/s {source}"
    yield made.recipe.name, f"on {made.ranks} × {device.name}, {device.memory / 1e9:.0f} GB, {made.precision}, {peak}"
    by_part = ", ".join(f"{name} {figure(count)}" for name, count in counts.items() if count and name != "total")
    yield "parameters", f"{counts['total']:,}: {by_part}"
    flops = made.flops_per_token
    yield "FLOPs", f"{flops / 1e9:.3g} G a token" + (f", {flops * made.tokens:.2e} in all" if made.tokens else "")
    libraries = "Python and PyTorch" if device.kind == "cpu" else "CUDA and libraries"
    parts = {libraries: made.process - made.footprint.total, **parts}
    held = ", ".join(f"{name} {size(part)}" for name, part in parts.items() if part >= 5e5)
    yield "memory", f"{size(made.process)} of {size(device.memory)}, the most in {made.footprint.moment}: {held}"
    work = made.works[0]
    fitting = f"{made.most_rows:,} fit" if made.most_rows else "not one fits"
    yield "at once", f"{work.rows:,} rows of {work.length:,} tokens in a forward pass; {fitting}"
    yield "run", _run(made)
    if made.seconds is not None and made.tokens is not None:
        by = f"as run {made.past.run} took here on {made.past.day}" if made.past else "a guess by arithmetic"
        yield "time", f"{in_words(made.seconds)} of training, {figure(made.tokens / made.seconds)} tokens/s; {by}"
        more = {name: seconds for name, seconds in made.beside.items() if seconds >= 1}
        told = ", ".join(f"{name} {in_words(seconds)}" for name, seconds in more.items())
        yield "beside", f"about {in_words(sum(made.beside.values()))} more: {told}; preparing the text comes before"
    if made.cost(price or 0):
        yield "cost", f"{made.cost(price or 0):,.2f} at {price:g} an hour for each device"
    cache = "no token cache, the text is streamed" if made.recipe.data.live else "token cache unknown"
    cache = f"token cache {size(made.cache)}" if made.cache else cache
    yield "disk", f"{cache}, {made.checkpoints} checkpoints of {size(made.checkpoint)}"
    if made.loss is not None and counts["total"] >= SMALLEST_FITTED:  # of a smaller one the law says nonsense
        yield "loss", f"{made.loss:.2f} nats a token by Chinchilla's law, on its text and tokenizer ({SOURCE})"


def _run(made: Plan) -> str:
    live = made.recipe.data.live
    unknown = "streamed, as much as it takes" if live else "nobody knows how much text yet"
    text = unknown
    if made.text.train:
        text = f"{made.text.train:,.0f}" if made.text.exact else f"about {figure(made.text.train)}"
        text += " tokens of text"
    if made.steps is None:
        return f"{made.recipe.train.duration}; {text}: `ingot prepare` tells"
    epochs = f"; {text}"
    if made.epochs:
        times = f"{made.epochs:,.0f}" if made.epochs >= 10 else f"{made.epochs:.2g}"
        epochs = f", {times} epoch{'' if times == '1' else 's'} of {text}"
    return f"{made.steps:,} steps, {figure(made.tokens or 0)} tokens{epochs}"
