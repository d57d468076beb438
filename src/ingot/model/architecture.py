"""The shape of a decoder, and what follows from it by arithmetic alone: parameters and FLOPs. No PyTorch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from ingot.config.config import Config
from ingot.errors import UserError
from ingot.model.presets import expanded

Order = Literal["interleaved", "stacked"]  # of the layers that a model has more than the one that it grows from


@dataclass(frozen=True)
class Family:
    """What the Hugging Face class of a family can express: for each field its values, the default first."""

    values: Mapping[str, tuple[Any, ...]]
    grouped: bool = True
    """key/value heads may be fewer than heads"""
    even_split: bool = True
    """hidden_size must be a multiple of heads"""
    free_head_size: bool = True
    """head_size may differ from hidden_size / heads"""


_LLAMA: dict[str, tuple[Any, ...]] = {
    "norm": ("rms",),
    "mlp": ("swiglu", "geglu"),
    "positions": ("rope",),
    "qk_norm": (False,),
    "qkv_bias": (False,),
    "bias": (False,),
    "tied": (False, True),
    "dropout": (0.0,),
}
_GPT2: dict[str, tuple[Any, ...]] = {
    "norm": ("layer",),
    "mlp": ("gelu",),
    "positions": ("learned",),
    "qk_norm": (False,),
    "qkv_bias": (True,),
    "bias": (True,),
    "tied": (True, False),
}
FAMILIES = {
    "gpt2": Family(_GPT2, grouped=False, free_head_size=False),
    "llama": Family(_LLAMA),
    "qwen2": Family(_LLAMA | {"qkv_bias": (True,)}),
    "qwen3": Family(_LLAMA | {"qk_norm": (True,)}, even_split=False),
}

MLP_MATRICES = {"gelu": 2, "swiglu": 3, "geglu": 3}  # a gated MLP has a third one


class Architecture(Config):
    """A decoder-only transformer. A family is a row of defaults and limits for the other fields."""

    kind: Literal["shape", "auto", "tiny", "small", "medium", "large"] = "shape"
    """shape: as the keys below say; tiny, small, medium, large: a llama of about 25M, 350M, 1.5B, 7B parameters, whose
    other keys can be changed; auto: the largest of these that fits the device"""
    family: Literal["gpt2", "llama", "qwen2", "qwen3"] = "qwen3"
    """whose Hugging Face class loads the model; it decides the defaults below, which are shown for qwen3"""
    vocabulary: int = Field(default=0, ge=0)
    """tokens; 0: as many as the tokenizer has"""
    context: int = Field(gt=0)
    """longest text that the model reads, in tokens"""
    layers: int = Field(gt=0)
    """blocks of attention and MLP"""
    hidden_size: int = Field(gt=0, strict=True)
    """width of the residual stream"""
    heads: int = Field(gt=0, strict=True)
    """query heads of each layer"""
    kv_heads: int = Field(default=0, ge=0)
    """key/value heads of each layer; 0: as many as heads"""
    head_size: int = Field(default=0, ge=0)
    """width of one head; 0: hidden_size / heads"""
    mlp_size: int = Field(default=0, ge=0)
    """inner width of the MLP; 0: 4 x hidden_size, or 8/3 x hidden_size rounded up to 64 where the MLP is gated"""
    norm: Literal["rms", "layer"] = "rms"
    """RMSNorm or LayerNorm, before attention, before the MLP and at the end"""
    norm_eps: float = Field(default=1e-5, gt=0)
    """added to the variance that a norm divides by"""
    mlp: Literal["gelu", "swiglu", "geglu"] = "swiglu"
    """activation of the MLP: GELU (tanh form), or a gate by SiLU or GELU"""
    positions: Literal["rope", "learned"] = "rope"
    """rotary, or a learned vector for each position"""
    rope_theta: float = Field(default=10_000.0, gt=0)
    """base of the rotary wavelengths; learned positions have no use for it"""
    qk_norm: bool = True
    """RMSNorm on each head's queries and keys"""
    tied: bool = False
    """the head shares the embedding's weights"""
    qkv_bias: bool = False
    """what makes queries, keys and values adds a bias"""
    bias: bool = False
    """the other linear layers of attention and MLP add a bias"""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """share of activations zeroed in training: embeddings, attention weights, what a block adds"""

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, given: Any) -> Any:
        """Put in what follows from the family and the other fields; what makes no sense is left to the checks."""
        if isinstance(given, str):
            given = {"kind": given}
        if not isinstance(given, Mapping):
            return given
        given = expanded(given)
        family = FAMILIES.get(str(given.get("family", "qwen3")))
        defaults = {name: values[0] for name, values in family.values.items()} if family else {}
        filled = defaults | {name: value for name, value in given.items() if value is not None}
        hidden, heads = filled.get("hidden_size"), filled.get("heads")
        if isinstance(hidden, int) and isinstance(heads, int) and heads > 0:
            filled["kv_heads"] = filled.get("kv_heads") or heads
            filled["head_size"] = filled.get("head_size") or (hidden // heads if hidden % heads == 0 else 0)
            gated_size = -(-8 * hidden // (3 * 64)) * 64
            filled["mlp_size"] = filled.get("mlp_size") or (4 * hidden if filled.get("mlp") == "gelu" else gated_size)
        return filled

    @model_validator(mode="after")
    def _fits(self) -> Self:
        family = FAMILIES[self.family]
        for name, allowed in family.values.items():
            if (value := getattr(self, name)) not in allowed:
                known = " or ".join(map(_yaml, allowed))
                raise ValueError(f"the {self.family} family has no {name}={_yaml(value)}; set {name}={known}")
        split, left = divmod(self.hidden_size, self.heads)
        if left and (family.even_split or not self.head_size):
            unit = self.heads * (2 if self.positions == "rope" else 1)
            near = unit * max(1, round(self.hidden_size / unit))
            raise ValueError(
                f"hidden_size={self.hidden_size} does not divide among {self.heads} heads; hidden_size={near} does"
            )
        if not family.free_head_size and self.head_size != split:
            raise ValueError(f"the {self.family} family has no free head_size; set head_size={split} or leave it out")
        if self.heads % self.kv_heads or (not family.grouped and self.kv_heads != self.heads):
            some = [number for number in range(1, self.heads + 1) if self.heads % number == 0] if family.grouped else []
            raise ValueError(
                f"{self.heads} heads can't share kv_heads={self.kv_heads} in the {self.family} family; "
                f"set kv_heads to {' or '.join(map(str, some or [self.heads]))}"
            )
        if self.positions == "rope" and self.head_size % 2:
            raise ValueError(f"rotary positions turn pairs, and head_size={self.head_size} is odd; make it even")
        return self

    def with_vocabulary(self, vocabulary: int) -> Self:
        """This shape for a tokenizer of so many tokens. Raises UserError where it was fixed to fewer."""
        if self.vocabulary and self.vocabulary < vocabulary:
            what = f"{self.vocabulary} is less than the tokenizer's {vocabulary:,} tokens"
            raise UserError(what, where="model.vocabulary", mend="leave it out")
        return self.model_copy(update={"vocabulary": self.vocabulary or vocabulary})


def _yaml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def parameter_counts(arch: Architecture) -> dict[str, int]:
    """Parameters by part and in `total`; a tied head counts 0, its weights being the embedding's."""
    hidden, layers, bias, qkv_bias = arch.hidden_size, arch.layers, int(arch.bias), int(arch.qkv_bias)
    queries, keys = arch.heads * arch.head_size, arch.kv_heads * arch.head_size
    ups = MLP_MATRICES[arch.mlp] - 1
    norm = hidden * (2 if arch.norm == "layer" else 1)  # LayerNorm has a bias beside the gain
    counts = {
        "embedding": arch.vocabulary * hidden,
        "positions": arch.context * hidden if arch.positions == "learned" else 0,
        "attention": layers * (2 * hidden * (queries + keys) + qkv_bias * (queries + 2 * keys) + bias * hidden),
        "mlp": layers * ((ups + 1) * hidden * arch.mlp_size + bias * (ups * arch.mlp_size + hidden)),
        "norms": layers * (2 * norm + (2 * arch.head_size if arch.qk_norm else 0)) + norm,
        "head": 0 if arch.tied else arch.vocabulary * hidden,
    }
    return counts | {"total": sum(counts.values())}


def forward_flops(arch: Architecture, keys: float, logits: int | None = None) -> float:
    """FLOPs of one token's forward pass, when attention looks at `keys` keys; `logits` of the vocabulary, or all.

    A multiplication and an addition count as two. Matrix products only; looking up an embedding is none.
    """
    queries, kv = arch.heads * arch.head_size, arch.kv_heads * arch.head_size
    weights = 2 * (queries + kv) + MLP_MATRICES[arch.mlp] * arch.mlp_size
    matrices = arch.hidden_size * (arch.layers * weights + (arch.vocabulary if logits is None else logits))
    return 2.0 * matrices + 4.0 * arch.layers * queries * keys


def flops_per_token(arch: Architecture, length: int, logits: int | None = None) -> float:
    """FLOPs of one token's forward and backward pass in rows of `length` tokens, its mean over the row.

    The backward pass counts twice the forward pass, nothing is computed again, and causal attention counts only the
    (length + 1) / 2 keys that a token sees on average (PaLM's count, Chowdhery et al., 2022, appendix B, made causal).
    """
    return 3 * forward_flops(arch, (length + 1) / 2, logits)
