"""How many tokens a recipe's sources hold, as far as that can be told without reading them or asking a network.

A token cache that is there already tells; otherwise their limits do, or the size of their files.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from ingot.data.build.sample import content_sizes
from ingot.data.cache import TokenCache
from ingot.data.prepare import prepared
from ingot.data.source import FileSource, Source
from ingot.errors import UserError
from ingot.recipe.recipe import Recipe

# Bytes of English text a token, for a byte-level BPE: 4.4 at 50,257 tokens (OpenWebText: 39.8 GB, 9.04B tokens of
# GPT-2's), less by this much for each halving of the vocabulary.
BYTES_A_BIT = 4.4 / math.log2(50_257)


@dataclass(frozen=True)
class Text:
    """The tokens that a run can train on in one epoch, and those held out; none where nobody knows yet."""

    train: float | None
    held_out: float | None
    exact: bool = False


def vocabulary_of(recipe: Recipe) -> int:
    """The tokens of the model: as the recipe says, or as many as its tokenizer is to have.

    A tokenizer of another model is read. Raises UserError where it can't be.
    """
    tokenizer = recipe.tokenizer_from(recipe.start_folder())
    asked = recipe.model.vocabulary or getattr(tokenizer, "vocabulary", 0)
    return int(asked) or tokenizer.train(iter(())).vocabulary


def text_of(recipe: Recipe, vocabulary: int, say: Callable[[str], None]) -> Text:
    """How many tokens the sources hold: exactly where they are prepared, else about, by their limits or files.

    `say` hears of a source that is not there.
    """
    if cache := _prepared(recipe):
        return Text(float(cache.train.tokens), float(cache.held_out.tokens), exact=True)
    tokens = [_tokens(source, BYTES_A_BIT * math.log2(vocabulary), say) for source in recipe.data.sources]
    known = [number for number in tokens if number is not None]
    if len(known) < len(tokens):
        return Text(None, None)
    held = float(recipe.data.held_out.exact)
    return Text(sum(known) * (1 - held), sum(known) * held)


def _prepared(recipe: Recipe) -> TokenCache | None:
    """The recipe's token cache, where it is there already."""
    if recipe.data.live:
        return None
    data, tokenizer = recipe.data, recipe.tokenizer_from(recipe.start_folder())
    try:
        return prepared(data.sources, data.held_out, tokenizer, recipe.cache, clean=data.clean)
    except UserError:  # a source is not there, which is said below, or what was made of it is damaged
        return None


def _tokens(source: Source, bytes_a_token: float, say: Callable[[str], None]) -> float | None:
    sizes = [source.max_bytes / bytes_a_token] if source.max_bytes else []
    sizes += [source.target_tokens] if source.target_tokens else []
    if isinstance(source, FileSource):
        try:
            sizes.append(sum(content_sizes(source.parts())) / bytes_a_token)
        except UserError as error:
            say(str(error))
    return min(sizes, default=None)
