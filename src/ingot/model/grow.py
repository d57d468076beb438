"""A larger model that computes what a smaller one does: deeper, wider, with more heads, a wider MLP, a longer context.

What reads the residual stream, D wide, gets columns that see nothing yet; what writes into it gets rows that its norm
turns into nothing. No two parts are copies of each other, so all that is new learns from the first steps on (Gesmundo
and Maile, 2023, arXiv:2308.06103; Chen et al., 2016, arXiv:1511.05641, for the idea).

D hidden size, H heads, G key/value heads, C head size, F MLP size. `old` is the smaller model, `new` the larger.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from ingot.errors import UserError
from ingot.model.architecture import Architecture, Order
from ingot.model.decoder import Attention, Block, Decoder

SAME = ("family", "vocabulary", "norm", "norm_eps", "mlp", "positions", "qk_norm", "tied", "qkv_bias", "bias")
NOT_LESS = ("layers", "hidden_size", "heads", "mlp_size")


def check(old: Architecture, new: Architecture) -> None:
    """Raises UserError that names the first field by which a model of shape `old` can't grow into one of `new`."""
    for name in SAME:
        if getattr(old, name) != getattr(new, name):
            _refuse(name, old, new, f"set it to {_yaml(getattr(old, name))}")
    for name in NOT_LESS:
        if getattr(new, name) < getattr(old, name):
            _refuse(name, old, new, f"{getattr(old, name)} or more")
    least = old.kv_heads * _copies(old, new)
    if new.kv_heads < least:
        _refuse("kv_heads", old, new, f"{least} or more, which divide the heads")
    _check_heads(old, new)


def _check_heads(old: Architecture, new: Architecture) -> None:
    """What attention adds up over its head size, and where the tokens stand."""
    rotary = new.positions == "rope"
    if rotary and new.rope_theta != old.rope_theta:
        _refuse("rope_theta", old, new, f"set it to {old.rope_theta:g}")
    if new.qk_norm and new.head_size != old.head_size:
        _refuse("head_size", old, new, f"set it to {old.head_size}: each head is normed as a whole")
    if new.head_size < old.head_size or (rotary and new.head_size % old.head_size):
        mend = (
            f"a multiple of {old.head_size}, so that no rotary wavelength is lost" if rotary else "as large or larger"
        )
        _refuse("head_size", old, new, mend)
    if not rotary and new.context < old.context:
        _refuse("context", old, new, f"{old.context} or more: each position has learned weights")


def _refuse(name: str, old: Architecture, new: Architecture, mend: str) -> None:
    begun, wanted = (_yaml(getattr(arch, name)) for arch in (old, new))
    raise UserError(f"a model with {name}={begun} can't grow into one with {wanted}", where=f"model.{name}", mend=mend)


