"""Shapes: what a family fills in and refuses, and the counts that follow without PyTorch."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ingot.config.check import validate
from ingot.errors import UserError
from ingot.model.architecture import Architecture, flops_per_token, forward_flops, parameter_counts
from ingot.model.decoder import Decoder

SHAPE = {"vocabulary": 97, "context": 32, "layers": 2, "hidden_size": 48, "heads": 4}
ARCHITECTURES = [
    Architecture(family="gpt2", **SHAPE),
    Architecture(family="gpt2", tied=False, mlp_size=100, **SHAPE),
    Architecture(family="llama", kv_heads=2, **SHAPE),
    Architecture(family="llama", mlp="geglu", tied=True, **SHAPE),
    Architecture(family="qwen3", kv_heads=1, head_size=20, **SHAPE),
]


def test_a_family_fills_in_what_is_not_given():
    gpt2, qwen3 = Architecture(family="gpt2", **SHAPE), Architecture(**SHAPE)
    assert (gpt2.norm, gpt2.mlp, gpt2.positions, gpt2.tied, gpt2.bias) == ("layer", "gelu", "learned", True, True)
    assert (gpt2.kv_heads, gpt2.head_size, gpt2.mlp_size) == (4, 12, 192)
    assert (qwen3.norm, qwen3.mlp, qwen3.positions, qwen3.tied, qwen3.qk_norm) == ("rms", "swiglu", "rope", False, True)
    assert qwen3.mlp_size == 128


def test_a_filled_architecture_reads_back_equal():
    for arch in ARCHITECTURES:
        assert validate(Architecture, arch.to_dict(), where="recipe") == arch


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"hidden_size": 51}, "hidden_size=48 does"),
        ({"kv_heads": 3}, "set kv_heads to 1 or 2 or 4"),
        ({"family": "gpt2", "kv_heads": 2}, "set kv_heads to 4"),
        ({"family": "gpt2", "head_size": 8}, "set head_size=12"),
        ({"family": "llama", "qk_norm": True}, "set qk_norm=false"),
        ({"family": "llama", "positions": "learned"}, "set positions=rope"),
        ({"family": "llama", "hidden_size": 54, "head_size": 12}, "hidden_size=56 does"),
        ({"family": "gpt2", "norm": "rms"}, "set norm=layer"),
        ({"dropout": 0.1}, "set dropout=0.0"),
        ({"head_size": 7}, "make it even"),
        ({"hidden_size": "48"}, "hidden_size"),
        ({"heads": 0}, "heads"),
        ({"family": ["llama"]}, "family"),
        ({"layer": 3}, "did you mean 'layers'?"),
    ],
)
def test_an_impossible_shape_is_refused_with_the_mend(values, what):
    with pytest.raises(UserError, match="recipe") as refusal:
        validate(Architecture, SHAPE | values, where="recipe")
    assert what in str(refusal.value)


@pytest.mark.parametrize("arch", ARCHITECTURES, ids=lambda arch: f"{arch.family}-{arch.mlp}-{arch.tied}")
def test_parameter_counts_equal_the_module(arch):
    parameters = dict(Decoder(arch).named_parameters())
    counts = parameter_counts(arch)
    assert counts["total"] == sum(parameter.numel() for parameter in parameters.values())

    def count(*fragments: str) -> int:
        return sum(value.numel() for name, value in parameters.items() if any(part in name for part in fragments))

    assert counts["norms"] == count("norm.")
    assert counts["attention"] == count("attention.") - count("attention.query_norm", "attention.key_norm")
    assert counts["mlp"] == count("mlp.")
    assert counts["positions"] == count("positions.")
    assert counts["head"] == count("head.")


@pytest.mark.parametrize("arch", ARCHITECTURES, ids=lambda arch: f"{arch.family}-{arch.mlp}-{arch.tied}")
def test_flops_equal_pytorchs_counter(arch):
    model, tokens = Decoder(arch), torch.randint(97, (3, 16))
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as forward:
        logits = model(tokens)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as backward:
        model(tokens).sum().backward()
    assert logits.shape == (3, 16, 97)
    # The counter sees the whole square of attention scores; ours counts the causal half of it.
    assert forward.get_total_flops() == tokens.numel() * forward_flops(arch, keys=16)
    assert backward.get_total_flops() == 3 * tokens.numel() * forward_flops(arch, keys=16)
    assert flops_per_token(arch, 16) == 3 * forward_flops(arch, keys=8.5)


def test_shapes_and_initialisations_need_no_pytorch():
    code = (
        "import sys, ingot.model.architecture, ingot.model.initial, ingot.model.layouts; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
