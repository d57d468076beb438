"""From the order to tensors: the blocks of a step as rows, cut in micro-batches, the next step's read ahead.

B rows, T positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ingot.data.blocks import Blocks, copy_tokens
from ingot.data.cache import TokenView
from ingot.data.order import Order
from ingot.model.objective import IGNORED

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


Collect = Callable[[Any], Sequence[Any]]  # what every rank gives, in their order, on the main rank; else nothing


class BlockLoader(Protocol):
    """What gives a run its rows, step by step."""

    def read(self, first: int, end: int, length: int) -> list[TokenBatch]:
        """This rank's micro-batches of the blocks [first, end) of the run in rows of `length` tokens: a pure function.

        Meant for a look at any rows, such as the first ones.
        """

    def take(self, first: int, end: int, length: int) -> list[TokenBatch]:
        """What `read` gives, sooner: for one step after another."""

    def state(self, collect: Collect) -> dict[str, Any]:
        """What all ranks' `load_state` needs beside the position, on the main rank. Every rank has to ask."""

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken. Raises UserError where these ranks can't."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None: ...


class Loader:
    """The rows of one rank. The blocks of a step are shared out evenly: their union over the ranks is always the same.

    `blocks` (sets,): one set of blocks, or one for each source of a mixture, all of one length.
    `micro_tokens`: tokens of a micro-batch; none: a rank's share of a step is one. Every rank gets as many
    micro-batches of the same shape as the others: where the blocks do not split evenly, rows without targets fill up.
    """

    def __init__(
        self, blocks: Sequence[Blocks], order: Order, *, rank: int = 0, size: int = 1, micro_tokens: int | None = None
    ):
        self._blocks, self._order = blocks, order
        self._rank, self._size = rank, size
        self._micro_tokens = micro_tokens
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="loader")
        self._ahead: tuple[Request, Future[list[TokenBatch]]] | None = None

    def read(self, first: int, end: int, length: int) -> list[TokenBatch]:
        """This rank's micro-batches of the blocks [first, end) of the run, reshaped into rows of `length` tokens.

        `length` must divide that of the blocks, or ValueError. A pure function of its arguments.
        """
        if self._blocks[0].length % length:
            raise ValueError(f"rows of {length} tokens do not divide blocks of {self._blocks[0].length}")
        most = -(-(end - first) // self._size)  # blocks of the rank that has most
        low, high = (first + (end - first) * rank // self._size for rank in (self._rank, self._rank + 1))
        return micro_batches(*self._rows(low, high, most), length, self._micro_tokens)

    def take(self, first: int, end: int, length: int) -> list[TokenBatch]:
        """What `read` gives, from the read-ahead where that guessed right, while as many blocks on are read ahead."""
        request = (first, end, length)
        ahead, self._ahead = self._ahead, None
        batches = ahead[1].result() if ahead and ahead[0] == request else self.read(*request)
        following = (end, 2 * end - first, length)
        self._ahead = (following, self._thread.submit(self.read, *following))
        return batches

    def state(self, collect: Collect) -> dict[str, Any]:
        """Nothing: the order is a function of the position."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """See `state`."""

    def close(self) -> None:
        """End the read-ahead."""
        self._thread.shutdown(cancel_futures=True)

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _rows(
        self, first: int, end: int, blocks: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
        """Inputs, targets and starts of documents, (`blocks`, length of a block) each, of the blocks [first, end)."""
        size = self._blocks[0].length
        inputs, targets = np.zeros((blocks, size), np.int64), np.full((blocks, size), IGNORED)
        starts = np.zeros((blocks, size), bool)
        sets, numbers = self._order.places(first, end)
        for row, (place, number) in enumerate(zip(sets.tolist(), numbers.tolist(), strict=True)):
            self._blocks[place].fill(number, inputs[row], targets[row], starts[row])
        return inputs, targets, starts


def micro_batches(
    inputs: NDArray[np.int64],
    targets: NDArray[np.int64],
    starts: NDArray[np.bool_],
    length: int,
    micro_tokens: int | None,
) -> list[TokenBatch]:
    """Blocks, one a row of each array, reshaped into rows of `length` tokens, in micro-batches of one shape."""
    shape = (-1, length)
    inputs, targets, positions = inputs.reshape(shape), targets.reshape(shape), _positions(starts.reshape(shape))
    rows = min(len(inputs), max(1, (micro_tokens or inputs.size) // length))
    whole = -(-len(inputs) // rows) * rows
    arrays = (_padded(inputs, whole, 0), _padded(targets, whole, IGNORED), _padded(positions, whole, None))
    cuts = [slice(row, row + rows) for row in range(0, whole, rows)]
    return [TokenBatch.of(*(array[cut] for array in arrays)) for cut in cuts]


def _positions(starts: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Positions (B, T) that begin anew at each document start; what is left of a cut document begins at 0 as well."""
    places = np.arange(starts.shape[1])
    return places - np.maximum.accumulate(np.where(starts, places, 0), axis=1)


def _padded(rows: NDArray[np.int64], count: int, value: int | None) -> NDArray[np.int64]:
    """`rows` filled up to `count` rows of `value`; none: of 0, 1, 2 …, the positions of one document."""
    if len(rows) == count:
        return rows
    missing = (count - len(rows), rows.shape[1])
    filler = np.arange(rows.shape[1]) if value is None else np.array(value)
    return np.concatenate([rows, np.broadcast_to(filler, missing)])


def held_out_batches(
    view: TokenView, length: int, rows: int, *, max_tokens: int | None = None, rank: int = 0, size: int = 1
) -> Iterator[TokenBatch]:
    """Held-out documents, each alone, from its first token on, in windows of `length` tokens side by side.

    The first window's inputs lead with the document's end token; every token behind that is a target once, but for
    the end token that closes it and for what the view's mask leaves out. Batches of `rows` rows, shared out over `size`
    ranks in equal number; short windows and missing rows are padded. `max_tokens`: only so many whole windows' worth,
    evenly spread.
    """
    begins, counts = _windows(view, length)
    if max_tokens is not None and len(begins) > (chosen := max(1, max_tokens // length)):
        spread = np.arange(chosen) * len(begins) // chosen
        begins, counts = begins[spread], counts[spread]
    for low in range(0, len(begins), rows * size):
        own = slice(low + rank * rows, low + (rank + 1) * rows)
        inputs, targets = np.zeros((rows, length), np.int64), np.full((rows, length), IGNORED)
        for row, (begin, count) in enumerate(zip(begins[own].tolist(), counts[own].tolist(), strict=True)):
            copy_tokens(view, begin, inputs[row, :count], targets[row, :count])
        yield TokenBatch.of(inputs, targets, np.tile(np.arange(length), (rows, 1)))


def _windows(view: TokenView, length: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Begin and number of targets of each window, the windows of a document one after another."""
    targets = np.diff(view.starts, append=view.tokens) - 1
    windows = -(-targets // length)
    document = np.repeat(np.arange(len(targets)), windows)
    place = np.arange(len(document)) - np.repeat(np.cumsum(windows) - windows, windows)
    return view.starts[document] + place * length, np.minimum(length, targets[document] - place * length)
