"""Work on whole matrices, shared among ranks: each works on some of them, and all get what they need of the results.

n matrices of R rows and C columns, of which this rank holds all rows, or its shard of them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ingot.distributed import World

Work = Callable[[Tensor], Tensor]  # (n, R, C) -> the same shape


def replicated(stack: Tensor, world: World, work: Work) -> Tensor:
    """`work` on a stack (n, R, C) that every rank holds: each does its share, and all get all results."""
    counts = world.rows(len(stack))
    most = max(counts)
    own = stack.new_zeros(most, *stack.shape[1:])
    if count := counts[world.rank]:
        first = most * world.rank
        own[:count] = work(stack[first : first + count])
    results = stack.new_empty(most * world.size, *stack.shape[1:])
    torch.distributed.all_gather(list(results.split(most)), own)
    return results[: len(stack)]


def sharded(stack: Tensor, rows: int, world: World, work: Work) -> Tensor:
    """`work` on n whole matrices of `rows` rows: `stack` is this rank's rows of each, and so are the results.

    Every rank sends its rows of a matrix to the one that works on it, and gets back the same rows: what is sent is what
    one gathering of all matrices would cost, twice, and no rank holds more than its share of them.
    """
    counts, heights, columns = world.rows(len(stack)), world.rows(rows), stack.shape[-1]
    count, height = counts[world.rank], heights[world.rank]
    outward = [one * height * columns for one in counts]  # numbers for each rank: my rows of its matrices
    inward = [count * one * columns for one in heights]  # numbers from each rank: its rows of my matrices
    pieces = _exchanged(stack.flatten(), outward, inward).split(inward)
    shaped = [piece.view(count, one, columns) for piece, one in zip(pieces, heights, strict=True)]
    whole = torch.cat(shaped, dim=1)
    if count:
        whole = work(whole)
    back = torch.cat([piece.flatten() for piece in whole.split(heights, dim=1)])
    return _exchanged(back, inward, outward).view(stack.shape)


def _exchanged(numbers: Tensor, outward: list[int], inward: list[int]) -> Tensor:
    received = numbers.new_empty(sum(inward))
    torch.distributed.all_to_all_single(received, numbers, inward, outward)
    return received
