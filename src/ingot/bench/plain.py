"""The peers of ingot's training step: a decoder written on a first afternoon with PyTorch, and transformers'."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ingot.model.architecture import Architecture
from ingot.model.huggingface import to_config


def _rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    left, right = x.chunk(2, dim=-1)
    return x * cosine + torch.cat((-right, left), dim=-1) * sine


class PlainBlock(nn.Module):
    """Attention with rotary positions and normed queries and keys, then SwiGLU, as in Qwen3."""

    def __init__(self, arch: Architecture):
        super().__init__()
        width, self.heads, self.size = arch.hidden_size, arch.heads, arch.head_size
        self.norm1, self.norm2 = nn.RMSNorm(width, arch.norm_eps), nn.RMSNorm(width, arch.norm_eps)
        self.query_norm, self.key_norm = nn.RMSNorm(self.size, arch.norm_eps), nn.RMSNorm(self.size, arch.norm_eps)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.gate, self.up = (nn.Linear(width, arch.mlp_size, bias=False) for _ in range(2))
        self.down = nn.Linear(arch.mlp_size, width, bias=False)

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """x (B, T, D) -> (B, T, D)."""
        normed = self.norm1(x)
        query, key, value = (
            layer(normed).unflatten(-1, (self.heads, self.size)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        query, key = _rotate(self.query_norm(query), cosine, sine), _rotate(self.key_norm(key), cosine, sine)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        normed = self.norm2(x)
        return x + self.down(F.silu(self.gate(normed)) * self.up(normed))


class PlainDecoder(nn.Module):
    """tokens (B, T) and targets (B, T) -> mean loss, every logit held at once."""

    def __init__(self, arch: Architecture):
        super().__init__()
        self.embedding = nn.Embedding(arch.vocabulary, arch.hidden_size)
        self.blocks = nn.ModuleList(PlainBlock(arch) for _ in range(arch.layers))
        self.norm = nn.RMSNorm(arch.hidden_size, arch.norm_eps)
        self.head = nn.Linear(arch.hidden_size, arch.vocabulary, bias=False)
        exponents = torch.arange(0, arch.head_size, 2) / arch.head_size
        angles = torch.outer(torch.arange(arch.context), arch.rope_theta**-exponents).repeat(1, 2)
        self.register_buffer("cosine", angles.cos())
        self.register_buffer("sine", angles.sin())

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """The mean cross-entropy, in nats."""
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x, self.cosine, self.sine)
        return F.cross_entropy(self.head(self.norm(x)).flatten(0, 1).float(), targets.flatten())


class TransformersDecoder(nn.Module):
    """transformers' own Qwen3 of the same shape: tokens (B, T) and targets (B, T) -> mean loss."""

    def __init__(self, arch: Architecture):
        super().__init__()
        from transformers import AutoModelForCausalLM, Qwen3Config

        config = Qwen3Config(**to_config(arch), attn_implementation="sdpa")
        self.model = AutoModelForCausalLM.from_config(config)

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """The mean cross-entropy, in nats."""
        logits = self.model(tokens, use_cache=False).logits
        return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())
