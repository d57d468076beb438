"""The rows of a run that streams its text: from its recipe and what was prepared for that to their loader."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from ingot.data.live.loader import LiveLoader
from ingot.data.live.plan import SLOTS, LivePlan
from ingot.data.live.prepare import Live, prepare_live
from ingot.distributed import World
from ingot.recipe.recipe import Recipe
from ingot.train.rows import mixture_of
from ingot.train.timetable import Timetable


class LiveRows:
    """What a run trains on, as `train.rows.Rows` has it of a cache; how much there is of it nobody knows."""

    epoch_tokens = 0  # the recipe refuses what asks for it
    epoch_blocks = sys.maxsize

    def __init__(self, recipe: Recipe, live: Live, world: World, say: Callable[[str], None]):
        self._recipe, self._live, self._world, self._say = recipe, live, world, say

    def loader(self, timetable: Timetable) -> LiveLoader:
        """The loader of this rank's rows in a run by `timetable`."""
        recipe, live, world = self._recipe, self._live, self._world
        plan = LivePlan(
            live.corpus,
            live.tokenizer,
            live.encoder,
            length=recipe.model.context,
            layout=recipe.data.packing,
            seed=recipe.seed,
            apart=bool(recipe.weights),
        )
        ranks = {"rank": world.rank, "size": world.size}
        mixture = mixture_of(recipe, timetable)
        return LiveLoader(plan, mixture, **ranks, micro_tokens=recipe.micro_tokens, say=self._say)

    def described(self, timetable: Timetable) -> Iterator[str]:
        """What is streamed, in lines for a person."""
        corpus = self._live.corpus
        yield f"streaming {corpus.name}, read by {SLOTS} processes of each rank"
        if self._recipe.weights:
            blocks = timetable.blocks(self._recipe.model.context)[-1]
            mixture = mixture_of(self._recipe, timetable)
            assert mixture, "there are weights"
            shares = (mixture.taken(blocks) / blocks).tolist()
            mixed = zip(shares, (source.name for source in corpus.sources), strict=True)
            yield "mixture: " + ", ".join(f"{share:.1%} {name}" for share, name in mixed)


def live_text(recipe: Recipe, begun: Path | None, say: Callable[[str], None]) -> Live:
    """What `recipe` streams, ready for it; `begun`: the folder of the model that it goes on with. Raises UserError."""
    data, tokenizer = recipe.data, recipe.tokenizer_from(begun)
    return prepare_live(data.sources, data.held_out, tokenizer, recipe.cache, data.clean, say)
