"""The text that a model is measured on: what its run held out, or any source; and the text that it has learned."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ingot.checkpoint.manifest import MANIFEST, CheckpointDamaged, Manifest
from ingot.checkpoint.store import FOLDER, MODEL
from ingot.config.check import validate
from ingot.data.build.spelling import Speller
from ingot.data.cache import TokenCache, TokenView
from ingot.data.corpora import CORPORA
from ingot.data.document import Conversation, Document, Dropped
from ingot.data.live.prepare import prepare_live
from ingot.data.prepare import prepare
from ingot.data.source import Local, Package, Source
from ingot.errors import UserError
from ingot.evaluate.text import Document as Ids
from ingot.evaluate.text import Tally
from ingot.recipe.sections import Data
from ingot.tokenizer.encoder import encoder
from ingot.tokenizer.tokenizer import Tokenizer
from ingot.tokenizer.training import TokenizerFile

AT_ONCE = 64  # documents that are encoded together
Say = Callable[[str], None]


@dataclass(frozen=True)
class Origin:
    """The run that a model comes from, as its checkpoint tells."""

    run: Path
    manifest: Manifest

    @classmethod
    def of(cls, model: Path) -> Origin | None:
        """The origin of the model in a folder; None for one that comes from no run."""
        checkpoint = model.parent
        if model.name != MODEL or checkpoint.parent.name != FOLDER or not (checkpoint / MANIFEST).exists():
            return None
        try:
            return cls(checkpoint.parents[1], Manifest.read(checkpoint))
        except CheckpointDamaged:
            return None

    def cache(self, model: Path, say: Say) -> TokenCache:
        """The token cache of the run, found, or made anew where it is gone. Raises UserError where it can't be."""
        recipe = self.manifest.recipe
        folder = Path(str(recipe.get("cache", "cache")))
        kept = self.manifest.lineage.get("data")
        if kept and TokenCache.exists(folder / str(kept)):
            return TokenCache.open(folder / str(kept))
        if "data" not in recipe:
            raise UserError("what this model was trained on is not known", where=str(model), mend="give --data")
        say("the token cache of the run is gone: it is made anew")
        data = validate(Data, recipe["data"], where=f"{self.run}: recipe")
        config = TokenizerFile(path=str(model))
        if data.live:
            made = prepare_live(data.sources, data.held_out, config, folder, data.clean, say).cache
        else:
            _, made = prepare(data.sources, data.held_out, config, folder, say, clean=data.clean)
        if kept and made.fingerprint != kept:
            say("the text is not the one that the run was trained on: some of what is held out may have been learned")
        return made


def source_of(text: str) -> Source:
    """The source that a word of the command line means: a path, `package:NAME` or `package:NAME:FILES`, or a dataset.

    A dataset of the hub is one of `ingot recipes corpora`, or OWNER/NAME. Raises UserError.
    """
    kind, _, rest = text.partition(":")
    if kind == "package":
        name, _, files = rest.partition(":")
        return Package(package=name, files=files or "*")
    if not Path(text).expanduser().exists() and (text in CORPORA or _is_dataset(text)):
        from ingot.data.hub import Hub

        return Hub(dataset=text)
    return Local(path=text)


def _is_dataset(text: str) -> bool:
    owner, slash, name = text.partition("/")
    return bool(slash and owner and name) and not any(letter in text for letter in "\\*?~") and text.count("/") == 1


def documents_of(source: Source, tokenizer: Tokenizer, tally: Tally, most: int | None, say: Say) -> Iterator[Ids]:
    """Every document of `source`, or the first `most`, as ids; `tally` counts all records that were looked at.

    Conversations are spelt by the tokenizer's chat template, and what they teach is what is scored.
    """
    speller = Speller(tokenizer, encoder(tokenizer))
    records = _records(source.resolve(say), speller, tally)
    while batch := list(islice(records, min(AT_ONCE, AT_ONCE if most is None else most))):
        most = None if most is None else most - len(batch)
        tokens = speller.tokens(batch)
        end = 0
        for length in tokens.lengths.tolist():
            begin, end = end, end + length
            mask = None if tokens.mask is None else tokens.mask[begin:end]
            yield Ids(tokens.ids[begin:end], mask)


def _records(source: Source, speller: Speller, tally: Tally) -> Iterator[Document | Conversation]:
    for part in source.parts():
        for found in source.documents(part):
            record = speller.fitting(found)
            tally.found += record.records if isinstance(record, Dropped) else 1
            if isinstance(record, Dropped):
                tally.skip(record.reason, record.records)
            else:
                yield record


def documents_in(view: TokenView, tally: Tally, most: int | None = None) -> Iterator[Ids]:
    """The documents of a token cache, or `most` of them evenly spread."""
    starts = view.starts
    for number in tally.spread(view.documents, most):
        begin = int(starts[number])
        end = int(starts[number + 1]) if number + 1 < view.documents else view.tokens
        yield Ids(view.read(begin, end), view.mask(begin, end))


def as_source(value: Any) -> Source:
    """A source as Python gives it: a word, a mapping as in a recipe, or a source. Raises UserError."""
    if isinstance(value, Source):
        return value
    if isinstance(value, str | Path):
        return source_of(str(value))
    try:
        return Source.model_validate(value)
    except ValidationError as error:
        raise UserError(error.errors()[0]["msg"], where="data", mend="give a path, or a source of a recipe") from None
