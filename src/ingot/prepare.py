"""The job behind `ingot prepare`: tokenizer and token cache, made where they are missing, and a report on them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from ingot.data.build.report import count, size
from ingot.data.build.report import remarks as dropped_and_cut
from ingot.data.cache import VIEWS, TokenCache
from ingot.data.live.prepare import prepare_live
from ingot.data.prepare import prepare as prepare_data
from ingot.distributed import environment
from ingot.recipe import Recipe


def prepare(recipe: Recipe) -> TokenCache:
    """Make what `recipe` trains on, or find it made, and print what went into it. Raises UserError."""
    console = Console(highlight=False, markup=False, soft_wrap=True, quiet=environment("RANK", "0") != "0")
    data = recipe.data
    tokenizer = recipe.tokenizer_from(recipe.start_folder())
    if data.live:
        live = prepare_live(data.sources, data.held_out, tokenizer, recipe.cache, data.clean, console.print)
        console.print("data.live: the rest is streamed while training")
        return live.cache
    _, cache = prepare_data(data.sources, data.held_out, tokenizer, recipe.cache, console.print, clean=data.clean)
    _show(cache, console)
    if cache.train.masked:  # the context says how conversations are cut, and that is part of what went in
        from ingot.data.blocks import blocks_of, remarks  # which loads PyTorch

        blocks = blocks_of(cache, recipe.model.context, data.packing, apart=bool(recipe.weights))
        for line in remarks(cache, blocks):
            console.print(line)
    return cache


def _show(cache: TokenCache, console: Console) -> None:
    """The data report as a table, and in lines what does not fit into one."""
    report = cache.report
    table = Table(
        "source", *("files", "text", "documents", "held out", "tokens", "bytes a token", "of all tokens"), box=None
    )
    table.columns[0].overflow = "fold"
    for column in table.columns[1:]:
        column.justify = "right"
    for source in report["sources"]:
        name = f"{source['name']}, for {source['instead_of']}" if source["instead_of"] else source["name"]
        table.add_row(name, f"{source['files']:,}", *_counts(source), f"{source['share']:.1%}")
    if len(report["sources"]) > 1:
        table.add_row("all", f"{sum(source['files'] for source in report['sources']):,}", *_counts(report), "")
    console.print(table)
    for source in report["sources"]:
        if source["fields"]:
            console.print(f"text field of {source['name']}: {' and '.join(map(repr, source['fields']))}")
        if source["limited"]:
            console.print(f"{source['name']}: taken up to its limit")
    for line in dropped_and_cut(report):
        console.print(line)
    documents = sum(report[view]["documents"] for view in VIEWS)
    dropped = sum(entry["count"] for entry in report["dropped"].values())
    console.print(f"{count(report['found'], 'record')} found: {count(documents, 'document')} and {dropped:,} dropped")
    console.print(f"longest document: {size(report['longest']['bytes'])}, at {report['longest']['place']}")
    console.print(f"token cache: {cache.folder}")


def _counts(of: Mapping[str, Any]) -> list[str]:
    """Text, documents, those held out, tokens and bytes a token of a source, or of all."""
    text, documents, tokens = (sum(of[view][key] for view in VIEWS) for key in ("bytes", "documents", "tokens"))
    counts = (f"{documents:,}", f"{of['held_out']['documents']:,}", f"{tokens:,}")
    return [size(text), *counts, f"{text / max(1, tokens):.2f}"]
