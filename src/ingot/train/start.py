"""A run that begins from another model: its tokenizer, and its weights in a model as large or larger."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from ingot.errors import UserError
from ingot.model.architecture import Architecture
from ingot.model.decoder import Decoder
from ingot.model.grow import check, grow
from ingot.model.huggingface import load_architecture, load_model
from ingot.recipe.recipe import Recipe
from ingot.tokenizer.tokenizer import Tokenizer

LOOKED_AT = 64  # tokens on which the two models are compared


def grown_shape(recipe: Recipe, folder: Path, tokenizer: Tokenizer) -> Architecture:
    """The shape of the model that `recipe` describes, with as many tokens as the one in `folder`.

    Raises UserError where that one can't grow into it, by the first field, or does not know all tokens.
    """
    begun = load_architecture(folder)
    if begun.vocabulary < tokenizer.vocabulary:
        what = f"the model to start from knows {begun.vocabulary:,} tokens, its tokenizer {tokenizer.vocabulary:,}"
        raise UserError(what, where=str(folder), mend="the two do not belong together")
    check(begun, recipe.model.with_vocabulary(begun.vocabulary))
    return recipe.model.with_vocabulary(begun.vocabulary)


@torch.no_grad()
def begin_from(folder: Path, model: Decoder, recipe: Recipe, say: Callable[[str], None]) -> None:
    """Give `model`, freshly drawn, the function of the model in `folder`, and say how far the two agree.

    Raises UserError where they do not.
    """
    begun = load_model(folder)
    grow(begun, model, recipe.grow)
    tokens = torch.arange(min(LOOKED_AT, begun.arch.context))[None] % begun.arch.vocabulary
    training = model.training
    before, after = begun.eval()(tokens), model.eval()(tokens)
    model.train(training)
    apart = float((after - before).abs().max() / before.abs().max().clamp(min=1e-30))
    if not apart < 1e-3:
        what = f"the grown model's logits are {apart:.1e} of their size away from those of the model to start from"
        raise UserError(what, where="start", mend="start from a model whose weights are all numbers")
    changed = [
        f"{name} {getattr(begun.arch, name)} → {getattr(model.arch, name)}"
        for name in Architecture.model_fields
        if name != "dropout" and getattr(begun.arch, name) != getattr(model.arch, name)
    ]
    grown = f", grown: {', '.join(changed)}; logits agree to {apart:.0e}" if changed else ""
    say(f"starting from {recipe.start}{grown}")
