"""What a training step holds in memory, by arithmetic alone: no PyTorch here.

It follows the decoder, the loss and the engine operation by operation: what each keeps for its backward pass, in
which number format. A test compares it with what PyTorch keeps; another, with the peak of a process.

D hidden size, Q width of all query heads, K width of all key/value heads, H heads, G key/value heads, F MLP size,
T positions, V vocabulary. All sizes are in bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Literal

from ingot.model.architecture import MLP_MATRICES, Architecture, parameter_counts
from ingot.model.objective import chunk_rows

Precision = Literal["fp32", "bf16", "fp16", "fp8"]
DeviceKind = Literal["cpu", "cuda"]

WIDE = 4  # bytes of a weight, a gradient and a number of the residual stream
TOKEN_BYTES = 4 * 8  # of a token on its way in: input, target and position, and the position's copy for a row

# Between what is freed and what is asked for next, an allocator keeps gaps, more of them in each of the first ten
# steps: so much of the activations and of what the loss holds, measured with glibc (docs/lab-log.md), for which a freed
# block is too small for the same tensor again; PyTorch's own for CUDA rounds to blocks and keeps them apart by size.
GAPS = {"cpu": 0.3, "cuda": 0.05}
LOSS_GAPS = {"cpu": 0.6, "cuda": 0.0}
AMONG_GRADIENTS = {"cpu": 0.5, "cuda": 0.0}  # and so much more where a pass's gradients lie among the next one's


@dataclass(frozen=True)
class Work:
    """What one device computes at once, and how."""

    rows: int
    """of one forward pass"""
    length: int
    """tokens in a row"""
    precision: Precision = "fp32"
    device: DeviceKind = "cpu"
    packed: bool = True
    """rows hold several documents, which a mask keeps apart"""
    accumulated: bool = False
    """a step takes several forward passes"""
    recompute_every: int = 0
    """every so many blocks, one is computed again in the backward pass; 0: none is"""
    compiled: bool = False
    head_rows: int | None = None
    """tokens of the vocabulary that a target is compared with at most; none: all"""
    ranks: int = 1
    stage: Literal[0, 1, 2, 3] = 0
    """what the ranks share out: nothing, optimizer state, also gradients, also weights (ZeRO, arXiv:1910.02054)"""

    @property
    def tokens(self) -> int:
        """In one forward pass."""
        return self.rows * self.length

    @property
    def width(self) -> int:
        """Of a number in a matrix product as it is kept."""
        return WIDE if self.precision == "fp32" else 2

    @property
    def eager(self) -> bool:
        """Whether the blocks run operation by operation on a CPU, where no kernel of a norm is fused."""
        return self.device == "cpu" and not self.compiled


@dataclass(frozen=True)
class Footprint:
    """What is in memory by part, at the moment when it is the most."""

    moment: str
    weights: float
    optimizer: float
    gradients: float
    activations: float
    copies: float
    """of the weights in the narrow format"""
    logits: float
    """all that the loss holds: a chunk of logits, the gradients of the hidden states and of the head"""
    workspace: float
    """what an operation needs while it runs"""
    gaps: float
    """what the allocator holds and can't use"""

    @property
    def parts(self) -> dict[str, float]:
        """The sizes by name."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "moment"}

    @property
    def total(self) -> float:
        """All parts together."""
        return sum(self.parts.values())


def role_counts(arch: Architecture) -> dict[str, int]:
    """Parameters by what they are to an optimizer: matrix, embedding, head, vector."""
    counts = parameter_counts(arch)
    matrix = sum(rows * columns * number for rows, columns, number in matrices(arch))
    known = {"matrix": matrix, "embedding": counts["embedding"] + counts["positions"], "head": counts["head"]}
    return known | {"vector": counts["total"] - sum(known.values())}


def matrices(arch: Architecture) -> list[tuple[int, int, int]]:
    """(rows, columns, how many) of the blocks' matrices, those of one shape together."""
    hidden, queries, keys = arch.hidden_size, arch.heads * arch.head_size, arch.kv_heads * arch.head_size
    ups = MLP_MATRICES[arch.mlp] - 1
    single = [(queries, hidden), (keys, hidden), (keys, hidden), (hidden, queries)]
    single += [(arch.mlp_size, hidden)] * ups + [(hidden, arch.mlp_size)]
    return [(*shape, arch.layers * single.count(shape)) for shape in dict.fromkeys(single)]


def kept_by_block(arch: Architecture, work: Work) -> float:
    """What one block keeps for its backward pass, for one token; copies of the weights left out."""
    hidden, width = arch.hidden_size, work.width
    copied = width < WIDE and not work.compiled  # each product makes a narrow copy of its input for itself
    ups = MLP_MATRICES[arch.mlp] - 1
    norms = 2 * WIDE * hidden + 2 * (8 if arch.norm == "layer" else 4)  # the stream as each found it, its statistics
    if arch.norm == "rms" and work.eager:
        norms += 2 * WIDE * hidden  # the normed stream before the gain
    inputs = width * hidden * ((3 + ups) if copied else 2)
    gated = arch.mlp != "gelu"
    mlp = width * arch.mlp_size * (2 if not gated else 3 if work.compiled else 4)
    dropped = 2 * hidden * (width if work.device == "cpu" else 1) if arch.dropout else 0
    return norms + inputs + _kept_by_attention(arch, work) + mlp + dropped


