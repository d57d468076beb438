"""The job behind `ingot prepare`: tokenizer and token cache, made where they are missing, and a report on them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from textwrap import TextWrapper
from typing import Any

from rich.console import Console

from ingot.data.build.report import count, size
from ingot.data.build.report import remarks as dropped_and_cut
from ingot.data.cache import VIEWS, TokenCache
from ingot.data.live.prepare import prepare_live
from ingot.data.prepare import prepare as prepare_data
from ingot.distributed import environment
from ingot.recipe.recipe import Recipe


def prepare(recipe: Recipe) -> TokenCache:
    """Make what `recipe` trains on, or find it made, and print what went into it. Raises UserError."""
    console = Console(highlight=False, markup=False, soft_wrap=True, quiet=environment("RANK", "0") != "0")
    lines = TextWrapper(console.width, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)

    def say(line: str) -> None:
        console.print(lines.fill(line) if console.is_terminal else line)

    data = recipe.data
    tokenizer = recipe.tokenizer_from(recipe.start_folder())
    if data.live:
        live = prepare_live(data.sources, data.held_out, tokenizer, recipe.cache, data.clean, say)
        say("data.live: the rest is streamed while training")
        return live.cache
    _, cache = prepare_data(data.sources, data.held_out, tokenizer, recipe.cache, say, clean=data.clean)
    for line in _told(cache):
        say(line)
    if cache.train.masked:  # the context says how conversations are cut, and that is part of what went in
        from ingot.data.blocks import blocks_of, remarks  # which loads PyTorch

        blocks = blocks_of(cache, recipe.model.context, data.packing, apart=bool(recipe.weights))
        for line in remarks(cache, blocks):
            say(line)
    return cache


def _told(cache: TokenCache) -> Iterator[str]:
    """The data report: source by source, then what holds for all."""
    report = cache.report
    for source in report["sources"]:
        yield f"{source['name']}, for {source['instead_of']}" if source["instead_of"] else source["name"]
        yield from _counts(source, source["files"], f", {source['share']:.1%} of all")
        if source["fields"]:
            yield f"  text field {' and '.join(map(repr, source['fields']))}"
        if source["limited"]:
            yield "  taken up to its limit"
    if len(report["sources"]) > 1:
        yield "all sources"
        yield from _counts(report, sum(source["files"] for source in report["sources"]))
    yield from dropped_and_cut(report)
    documents = sum(report[view]["documents"] for view in VIEWS)
    dropped = sum(entry["count"] for entry in report["dropped"].values())
    yield f"{count(report['found'], 'record')} found: {count(documents, 'document')} and {dropped:,} dropped"
    yield f"longest document: {size(report['longest']['bytes'])}, at {report['longest']['place']}"
    yield f"token cache: {cache.folder}"


def _counts(of: Mapping[str, Any], files: int, share: str = "") -> Iterator[str]:
    """What was read of a source, or of all, and the tokens that it came to."""
    text, documents, tokens = (sum(of[view][key] for view in VIEWS) for key in ("bytes", "documents", "tokens"))
    held_out = of["held_out"]["documents"]
    yield f"  {count(files, 'file')}, {size(text)}: {count(documents, 'document')}, {held_out:,} held out"
    yield f"  {count(tokens, 'token')} of {text / max(1, tokens):.2f} bytes{share}"