def _yaml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def sources(old: int, new: int, order: Order) -> list[tuple[int, bool]]:
    """For each of `new` layers the old one that it is made from, and whether it is that one or a silent copy of it.

    interleaved: each old block, then its copies, spread evenly (as LLaMA Pro, Wu et al., 2024, arXiv:2401.02415).
    stacked: all old blocks, then copies of them from the bottom up (as Gong et al., 2019).
    """
    if order == "stacked":
        return [(layer % old, layer < old) for layer in range(new)]
    origins = [layer * old // new for layer in range(new)]
    return [(origin, origin not in origins[:layer]) for layer, origin in enumerate(origins)]


@torch.no_grad()
def grow(old: Decoder, new: Decoder, order: Order = "interleaved") -> None:
    """Put into `new`, whose weights are freshly drawn, what makes it compute the logits of `old`.

    Raises UserError as `check` does. A model of the same shape becomes an exact copy.
    """
    check(old.arch, new.arch)
    wider = _Wider(old.arch, new.arch)
    new.embedding.weight.copy_(wider.written(old.embedding.weight.T).T)
    if old.arch.positions == "learned":
        table = old.get_parameter("positions.table.weight")
        new.get_parameter("positions.table.weight")[: len(table)] = wider.written(table.T).T.to(table.dtype)
    for block, (origin, itself) in zip(new.blocks, sources(old.arch.layers, new.arch.layers, order), strict=True):
        wider.block(cast(Block, old.blocks[origin]), cast(Block, block), silent=not itself)
    # A tied head reads by the very weights that write, louder by `scale` than they were: the last norm makes up for it.
    wider.norm(old.norm, new.norm, wider.scale if old.arch.tied else 1.0)
    if old.head is not None and new.head is not None:
        new.head.weight[:, : old.arch.hidden_size] = old.head.weight


class _Wider:
    """How the parts of a model of shape `old` lie in one of shape `new`.

    The stream is `scale` times as large in its old channels, and in the new ones it holds what the norm makes nothing
    of: 0, or for LayerNorm the mean of the old ones. So its variance, to which a norm adds an epsilon, stays the same.
    """

    def __init__(self, old: Architecture, new: Architecture):
        self.old, self.new = old, new
        self.scale = math.sqrt(new.hidden_size / old.hidden_size)
        copies, slots = _copies(old, new), new.heads // new.kv_heads
        channels = _channels(old, new)
        heads = torch.arange(old.heads)
        group, place = heads // (old.heads // old.kv_heads), heads % (old.heads // old.kv_heads)
        places = (group * copies + place // slots) * slots + place % slots  # (H,): where each query head goes
        self.queries = _rows(places, new.head_size, channels)
        self.keys = _rows(torch.arange(old.kv_heads * copies), new.head_size, channels)
        origins = torch.arange(old.kv_heads).repeat_interleave(copies)
        self.key_origins = _rows(origins, old.head_size, torch.arange(old.head_size))
        self.units = torch.arange(old.mlp_size)

    def block(self, old: Block, new: Block, *, silent: bool) -> None:
        """All of a block; a `silent` one adds nothing to the stream."""
        self.norm(old.attention_norm, new.attention_norm)
        self.norm(old.mlp_norm, new.mlp_norm)
        self._attention(old.attention, new.attention)
        for name, layer in old.mlp.named_children():
            if name != "down":
                self._reader(layer, new.mlp.get_submodule(name), self.units)
        down = new.mlp.get_submodule("down")
        self._writer(old.mlp.get_submodule("down"), down, self.units)
        if silent:
            for parameter in (*new.attention.output.parameters(), *down.parameters()):
                parameter.zero_()

    def norm(self, old: nn.Module, new: nn.Module, louder: float = 1.0) -> None:
        """A norm of the stream: what it gives in the old channels is what it was, divided by `louder`."""
        for name, parameter in old.named_parameters():
            factor = self.scale * louder if name == "weight" else louder
            new.get_parameter(name)[: len(parameter)] = parameter / factor

    def written(self, weight: Tensor) -> Tensor:
        """What writes into the stream, (D, any) or (D,), with rows for the new channels: float64."""
        wide = weight.double()
        fill = wide.mean(0, keepdim=True) * (self.old.norm == "layer")
        added = self.new.hidden_size - self.old.hidden_size
        return self.scale * torch.cat([wide, fill.expand(added, *wide.shape[1:])])

    def _attention(self, old: Attention, new: Attention) -> None:
        """Heads keep their key/value head; what a head is larger by, its old keys do not know."""
        louder = math.sqrt(self.new.head_size / self.old.head_size)  # by whose inverse attention scales its products
        self._reader(old.query, new.query, self.queries, factor=louder)
        for parameter in new.key.parameters():
            parameter[: self.old.kv_heads * _copies(self.old, self.new) * self.new.head_size] = 0
        self._reader(old.key, new.key, self.keys, self.key_origins)
        self._reader(old.value, new.value, self.keys, self.key_origins)
        self._writer(old.output, new.output, self.queries)
        for norm in ("query_norm", "key_norm"):
            new.get_submodule(norm).load_state_dict(old.get_submodule(norm).state_dict())

    def _reader(
        self, old: nn.Module, new: nn.Module, rows: Tensor, origins: Tensor | None = None, factor: float = 1.0
    ) -> None:
        """A layer that reads the stream: `rows` of the new one are those of the old one, or its `origins`."""
        for name, parameter in old.named_parameters():
            taken = factor * (parameter if origins is None else parameter[origins])
            if name == "weight":
                new.get_parameter(name)[rows, : self.old.hidden_size] = taken
            else:
                new.get_parameter(name)[rows] = taken

    def _writer(self, old: nn.Module, new: nn.Module, columns: Tensor) -> None:
        """A layer that writes into the stream, and hears only of the old ones' `columns`."""
        for name, parameter in old.named_parameters():
            wide = self.written(parameter).to(parameter.dtype)
            if name == "weight":
                new.get_parameter(name).zero_()[:, columns] = wide
            else:
                new.get_parameter(name).copy_(wide)


def _copies(old: Architecture, new: Architecture) -> int:
    """How many key/value heads an old one becomes, where the new ones serve fewer heads each."""
    return -(-(old.heads // old.kv_heads) // (new.heads // new.kv_heads))


def _channels(old: Architecture, new: Architecture) -> Tensor:
    """Where each channel of an old head lies in a new one, (C,): with rotary positions, where it is turned alike."""
    channels = torch.arange(old.head_size)
    if new.positions == "learned":
        return channels
    pairs = old.head_size // 2
    return channels % pairs * (new.head_size // old.head_size) + channels // pairs * (new.head_size // 2)


def _rows(heads: Tensor, size: int, channels: Tensor) -> Tensor:
    """The rows of `channels` within each of `heads`, which have `size` each: one long vector."""
    return (heads[:, None] * size + channels).flatten()
