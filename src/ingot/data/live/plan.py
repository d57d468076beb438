"""What a slot needs to know to give its blocks: the same value in every process."""

from __future__ import annotations

from dataclasses import dataclass

from ingot.data.build.plan import Corpus, fingerprint
from ingot.data.packing import Layout
from ingot.tokenizer.tokenizer import Tokenizer

SLOTS = 2  # of a rank, each a process: the rows must not depend on how many cores a machine has
SHUFFLED = 2**18  # tokens that a slot keeps of each set of sources, and draws the next block from
MOST_BLOCKS = 512  # of them: for short blocks that is enough


@dataclass(frozen=True)
class LivePlan:
    """The text of a run, and how it becomes blocks."""

    corpus: Corpus
    tokenizer: Tokenizer
    encoder: str  # its name
    length: int  # tokens of a block
    layout: Layout
    seed: int
    apart: bool  # whether each source is a set of its own, as a mixture needs; else all are one set
    shuffled: int = SHUFFLED

    @property
    def sets(self) -> list[list[int]]:
        """The sources of each set, by their numbers."""
        numbers = range(len(self.corpus.sources))
        return [[number] for number in numbers] if self.apart else [[*numbers]]

    @property
    def room(self) -> int:
        """Blocks from which the next one is drawn."""
        return max(1, min(self.shuffled // self.length, MOST_BLOCKS))


def outline(corpus: Corpus) -> str:
    """A name for what will be read, found without reading it: the sizes of the parts stand for their content."""
    parts = [[source.identity(), [part.size for part in source.parts()]] for source in corpus.sources]
    return fingerprint({"live": parts, "held_out": corpus.held_out.to_dict(), "clean": corpus.clean.identity()})
