"""Text and how well it is predicted, document by document.

Each document is scored from its first token on, in windows of the model's context side by side (no stride): the first
begins with the token that leads documents, each token behind it is a target once. So it is in the training loop, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from ingot.evaluate.bootstrap import exponential, ratio
from ingot.evaluate.loss import evaluating
from ingot.evaluate.record import Account, TextRecord
from ingot.evaluate.tokens import batch_tokens, token_scores
from ingot.model.decoder import Decoder

SORTED_BATCHES = 16  # batches' worth of windows that are put in the order of their lengths: little is padding then
NATS, TOKENS, BYTES, TOP1, TOP5 = range(5)  # the columns of a document's sums


@dataclass(frozen=True)
class Document:
    """The tokens of a document, the one that leads it first, and which of them are targets (None: all but the first).

    A document of one token has nothing to predict.
    """

    ids: NDArray[np.integer]
    learned: NDArray[np.bool_] | None = None


@dataclass
class Tally:
    """Counts the records of a source as they are read."""

    found: int = 0
    skipped: dict[str, int] = field(default_factory=dict)

    def skip(self, reason: str, records: int = 1) -> None:
        """Note records that were found and gave no document."""
        self.skipped[reason] = self.skipped.get(reason, 0) + records

    def spread(self, count: int, most: int | None) -> Sequence[int]:
        """Find `count` records; which of them to read, evenly spread, where it is not all."""
        self.found += count
        if most is None or most >= count:
            return range(count)
        self.skip("outside the slice", count - most)
        return [number * count // most for number in range(most)]

    @property
    def account(self) -> Account:
        """As it stands."""
        return Account(found=self.found, read=self.found - sum(self.skipped.values()), skipped=self.skipped)


@dataclass(frozen=True)
class _Window:
    document: int
    inputs: NDArray[np.integer]
    targets: NDArray[np.int64]  # -1: none


def score_text(
    model: Decoder, documents: Iterable[Document], token_bytes: NDArray[np.int64], tally: Tally, source: str
) -> TextRecord:
    """Loss, perplexity, bits per byte and token accuracy on `documents`, which `tally` has counted once they are read.

    token_bytes (vocabulary,): UTF-8 bytes of each id. Sums are in float64. Nothing to score leaves the figures empty.
    """
    sums = document_scores(model, documents, token_bytes, tally)
    nats, tokens, sizes, top1, top5 = sums.T
    return TextRecord(
        source=source,
        documents=tally.account,
        tokens=int(tokens.sum()),
        bytes=int(sizes.sum()),
        window=model.arch.context,
        loss=ratio(nats, tokens),
        perplexity=ratio(nats, tokens, exponential),
        bits_per_byte=ratio(nats / np.log(2), sizes),
        top1=ratio(top1, tokens),
        top5=ratio(top5, tokens),
    )


def document_scores(
    model: Decoder, documents: Iterable[Document], token_bytes: NDArray[np.int64], tally: Tally
) -> NDArray[np.float64]:
    """For each document that has a target: nats, tokens, bytes, and tokens that ranked first and among five, (D, 5)."""
    device = model.head_weight.device
    sums: list[NDArray[np.float64]] = []
    with evaluating(model), torch.inference_mode():
        for batch in _batches(_windows(documents, model.arch.context, token_bytes, sums, tally), batch_tokens(device)):
            longest = max(len(window.inputs) for window in batch)
            inputs = np.zeros((len(batch), longest), np.int64)
            targets = np.full((len(batch), longest), -1)
            for row, window in enumerate(batch):
                inputs[row, : len(window.inputs)] = window.inputs
                targets[row, : len(window.targets)] = window.targets
            hidden = model.hidden(torch.from_numpy(inputs).to(device))  # causal: what is behind a window is not seen
            rows, places = np.nonzero(targets >= 0)
            wanted = hidden[torch.from_numpy(rows).to(device), torch.from_numpy(places).to(device)]
            nats, ranks = token_scores(wanted, model.head_weight, torch.from_numpy(targets[rows, places]).to(device))
            found = np.stack([nats.double().cpu().numpy(), (ranks < 1).cpu().numpy(), (ranks < 5).cpu().numpy()], 1)
            for row, window in enumerate(batch):
                of = found[rows == row]
                sums[window.document][[NATS, TOP1, TOP5]] += of.sum(0)
                sums[window.document][TOKENS] += len(of)
    return np.array(sums) if sums else np.zeros((0, 5))


def _windows(
    documents: Iterable[Document],
    length: int,
    token_bytes: NDArray[np.int64],
    sums: list[NDArray[np.float64]],
    tally: Tally,
) -> Iterator[_Window]:
    """The windows of all documents; each document that has a target gets its row in `sums`, its bytes filled in."""
    for document in documents:
        learned = np.ones(len(document.ids), bool) if document.learned is None else document.learned.copy()
        learned[0] = False
        if not learned.any():
            tally.skip("nothing to predict")
            continue
        sizes = token_bytes[document.ids]
        row = np.zeros(5)
        row[BYTES] = sizes.sum() if document.learned is None else sizes[learned].sum()
        sums.append(row)
        targets = np.where(learned, document.ids.astype(np.int64), -1)[1:]
        for begin in range(0, len(targets), length):
            part = slice(begin, begin + length)
            if (targets[part] >= 0).any():
                yield _Window(len(sums) - 1, document.ids[:-1][part], targets[part])


def _batches(windows: Iterable[_Window], tokens: int) -> Iterator[list[_Window]]:
    """The windows in batches of at most `tokens` tokens with padding, or of one window, alike in length."""
    waiting: list[_Window] = []
    held = 0
    for window in windows:
        waiting.append(window)
        held += len(window.inputs)
        if held >= SORTED_BATCHES * tokens:
            yield from _cut(waiting, tokens)
            waiting, held = [], 0
    yield from _cut(waiting, tokens)


def _cut(windows: list[_Window], tokens: int) -> Iterator[list[_Window]]:
    windows = sorted(windows, key=lambda window: -len(window.inputs))
    begin = 0
    while begin < len(windows):
        end = begin + max(1, tokens // len(windows[begin].inputs))
        yield windows[begin:end]
        begin = end
