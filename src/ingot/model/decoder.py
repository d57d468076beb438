"""The one model file: a decoder-only transformer whose family is a choice of fields, not of branches.

B rows, T positions, D hidden size, H heads, G key/value heads, C head size, F MLP size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ingot.model.architecture import Architecture
from ingot.model.attention import Context, KeyValueCache, attend, document_mask, rotate
from ingot.model.initial import Initialization, Role, Scaled


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last dimension (Zhang and Sennrich, 2019, arXiv:1910.07467)."""

    def __init__(self, size: int, eps: float):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(size)), eps

    def forward(self, x: Tensor) -> Tensor:
        # Under autocast x may be narrower than the weight, and mixed types would miss the fused kernel.
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), self.eps)


class PlainMLP(nn.Module):
    """Up, GELU (tanh form, as in GPT-2), down."""

    def __init__(self, arch: Architecture):
        super().__init__()
        self.up = nn.Linear(arch.hidden_size, arch.mlp_size, bias=arch.bias)
        self.down = nn.Linear(arch.mlp_size, arch.hidden_size, bias=arch.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x), approximate="tanh"))  # (B, T, D) -> (B, T, F) -> (B, T, D)


class GatedMLP(nn.Module):
    """Up, times an activated gate, down (Shazeer, 2020, arXiv:2002.05202)."""

    activate: Callable[[Tensor], Tensor]

    def __init__(self, arch: Architecture):
        super().__init__()
        self.gate = nn.Linear(arch.hidden_size, arch.mlp_size, bias=arch.bias)
        self.up = nn.Linear(arch.hidden_size, arch.mlp_size, bias=arch.bias)
        self.down = nn.Linear(arch.mlp_size, arch.hidden_size, bias=arch.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.activate(self.gate(x)) * self.up(x))  # (B, T, D) -> (B, T, F) -> (B, T, D)


class SwiGLU(GatedMLP):
    """Gated by SiLU."""

    activate = staticmethod(F.silu)


class GeGLU(GatedMLP):
    """Gated by GELU, tanh form."""

    activate = staticmethod(partial(F.gelu, approximate="tanh"))


class LearnedPositions(nn.Module):
    """A learned vector for each position, added to the token's; attention is not turned."""

    def __init__(self, arch: Architecture):
        super().__init__()
        self.table = nn.Embedding(arch.context, arch.hidden_size)

    def forward(self, x: Tensor, positions: Tensor) -> tuple[Tensor, None]:
        return x + self.table(positions), None


