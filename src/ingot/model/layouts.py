"""How each family's Hugging Face class writes itself down: config fields and tensor names. No PyTorch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Weight:
    """One of their tensors, and the parameters of ours that it holds, joined along the output side."""

    theirs: str
    ours: tuple[str, ...]
    transposed: bool = False
    """stored (in, out), as GPT-2's Conv1D does"""


@dataclass(frozen=True)
class Layout:
    """A family's Hugging Face class. A weight that an architecture lacks (bias, QK-norm, tied head) is passed over."""

    class_name: str
    fields: Mapping[str, str]
    """their config field -> ours, values equal"""
    defaults: Mapping[str, Any]
    """what the class takes for a field that config.json leaves out; none: the rule that we have too"""
    activation: str
    """the config field that names the activation"""
    mlps: Mapping[str, str]
    """their activation -> our `mlp`; for each `mlp` the first is the one that is written"""
    fixed: Mapping[str, tuple[Any, ...]]
    """config fields that must have one of these values, the class's default first"""
    weights: tuple[Weight, ...]
    block: str
    """what their names begin with in a layer"""
    block_weights: tuple[Weight, ...]


def _linear(theirs: str, *ours: str, transposed: bool = False) -> tuple[Weight, Weight]:
    """The weight and the bias of one of their linear layers."""
    weights, biases = (tuple(f"{name}.{part}" for name in ours) for part in ("weight", "bias"))
    return Weight(f"{theirs}.weight", weights, transposed), Weight(f"{theirs}.bias", biases)


_GPT2 = Layout(
    class_name="GPT2LMHeadModel",
    fields={
        "vocab_size": "vocabulary",
        "n_positions": "context",
        "n_layer": "layers",
        "n_embd": "hidden_size",
        "n_head": "heads",
        "n_inner": "mlp_size",
        "layer_norm_epsilon": "norm_eps",
        "resid_pdrop": "dropout",
        "embd_pdrop": "dropout",
        "attn_pdrop": "dropout",
        "tie_word_embeddings": "tied",
    },
    defaults={
        "n_inner": None,
        "layer_norm_epsilon": 1e-5,
        "resid_pdrop": 0.1,
        "embd_pdrop": 0.1,
        "attn_pdrop": 0.1,
        "tie_word_embeddings": True,
        "activation_function": "gelu_new",
    },
    activation="activation_function",
    mlps={"gelu_new": "gelu", "gelu_pytorch_tanh": "gelu"},
    fixed={
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
        "add_cross_attention": (False,),
        "quantization_config": (None,),
    },
    weights=(
        Weight("transformer.wte.weight", ("embedding.weight",)),
        Weight("transformer.wpe.weight", ("positions.table.weight",)),
        *_linear("transformer.ln_f", "norm"),
        Weight("lm_head.weight", ("head.weight",)),
    ),
    block="transformer.h.{layer}.",
    block_weights=(
        *_linear("ln_1", "attention_norm"),
        *_linear("attn.c_attn", "attention.query", "attention.key", "attention.value", transposed=True),
        *_linear("attn.c_proj", "attention.output", transposed=True),
        *_linear("ln_2", "mlp_norm"),
        *_linear("mlp.c_fc", "mlp.up", transposed=True),
        *_linear("mlp.c_proj", "mlp.down", transposed=True),
    ),
)

_LLAMA = Layout(
    class_name="LlamaForCausalLM",
    fields={
        "vocab_size": "vocabulary",
        "max_position_embeddings": "context",
        "num_hidden_layers": "layers",
        "hidden_size": "hidden_size",
        "num_attention_heads": "heads",
        "num_key_value_heads": "kv_heads",
        "head_dim": "head_size",
        "intermediate_size": "mlp_size",
        "rms_norm_eps": "norm_eps",
        "rope_theta": "rope_theta",
        "tie_word_embeddings": "tied",
    },
    defaults={
        "num_key_value_heads": None,
        "head_dim": None,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10_000.0,
        "tie_word_embeddings": False,
        "hidden_act": "silu",
    },
    activation="hidden_act",
    mlps={"silu": "swiglu", "gelu_pytorch_tanh": "geglu", "gelu_new": "geglu"},
    fixed={
        "attention_bias": (False,),
        "mlp_bias": (False,),
        "attention_dropout": (0.0,),
        "pretraining_tp": (1,),
        "rope_type": ("default",),
        "partial_rotary_factor": (None, 1.0),
        "quantization_config": (None,),
    },
    weights=(
        Weight("model.embed_tokens.weight", ("embedding.weight",)),
        Weight("model.norm.weight", ("norm.weight",)),
        Weight("lm_head.weight", ("head.weight",)),
    ),
    block="model.layers.{layer}.",
    block_weights=(
        Weight("input_layernorm.weight", ("attention_norm.weight",)),
        *_linear("self_attn.q_proj", "attention.query"),
        *_linear("self_attn.k_proj", "attention.key"),
        *_linear("self_attn.v_proj", "attention.value"),
        *_linear("self_attn.o_proj", "attention.output"),
        Weight("self_attn.q_norm.weight", ("attention.query_norm.weight",)),
        Weight("self_attn.k_norm.weight", ("attention.key_norm.weight",)),
        Weight("post_attention_layernorm.weight", ("mlp_norm.weight",)),
        *_linear("mlp.gate_proj", "mlp.gate"),
        *_linear("mlp.up_proj", "mlp.up"),
        *_linear("mlp.down_proj", "mlp.down"),
    ),
)

_QWEN3 = Layout(
    class_name="Qwen3ForCausalLM",
    fields=_LLAMA.fields,
    defaults={**_LLAMA.defaults, "num_key_value_heads": 32, "head_dim": 128},
    activation=_LLAMA.activation,
    mlps=_LLAMA.mlps,
    fixed={
        "attention_bias": (False,),
        "attention_dropout": (0.0,),
        "use_sliding_window": (False,),
        "rope_type": ("default",),
        "partial_rotary_factor": (None, 1.0),
        "quantization_config": (None,),
    },
    weights=_LLAMA.weights,
    block=_LLAMA.block,
    block_weights=_LLAMA.block_weights,
)

LAYOUTS = {"gpt2": _GPT2, "llama": _LLAMA, "qwen3": _QWEN3}
