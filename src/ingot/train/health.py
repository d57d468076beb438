"""When the loss of a step is a spike, by the losses before it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

WINDOW = 50  # losses of past updates that are looked at
LEAST = 20  # of them, before any loss is called a spike
NORMAL = 1.4826  # the standard deviation of normal numbers, in median absolute deviations
STEADY = 0.05  # nats: a deviation that batches have anyway, where the window happens to be calmer


def highest(losses: Sequence[float], spike: float) -> float:
    """The loss, in nats a token, above which a step is a spike: `spike` robust deviations above the median of `losses`.

    Median and median absolute deviation, which a few outliers do not move (Iglewicz and Hoaglin, 1993). Infinite
    where `spike` is 0, and as long as there are few losses.
    """
    if not spike or len(losses) < LEAST:
        return math.inf
    middle = statistics.median(losses)
    deviation = NORMAL * statistics.median(abs(loss - middle) for loss in losses)
    return middle + spike * max(deviation, STEADY)