class RotaryPositions(nn.Module):
    """Leaves the tokens alone and gives attention the angles by which it turns queries and keys.

    Wavelengths as in Su et al. (2021). Made from the positions at each call, in float32: no buffer to lose or to round.
    """

    def __init__(self, arch: Architecture):
        super().__init__()
        self.head_size, self.theta = arch.head_size, arch.rope_theta

    def forward(self, x: Tensor, positions: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        exponents = torch.arange(0, self.head_size, 2, device=positions.device).float() / self.head_size
        angles = positions[:, None, :, None].float() * (1.0 / self.theta**exponents)  # (B, 1, T, C/2)
        return x, (angles.cos(), angles.sin())


NORMS = {"rms": RMSNorm, "layer": nn.LayerNorm}
MLPS = {"gelu": PlainMLP, "swiglu": SwiGLU, "geglu": GeGLU}
POSITIONS = {"learned": LearnedPositions, "rope": RotaryPositions}


class Attention(nn.Module):
    """Causal self-attention with grouped queries (Ainslie et al., 2023, arXiv:2305.13245)."""

    def __init__(self, arch: Architecture, layer: int):
        super().__init__()
        self.layer, self.head_size, self.weight_dropout = layer, arch.head_size, arch.dropout
        queries, keys = arch.heads * arch.head_size, arch.kv_heads * arch.head_size
        self.query = nn.Linear(arch.hidden_size, queries, bias=arch.qkv_bias)
        self.key = nn.Linear(arch.hidden_size, keys, bias=arch.qkv_bias)
        self.value = nn.Linear(arch.hidden_size, keys, bias=arch.qkv_bias)
        self.output = nn.Linear(queries, arch.hidden_size, bias=arch.bias)
        self.query_norm = RMSNorm(arch.head_size, arch.norm_eps) if arch.qk_norm else nn.Identity()
        self.key_norm = RMSNorm(arch.head_size, arch.norm_eps) if arch.qk_norm else nn.Identity()

    def forward(self, x: Tensor, context: Context) -> Tensor:
        heads = (*x.shape[:2], -1, self.head_size)
        queries = self.query_norm(self.query(x).view(heads)).transpose(1, 2)  # (B, H, T, C)
        keys = self.key_norm(self.key(x).view(heads)).transpose(1, 2)  # (B, G, T, C)
        values = self.value(x).view(heads).transpose(1, 2)  # (B, G, T, C)
        if context.rotation is not None:
            queries, keys = rotate(queries, context.rotation), rotate(keys, context.rotation)
        if context.cache is not None:
            keys, values = context.cache.update(self.layer, keys, values, context.positions)  # (B, G, S, C)
        mixed = attend(queries, keys, values, context, self.weight_dropout if self.training else 0.0)
        return self.output(mixed.transpose(1, 2).flatten(2))  # (B, T, D)


class Block(nn.Module):
    """Attention, then the MLP, each on a normed copy and added to the stream."""

    def __init__(self, arch: Architecture, layer: int):
        super().__init__()
        norm = NORMS[arch.norm]
        self.attention_norm, self.attention = norm(arch.hidden_size, eps=arch.norm_eps), Attention(arch, layer)
        self.mlp_norm, self.mlp = norm(arch.hidden_size, eps=arch.norm_eps), MLPS[arch.mlp](arch)
        self.dropout = nn.Dropout(arch.dropout)
        self.recompute = False  # keep the input alone, and compute the rest again in the backward pass

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """x (B, T, D) -> (B, T, D)."""
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(self.compute, x, context, use_reentrant=False)
        return self.compute(x, context)

    def compute(self, x: Tensor, context: Context) -> Tensor:
        """What `forward` does, in either way."""
        x = x + self.dropout(self.attention(self.attention_norm(x), context))
        return x + self.dropout(self.mlp(self.mlp_norm(x)))


class Decoder(nn.Module):
    """A language model: token ids in, logits of the next token out."""

    def __init__(
        self, arch: Architecture, *, init: Initialization | None = None, generator: torch.Generator | None = None
    ):
        """Weights are drawn by `init` (none: `Scaled()`) from `generator` (none: PyTorch's own)."""
        super().__init__()
        if not arch.vocabulary:
            raise ValueError("an architecture needs a vocabulary before it becomes a model")
        self.arch = arch
        self.embedding = nn.Embedding(arch.vocabulary, arch.hidden_size)
        self.positions = POSITIONS[arch.positions](arch)
        self.dropout = nn.Dropout(arch.dropout)
        self.blocks = nn.ModuleList(Block(arch, layer) for layer in range(arch.layers))
        self.norm = NORMS[arch.norm](arch.hidden_size, eps=arch.norm_eps)
        self.head = None if arch.tied else nn.Linear(arch.hidden_size, arch.vocabulary, bias=False)
        self.initialize(init or Scaled(), generator)

    def forward(
        self,
        tokens: Tensor,
        positions: Tensor | None = None,
        *,
        packed: bool | None = None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """Logits (B, T, V) of `tokens` (B, T); the other arguments are those of `hidden`."""
        return F.linear(self.hidden(tokens, positions, packed=packed, cache=cache), self.head_weight)

    def hidden(
        self,
        tokens: Tensor,
        positions: Tensor | None = None,
        *,
        packed: bool | None = None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """The final, normed states (B, T, D) of `tokens` (B, T) at `positions` (B, T), which restart in each document.

        `packed=False` promises that every row is one document at 0 … T-1, which takes the causal kernel; none means
        packed where positions are given. With a cache, `positions` say where in its rows the tokens stand.
        """
        packed = positions is not None and packed is not False
        if positions is None or (cache is None and not packed):
            positions = torch.arange(tokens.shape[1], device=tokens.device)[None]
        x, rotation = self.positions(self.embedding(tokens), positions)  # (B, T, D)
        x = self.dropout(x)
        context = Context(positions, rotation, _mask(positions, packed, cache), cache)
        for block in self.blocks:
            x = block(x, context)
        return self.norm(x)

    @property
    def head_weight(self) -> Tensor:
        """(V, D): what turns hidden states into logits; the embedding's weights where the two are tied."""
        return self.embedding.weight if self.head is None else self.head.weight

    def roles(self) -> dict[str, Role]:
        """What each parameter is to an optimizer and to the initialisation, by name."""
        return {name: _role(name, parameter) for name, parameter in self.named_parameters()}

    @torch.no_grad()
    def initialize(self, init: Initialization, generator: torch.Generator | None = None) -> None:
        """Draw every weight anew, in the order of the parameters; gains become one and biases zero.

        On the meta device nothing happens: such a model is initialised, or loaded, once it has memory.
        """
        if self.embedding.weight.is_meta:
            return
        for name, parameter in self.named_parameters():
            role = _role(name, parameter)
            if role == "vector":
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)
            else:
                into_stream = name.endswith(("attention.output.weight", "mlp.down.weight"))
                parameter.normal_(0.0, init.std(role, parameter.shape[1], into_stream, self.arch), generator=generator)


def _mask(positions: Tensor, packed: bool, cache: KeyValueCache | None) -> Tensor | None:
    if cache is not None:
        return cache.mask(positions)
    return document_mask(positions) if packed else None


def _role(name: str, parameter: Tensor) -> Role:
    if parameter.ndim < 2:
        return "vector"
    if name.startswith(("embedding.", "positions.")):
        return "embedding"
    return "head" if name.startswith("head.") else "matrix"
