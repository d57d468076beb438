"""From the order to tensors: the blocks of a step as rows, cut in micro-batches, the next step's read ahead.

B rows, T positions.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ingot.data.cache import TokenView
from ingot.data.order import Order
from ingot.model.loss import IGNORED

Request = tuple[int, int, int]  # blocks [first, end) in rows of a length


@dataclass(frozen=True)
class TokenBatch:
    """Rows for one forward pass, int64 (B, T) each: inputs, the token after each as targets (-100: no loss), positions.

    `packed`: some row holds more than one document; otherwise the positions of every row are 0..T-1.
    """

    inputs: Tensor
    targets: Tensor
    positions: Tensor
    packed: bool
    target_count: int  # targets with loss

    @classmethod
    def of(cls, inputs: NDArray[Any], targets: NDArray[Any], positions: NDArray[Any]) -> TokenBatch:
        """Host arrays as a batch; what the model must know about it is counted here, where it costs no waiting."""
        packed = bool((positions[:, -1] != positions.shape[1] - 1).any())
        count = int((targets != IGNORED).sum())
        tensors = [torch.from_numpy(np.ascontiguousarray(array)) for array in (inputs, targets, positions)]
        return cls(tensors[0], tensors[1], tensors[2], packed, count)

    def to(self, device: torch.device) -> TokenBatch:
        """The batch on `device`; on the way to a GPU the copy runs beside the work that is queued there."""
        if device.type == "cpu":
            return self
        tensors = [self.inputs, self.targets, self.positions]
        if device.type == "cuda":
            tensors = [tensor.pin_memory() for tensor in tensors]
        moved = [tensor.to(device, non_blocking=True) for tensor in tensors]
        return TokenBatch(moved[0], moved[1], moved[2], self.packed, self.target_count)


class Loader:
    """The rows of one rank. The blocks of a step are shared out evenly: their union over the ranks is always the same.

    `micro_tokens`: tokens of a micro-batch; none: a rank's share of a step is one. Every rank gets as many
    micro-batches of the same shape as the others: where the blocks do not split evenly, rows without targets fill up.
    """

    def __init__(self, view: TokenView, order: Order, *, rank: int = 0, size: int = 1, micro_tokens: int | None = None):
        self._view, self._order = view, order
        self._rank, self._size = rank, size
        self._micro_tokens = micro_tokens
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="loader")
        self._ahead: tuple[Request, Future[list[TokenBatch]]] | None = None

    def read(self, first: int, end: int, length: int) -> list[TokenBatch]:
        """This rank's micro-batches of the blocks [first, end) of the run, reshaped into rows of `length` tokens.

        `length` must divide the order's, or ValueError. A pure function of its arguments.
        """
        if self._order.length % length:
            raise ValueError(f"rows of {length} tokens do not divide blocks of {self._order.length}")
        most = -(-(end - first) // self._size)  # blocks of the rank that has most
        shares = [first + (end - first) * rank // self._size for rank in (self._rank, self._rank + 1)]
        inputs, targets, positions = self._rows(self._order.begins(*shares), length, most)
        rows = min(len(inputs), max(1, (self._micro_tokens or inputs.size) // length))
        whole = -(-len(inputs) // rows) * rows  # rows that make micro-batches of one shape
        arrays = (_padded(inputs, whole, 0), _padded(targets, whole, IGNORED), _padded(positions, whole, None))
        cuts = [slice(row, row + rows) for row in range(0, whole, rows)]
        return [TokenBatch.of(*(array[cut] for array in arrays)) for cut in cuts]

    def take(self, first: int, end: int, length: int) -> list[TokenBatch]:
        """What `read` gives, from the read-ahead where that guessed right, while as many blocks on are read ahead."""
        request = (first, end, length)
        ahead, self._ahead = self._ahead, None
        batches = ahead[1].result() if ahead and ahead[0] == request else self.read(*request)
        following = (end, 2 * end - first, length)
        self._ahead = (following, self._thread.submit(self.read, *following))
        return batches

    def close(self) -> None:
        """End the read-ahead."""
        self._thread.shutdown(cancel_futures=True)

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _rows(self, begins: NDArray[np.int64], length: int, blocks: int) -> tuple[NDArray[np.int64], ...]:
        """Inputs, targets and positions, (`blocks` * rows of a block, length) each, of the blocks at `begins`."""
        size = self._order.length
        inputs, targets = np.zeros((blocks, size), np.int64), np.full((blocks, size), IGNORED)
        starts = np.zeros((blocks, size), bool)
        for row, begin in enumerate(begins.tolist()):
            tokens = self._view.read(begin, begin + size + 1)
            count = len(tokens) - 1
            inputs[row, :count], targets[row, :count] = tokens[:-1], tokens[1:]
            starts[row, self._view.starts_within(begin, begin + count) - begin] = True
        shape = (-1, length)
        return inputs.reshape(shape), targets.reshape(shape), _positions(starts.reshape(shape))


def _positions(starts: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Positions (B, T) that begin anew at each document start; what is left of a cut document begins at 0 as well."""
    places = np.arange(starts.shape[1])
    return places - np.maximum.accumulate(np.where(starts, places, 0), axis=1)


def _padded(rows: NDArray[np.int64], count: int, value: int | None) -> NDArray[np.int64]:
    """`rows` filled up to `count` rows of `value`; none: of 0, 1, 2 …, the positions of one document."""
    missing = (count - len(rows), rows.shape[1])
    filler = np.arange(rows.shape[1]) if value is None else np.array(value)
    return np.concatenate([rows, np.broadcast_to(filler, missing)])


def held_out_batches(
    view: TokenView, length: int, rows: int, *, max_tokens: int | None = None, rank: int = 0, size: int = 1
) -> Iterator[TokenBatch]:
    """Held-out documents, each alone, from its first token on, in windows of `length` tokens side by side.

    The first window's inputs lead with the document's end token; every token behind that is a target once, the end
    token that closes it is none. Batches of `rows` rows, shared out over `size` ranks in equal number; short windows
    and missing rows are padded. `max_tokens`: only so many whole windows' worth, evenly spread.
    """
    begins, counts = _windows(view, length)
    if max_tokens is not None and len(begins) > (chosen := max(1, max_tokens // length)):
        spread = np.arange(chosen) * len(begins) // chosen
        begins, counts = begins[spread], counts[spread]
    for low in range(0, len(begins), rows * size):
        own = slice(low + rank * rows, low + (rank + 1) * rows)
        inputs, targets = np.zeros((rows, length), np.int64), np.full((rows, length), IGNORED)
        for row, (begin, count) in enumerate(zip(begins[own].tolist(), counts[own].tolist(), strict=True)):
            tokens = view.read(begin, begin + count + 1)
            inputs[row, :count], targets[row, :count] = tokens[:-1], tokens[1:]
        yield TokenBatch.of(inputs, targets, np.tile(np.arange(length), (rows, 1)))


def _windows(view: TokenView, length: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Begin and number of targets of each window, the windows of a document one after another."""
    targets = np.diff(view.starts, append=view.tokens) - 1
    windows = -(-targets // length)
    document = np.repeat(np.arange(len(targets)), windows)
    place = np.arange(len(document)) - np.repeat(np.cumsum(windows) - windows, windows)
    return view.starts[document] + place * length, np.minimum(length, targets[document] - place * length)
