"""What live streaming needs before the first step: the tokenizer, the fastest encoder, and some held-out text."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ingot.data.build.board import COMPARED_FROM, encoder_file
from ingot.data.build.claims import alone
from ingot.data.build.joining import show
from ingot.data.build.making import text_bytes
from ingot.data.build.plan import Corpus, Group, cache_folder
from ingot.data.build.report import count, size
from ingot.data.build.shards import ShardWriter, shard_writers
from ingot.data.build.spelling import Speller
from ingot.data.cache import Shard, TokenCache
from ingot.data.clean import Cleaning
from ingot.data.document import Conversation, Document, Dropped
from ingot.data.live.plan import outline
from ingot.data.order import permute
from ingot.data.prepare import find_tokenizer
from ingot.data.resolved import resolve
from ingot.data.source import HeldOut, Source
from ingot.files import make_folder, write_atomically
from ingot.tokenizer.encoder import SAMPLE_BYTES, Choice, Library, fastest
from ingot.tokenizer.tokenizer import Tokenizer
from ingot.tokenizer.training import TokenizerConfig

HELD_BYTES = 4 * 2**20  # of held-out text, of all sources together
READ_BYTES = 64 * 2**20  # of text that is looked through for it

Say = Callable[[str], None]


@dataclass(frozen=True)
class Live:
    """A corpus that is ready to be streamed. `cache` has held-out text and nothing to train on."""

    corpus: Corpus
    tokenizer: Tokenizer
    encoder: str
    cache: TokenCache


def prepare_live(
    sources: Sequence[Source], held_out: HeldOut, tokenizer: TokenizerConfig, folder: Path, clean: Cleaning, say: Say
) -> Live:
    """Tokenizer and held-out text below `folder`, found where sources and parts are those they were made of, or made.

    The parts are told by their sizes: of a corpus that is too large to keep, not all can be read to see if it is the
    same. Raises UserError for sources that give nothing to train on, and for a folder that can't be written to.
    """
    make_folder(folder)
    corpus = Corpus(resolve(sources, folder, say), held_out, clean, tuple(sources))
    inputs = outline(corpus)
    found = find_tokenizer(corpus, tokenizer, folder, say, inputs)
    parts = [part for source in corpus.sources for part in source.parts()]
    target = cache_folder(folder, corpus, inputs, found, parts)
    with alone(folder / f".{target.name}.lock"):
        if not (TokenCache.exists(target) and encoder_file(target).exists()):
            _hold_out(corpus, found, target)
    cache = TokenCache.open(target)
    held = cache.held_out
    say(f"held out: {count(held.documents, 'document')}, {held.tokens:,} tokens, of {size(cache.report['read'])} read")
    return Live(corpus, found, json.loads(encoder_file(target).read_bytes())["name"], cache)


def _hold_out(corpus: Corpus, tokenizer: Tokenizer, target: Path) -> None:
    """Make the cache of held-out text, and note which encoder is the fastest on other text."""
    work, speller = target / "work", Speller.of(tokenizer, Library.name)
    texts: list[str] = []
    shards: list[Shard] = []
    read = 0
    for number in range(len(corpus.sources)):
        with shard_writers(work, Group(number, number, ()), flushed=False) as writers:
            read += _hold_out_of(corpus, number, speller, writers["held_out"], texts)
        shards += [writers["held_out"].shard] if writers["held_out"].shard.tokens else []
    chosen = fastest(tokenizer, texts) if read >= COMPARED_FROM else Choice(Library(tokenizer), "")
    make_folder(encoder_file(target).parent)
    write_atomically(encoder_file(target), chosen.note)
    show(target, work, {"train": [], "held_out": shards}, corpus, tokenizer, {"read": read})
    shutil.rmtree(work, ignore_errors=True)


def _hold_out_of(corpus: Corpus, number: int, speller: Speller, writer: ShardWriter, texts: list[str]) -> int:
    """Write held-out documents of a source, and put some others into `texts`; returns the bytes of text read."""
    share = len(corpus.sources)
    most = (READ_BYTES if corpus.held_out.share else SAMPLE_BYTES) // share
    kept: list[Document | Conversation] = []
    read = held = compared = 0
    for is_held, record in _documents(corpus, number, speller):
        length = text_bytes(record)
        read += length
        if is_held:
            held += length
            kept.append(record)
        elif isinstance(record, Document) and compared < SAMPLE_BYTES:
            compared += length
            texts.append(record.text)
        if read >= most or held >= HELD_BYTES // share:
            break
    if kept:
        tokens = speller.tokens(kept)
        writer.put(tokens.ids, tokens.lengths, held, tokens.mask)
    return read


def _documents(corpus: Corpus, number: int, speller: Speller) -> Iterator[tuple[bool, Document | Conversation]]:
    """The documents of a source, part by part from all over it, and whether each is held out."""
    source = corpus.sources[number]
    parts = source.parts()
    for place in range(len(parts)):
        part = int(permute(place, len(parts), 0))
        for index, found in enumerate(source.documents(parts[part])):
            record = speller.fitting(corpus.clean.record(found))
            if not isinstance(record, Dropped):
                yield corpus.held_out.holds(part, index), record
