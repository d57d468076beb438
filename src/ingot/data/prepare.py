"""Everything between sources and training, made where it is missing: the tokenizer, then the token cache."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from pathlib import Path

from ingot.data.build import build, report
from ingot.data.build.board import Board, encoder_file
from ingot.data.build.claims import alone
from ingot.data.build.plan import DIGESTS, Corpus, cache_folder, fingerprint
from ingot.data.build.sample import content_sizes, sample
from ingot.data.cache import TokenCache
from ingot.data.clean import Cleaning
from ingot.data.digests import Digests
from ingot.data.resolved import resolve, settled
from ingot.data.source import FileSource, HeldOut, Source
from ingot.distributed import most_held
from ingot.files import make_folder, new_folder
from ingot.rhythm import in_words
from ingot.tokenizer.tokenizer import Tokenizer
from ingot.tokenizer.training import Bounded, TokenizerConfig

QUIET_SECONDS = 10.0  # between two lines on how far the token cache is


def prepare(
    sources: Sequence[Source],
    held_out: HeldOut,
    tokenizer: TokenizerConfig,
    folder: Path,
    say: Callable[[str], None] = lambda line: None,
    *,
    clean: Cleaning | None = None,
    workers: int = 0,
) -> tuple[Tokenizer, TokenCache]:
    """Tokenizer and token cache below `folder`: found where the inputs are unchanged, made where they are not.

    Processes that ask at once, on any machine that sees the folder, share the work. `say` is told in lines what was
    found and made, and now and then how far a long build is; what went into the cache is `report.lines` of its report.
    Raises UserError for sources that give nothing to train on, and for a folder that can't be written to.
    """
    make_folder(folder)
    corpus = Corpus(resolve(sources, folder, say), held_out, clean or Cleaning(), tuple(sources))
    trained = find_tokenizer(corpus, tokenizer, folder, say)
    cache = build(corpus, trained, folder, workers=workers, progress=_Pace(say).tell)
    if reason := _chosen_encoder(cache):
        say(reason)
    for line in report.warnings(cache.report, trained.vocabulary, getattr(tokenizer, "vocabulary", None)):
        say(line)
    return trained, cache


def prepared(
    sources: Sequence[Source],
    held_out: HeldOut,
    tokenizer: TokenizerConfig,
    folder: Path,
    *,
    clean: Cleaning | None = None,
) -> TokenCache | None:
    """The token cache that `prepare` would find there; None where it would have to make it.

    None, too, where one would have to read the text or ask a network to tell. Raises UserError for what is not there.
    """
    found = settled(sources, folder) if folder.exists() else None
    files = [source.parts() for source in found or () if isinstance(source, FileSource)]
    if not found or not Digests(folder / DIGESTS).know(part.path for part in chain.from_iterable(files)):
        return None
    corpus = Corpus(found, held_out, clean or Cleaning(), tuple(sources))
    inputs = corpus.fingerprint(folder)
    place = _place(inputs, tokenizer, folder)
    if tokenizer.text_bytes and not place.exists():
        return None
    ready = Tokenizer.load(place) if tokenizer.text_bytes else tokenizer.train(iter(()))
    parts = chain.from_iterable(source.parts() for source in found)
    target = cache_folder(folder, corpus, inputs, ready, parts)
    return TokenCache.open(target) if TokenCache.exists(target) else None


def _chosen_encoder(cache: TokenCache) -> str:
    """Why the encoder is the one it is; nothing where there was no choice, or the cache was made elsewhere."""
    try:
        return str(json.loads(encoder_file(cache.folder).read_bytes())["reason"])
    except (OSError, ValueError, KeyError):
        return ""


class _Pace:
    """Says how far a build is, at most once in `QUIET_SECONDS`; a quick one is over before the first line."""

    def __init__(self, say: Callable[[str], None]):
        self._say = say
        self._began = self._spoke = time.monotonic()
        self._first: int | None = None

    def tell(self, board: Board) -> None:
        """Hear how it stands; what was done before this process spoke first says nothing about the speed."""
        now = time.monotonic()
        if now - self._spoke < QUIET_SECONDS:
            return
        self._spoke = now
        standing = board.standing()
        done, total = standing.done, standing.total
        line = f"token cache: {standing.what}"
        if done < total:
            line = f"token cache: {report.size(done)} of {report.size(total)}, {done / total:.0%}"
        if standing.claimed:
            line += f", {report.count(standing.claimed + 1, 'process')} at work"
        if self._first is None:
            self._first, self._began = done, now
        elif self._first < done < total:
            left = (now - self._began) / (done - self._first) * (total - done)
            line += f", about {in_words(left)} left"
        if standing.what:
            self._say(line)


def find_tokenizer(
    corpus: Corpus,
    config: TokenizerConfig,
    folder: Path,
    say: Callable[[str], None] = lambda line: None,
    inputs: str = "",
) -> Tokenizer:
    """The tokenizer that `config` trains on `corpus`, kept in `folder/tokenizers/`; of several processes one does.

    One that needs no training is read anew each time: what its files hold may have changed. `inputs`: a name for the
    corpus other than its fingerprint, which takes reading all of it.
    """
    if not config.text_bytes:
        ready = config.train(iter(()))
        say(f"tokenizer: {ready.vocabulary:,} tokens")
        return ready
    place = _place(inputs or corpus.fingerprint(folder), config, folder)
    make_folder(place.parent)
    if not place.exists():
        wait = partial(say, "tokenizer: another process is training it")
        with alone(place.with_name(f".{place.name}.lock"), wait):
            if not place.exists():
                contents = chain.from_iterable(content_sizes(source.parts()) for source in corpus.sources)
                size = min(config.text_bytes, sum(contents))
                say(f"tokenizer: training on {report.size(size)} of text")
                texts = Bounded(sample(corpus, config.text_bytes))
                trained = config.train(iter(texts))
                say(_trained(texts))
                with new_folder(place) as draft:
                    trained.save(draft)
    found = Tokenizer.load(place)
    say(f"tokenizer: {found.vocabulary:,} tokens in {place}")
    return found


def _place(inputs: str, config: TokenizerConfig, folder: Path) -> Path:
    """Where the tokenizer lies that `config` trains on a corpus of that fingerprint."""
    return folder / "tokenizers" / fingerprint({"inputs": inputs, "tokenizer": config.to_dict()})


def _trained(texts: Bounded) -> str:
    """What training took, in a line."""
    line = f"tokenizer: trained on {report.size(texts.bytes)} of text"
    if texts.full:
        line += ", no more, for its distinct words are as many as training can hold in memory"
    if held := most_held():
        line += f"; at most {report.size(held)} of memory"
    return line