def _kept_by_attention(arch: Architecture, work: Work) -> float:
    queries, keys, width = arch.heads * arch.head_size, arch.kv_heads * arch.head_size, work.width
    if arch.dropout and work.device == "cpu":  # the one case without a fused kernel: the whole matrix of weights
        return WIDE * 3 * queries + _attention_matrices(arch, work) + width * queries
    kept = width * (2 * queries + 2 * keys) + WIDE * arch.heads  # queries, keys, values, result, normalisers
    if arch.positions == "rope" and work.device == "cpu":
        kept += width * queries  # the result in the order of the tokens
    if arch.qk_norm:
        kept += (2 * WIDE if work.eager else width) * (queries + keys) + WIDE * (arch.heads + arch.kv_heads)
    if work.packed:
        kept += width * work.length  # who sees whom, as numbers
    return kept


def _attention_matrices(arch: Architecture, work: Work) -> float:
    """The share of a token in the whole matrices of attention weights, where no kernel does without them."""
    return 3 * WIDE * arch.heads * work.length if arch.dropout and work.device == "cpu" else 0.0


def footprint(arch: Architecture, work: Work, *, state: float, update: float) -> Footprint:
    """What a training step holds at its fullest moment, with `state` bytes of optimizer state over all ranks.

    `update`: what the optimizer needs for itself while it updates.
    """
    *before, updating = moments(arch, work, state=state, update=update)
    fullest = max(before, key=lambda moment: moment.total)
    if work.device == "cpu":  # a heap that has grown among gradients has no hole for whole stacks of them
        fullest = replace(fullest, workspace=fullest.workspace + update)
    return max(fullest, updating, key=lambda moment: moment.total)


def moments(arch: Architecture, work: Work, *, state: float, update: float) -> Iterator[Footprint]:
    """The moments of a step of which one is the fullest: the loss, the backward pass at both ends, the update."""
    counts = role_counts(arch)
    every, matrix = sum(counts.values()), counts["matrix"]
    block = matrix / arch.layers
    table = WIDE * arch.vocabulary * arch.hidden_size  # the embedding, or the head
    weights = WIDE * every / (work.ranks if work.stage >= 2 else 1)
    shared = state / (work.ranks if work.stage else 1)
    whole = weights + (WIDE * block if work.stage >= 2 else 0)
    before = whole if work.accumulated else 0.0
    copies = _copies(arch, work)
    head = table if work.head_rows is None else WIDE * work.head_rows * arch.hidden_size
    states = WIDE * work.tokens * arch.hidden_size  # the hidden states, or their gradient
    kept, again = _activations(arch, work)
    passing = work.tokens * (2 * WIDE * arch.hidden_size + 3 * work.width * arch.mlp_size) + again

    even = work.tokens * arch.layers * _attention_matrices(arch, work)  # all of one size: each fits where one was
    loss = states + head + _chunk(arch, work)
    share = GAPS[work.device] + (AMONG_GRADIENTS[work.device] if work.accumulated else 0.0)
    gaps = share * max(0.0, kept - even) + LOSS_GAPS[work.device] * loss

    def at(
        moment: str, gradients: float, activations: float, copies: float, logits: float, workspace: float
    ) -> Footprint:
        return Footprint(moment, weights, shared, gradients, activations, copies, logits, workspace, gaps)

    yield at("the loss", before, kept, copies, loss, 0.0)
    yield at("the backward pass of the loss", before, kept, copies, 2 * (states + head), 0.0)
    begun = max(before, head)
    yield at("the backward pass of the last block", begun, kept, copies, states, passing)
    first = work.tokens * kept_by_block(arch, work) + 2 * states
    again_table = table if arch.tied or work.accumulated else 0.0
    yield at("the backward pass of the first block", whole, first, 0.0, 0.0, max(again_table, passing))
    yield at("the update", whole, 0.0, 0.0, 0.0, update)


def _copies(arch: Architecture, work: Work) -> float:
    """What products read in place of the weights themselves: narrow copies, or the shards of all ranks put together."""
    counts, tables = role_counts(arch), arch.vocabulary * arch.hidden_size * (1 if arch.tied else 2)
    if work.stage == 3:
        return work.width * (2 * counts["matrix"] / arch.layers + tables)  # the next block comes while one computes
    if work.stage == 2:
        return work.width * sum(counts.values())
    return work.width * counts["matrix"] if work.width < WIDE else 0.0


def _activations(arch: Architecture, work: Work) -> tuple[float, float]:
    """What the forward pass keeps, and what computing a block again adds for a while."""
    hidden, block = arch.hidden_size, kept_by_block(arch, work)
    repeated = -(-arch.layers // work.recompute_every) if work.recompute_every else 0
    norm = WIDE * hidden * (3 if arch.norm == "rms" and work.eager else 2)  # the last norm, and the hidden states
    dropped = hidden * (WIDE if work.device == "cpu" else 1) if arch.dropout else 0
    a_token = (arch.layers - repeated) * block + repeated * WIDE * hidden + norm + dropped + TOKEN_BYTES
    return work.tokens * a_token, work.tokens * block if repeated else 0.0


def _chunk(arch: Architecture, work: Work) -> float:
    """What the loss holds beside its gradients: one chunk of logits in all its forms, and narrow copies of the head."""
    compared = work.head_rows or arch.vocabulary
    logits = min(work.tokens, chunk_rows(compared, work.device)) * compared
    if work.width == WIDE:
        return WIDE * logits
    return (work.width + 2 * WIDE) * logits + 2 * work.width * compared * arch.hidden_size
