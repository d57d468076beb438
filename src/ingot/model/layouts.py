"""How each family's Hugging Face class writes itself down: config fields and tensor names. No PyTorch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
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

    family: str
    """ours"""
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
    """config fields that must have one of these values; the first is what the class takes where `defaults` has none"""
    weights: tuple[Weight, ...]
    block: str
    """what their names begin with in a layer"""
    block_weights: tuple[Weight, ...]


def _linear(theirs: str, *ours: str, transposed: bool = False) -> tuple[Weight, Weight]:
    """The weight and the bias of one of their linear layers."""
    weights, biases = (tuple(f"{name}.{part}" for name in ours) for part in ("weight", "bias"))
    return Weight(f"{theirs}.weight", weights, transposed), Weight(f"{theirs}.bias", biases)


# Config fields that change nothing in what the classes compute from token ids: names, notes, how it was trained, how
# text is generated, and switches of other classes. Any field that is neither mapped, fixed nor here is refused.
HARMLESS = frozenset(
    {
        *("_name_or_path", "architectures", "model_type", "transformers_version", "torch_dtype", "dtype"),
        *("bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "unk_token_id", "decoder_start_token_id"),
        *("use_cache", "initializer_range", "gradient_checkpointing", "return_dict", "output_attentions"),
        *("output_hidden_states", "id2label", "label2id", "problem_type", "task_specific_params", "finetuning_task"),
        *("summary_type", "summary_use_proj", "summary_activation", "summary_proj_to_labels", "summary_first_dropout"),
        *(
            "reorder_and_upcast_attn",
            "classifier_dropout",
            "max_window_layers",
            "transformers.js_config",
            "unsloth_fixed",
        ),
        *(
            "is_llama_config",
            "_attn_implementation",
            "_attn_implementation_autoset",
            "tokenizer_class",
            "model_max_length",
        ),
        *(
            "chunk_size_feed_forward",
            "max_length",
            "min_length",
            "do_sample",
            "temperature",
            "top_k",
            "top_p",
            "prefix",
        ),
        *("repetition_penalty", "num_return_sequences", "predict_special_tokens", "use_bfloat16", "torchscript"),
    }
)
# Fields of every class that would make another model of it, and the value by which they do not.
_PLAIN: dict[str, tuple[Any, ...]] = {
    "quantization_config": (None,),
    "auto_map": (None,),  # code of its own
    "is_decoder": (True, False),
    "is_encoder_decoder": (False,),
    "add_cross_attention": (False,),
    "cross_attention_hidden_size": (None,),
    "pruned_heads": (None, {}),
    "tie_encoder_decoder": (False,),
}
_ROTARY: dict[str, tuple[Any, ...]] = {
    **_PLAIN,
    "attention_dropout": (0.0, None),
    "rope_type": ("default",),
    "rope_interleaved": (False,),
    "partial_rotary_factor": (None, 1.0),
}
_WINDOWS: dict[str, tuple[Any, ...]] = {
    "use_sliding_window": (False,),
    "layer_types": (None, "full_attention"),  # of every layer
}

_GPT2 = Layout(
    family="gpt2",
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
    fixed={**_PLAIN, "scale_attn_weights": (True,), "scale_attn_by_inverse_layer_idx": (False,)},
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
    family="llama",
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
    fixed={**_ROTARY, "attention_bias": (False,), "mlp_bias": (False,), "pretraining_tp": (1, None)},
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

# The same class but for a window over the keys, which must be switched off, and biases that it never has.
_MISTRAL = replace(
    _LLAMA,
    class_name="MistralForCausalLM",
    defaults={**_LLAMA.defaults, "num_key_value_heads": 8, "sliding_window": 4096},
    fixed={**_ROTARY, "sliding_window": (None,)},
)
_QWEN2 = replace(
    _LLAMA,
    family="qwen2",
    class_name="Qwen2ForCausalLM",
    defaults={**_LLAMA.defaults, "num_key_value_heads": 32},
    fixed={**_ROTARY, **_WINDOWS},
)
_QWEN3 = replace(
    _LLAMA,
    family="qwen3",
    class_name="Qwen3ForCausalLM",
    defaults={**_LLAMA.defaults, "num_key_value_heads": 32, "head_dim": 128},
    fixed={**_ROTARY, **_WINDOWS, "attention_bias": (False,)},
)

LAYOUTS = {layout.family: layout for layout in (_GPT2, _LLAMA, _QWEN2, _QWEN3)}  # ours, as it is written
MODEL_TYPES = {**LAYOUTS, "mistral": _MISTRAL}  # theirs, as it is read
