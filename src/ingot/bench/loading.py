"""What loading costs a training step: the processor time that reading its rows takes, beside the step or not."""

from __future__ import annotations

import statistics
import time

from ingot.data.blocks import Slices
from ingot.data.cache import TokenView
from ingot.data.loader import Loader
from ingot.data.order import Order

READS = 20  # of different blocks; the first one also opens the files


def seconds_per_read(view: TokenView, *, context: int, batch_tokens: int) -> float:
    """Processor seconds, by the median, to read the rows of a step of `batch_tokens` tokens and to count its targets.

    All of it is counted, though a run reads the next step's rows while it computes and so waits for next to nothing.
    """
    blocks = Slices(view, context)
    loader, rows = Loader([blocks], Order([blocks.count], seed=1)), batch_tokens // context
    seconds = []
    for step in range(READS + 1):
        began = time.thread_time()
        loader.read(step * rows, (step + 1) * rows, context)
        seconds.append(time.thread_time() - began)
    return statistics.median(seconds[1:])
