"""The rows of a run: from its recipe and its token cache to the order of its blocks and their loader."""

from __future__ import annotations

from collections.abc import Iterator

from ingot.data.blocks import blocks_of, remarks
from ingot.data.cache import TokenCache
from ingot.data.loader import Loader
from ingot.data.mix import Mixture
from ingot.data.order import Order
from ingot.distributed import World
from ingot.recipe.recipe import Recipe
from ingot.train.timetable import Timetable


class Rows:
    """What a run trains on: one set of blocks or, where the recipe weighs the sources, one for each of them.

    Raises UserError as `blocks_of` does.
    """

    def __init__(self, recipe: Recipe, cache: TokenCache, world: World):
        self.blocks = blocks_of(cache, recipe.model.context, recipe.data.packing, apart=bool(recipe.weights))
        self.epoch_tokens = sum(blocks.tokens for blocks in self.blocks)  # padding included
        self.epoch_blocks = sum(blocks.count for blocks in self.blocks)
        self._recipe, self._cache, self._world = recipe, cache, world

    def order(self, timetable: Timetable) -> Order:
        """The order of the blocks in a run by `timetable`, whose stages can have mixtures of their own."""
        mixture = mixture_of(self._recipe, timetable)
        return Order([blocks.count for blocks in self.blocks], self._recipe.seed, mixture)

    def loader(self, timetable: Timetable) -> Loader:
        """The loader of this rank's rows in a run by `timetable`."""
        micro, world = self._recipe.micro_tokens, self._world
        return Loader(self.blocks, self.order(timetable), rank=world.rank, size=world.size, micro_tokens=micro)

    def described(self, timetable: Timetable) -> Iterator[str]:
        """Where the rows differ from plain slices of one stream, in lines for a person."""
        yield from remarks(self._cache, self.blocks)
        if self._recipe.weights:
            shares, epochs = self.order(timetable).shares(timetable.blocks(self._recipe.model.context)[-1])
            names = [source["name"] for source in self._cache.sources]
            mixed = zip(shares.tolist(), names, epochs.tolist(), strict=True)
            yield "mixture: " + ", ".join(f"{share:.1%} {name} ({passes:.2f} epochs)" for share, name, passes in mixed)


def mixture_of(recipe: Recipe, timetable: Timetable) -> Mixture | None:
    """The mixture of the sources in a run by `timetable`; none where the recipe does not weigh them."""
    if recipe.mixture_changes:
        return Mixture(recipe.weights, timetable.blocks(recipe.model.context)[:-1])
    return Mixture(recipe.weights[:1]) if recipe.weights else None
