"""Parity with transformers: the same weights give the same logits, in both directions and through folders."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from ingot.errors import UserError
from ingot.model.architecture import Architecture
from ingot.model.decoder import Decoder
from ingot.model.huggingface import from_config, load_model, load_tensors, save_model, to_config, to_tensors
from ingot.model.initial import Scaled

transformers = pytest.importorskip("transformers")

SHAPE = {"vocabulary": 97, "context": 32, "layers": 2, "hidden_size": 48, "heads": 4}
ARCHITECTURES = {
    "gpt2": Architecture(family="gpt2", **SHAPE),
    "gpt2-untied": Architecture(family="gpt2", tied=False, mlp_size=100, dropout=0.1, **SHAPE),
    "llama": Architecture(family="llama", kv_heads=2, rope_theta=500.0, **SHAPE),
    "llama-geglu-tied": Architecture(family="llama", mlp="geglu", tied=True, norm_eps=1e-3, **SHAPE),
    "llama-head-size": Architecture(family="llama", head_size=20, **SHAPE),
    "qwen2": Architecture(family="qwen2", kv_heads=2, head_size=16, **SHAPE),
    "qwen3": Architecture(family="qwen3", kv_heads=1, head_size=20, **SHAPE),
    "qwen3-tied": Architecture(family="qwen3", tied=True, head_size=12, **SHAPE | {"hidden_size": 50}),
}


@pytest.fixture(params=ARCHITECTURES.values(), ids=ARCHITECTURES)
def arch(request) -> Architecture:
    return request.param


def _model(arch: Architecture) -> Decoder:
    """Weights large enough that logits differ widely, gains and biases included."""
    model = Decoder(arch, init=Scaled(width=0.3), generator=torch.Generator().manual_seed(3)).eval()
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.3)
    return model


def _assert_same_logits(ours: Decoder, theirs: torch.nn.Module) -> None:
    tokens = torch.randint(97, (2, 32), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        expected, logits = theirs.eval()(tokens).logits, ours.eval()(tokens)
    assert expected.std() > 0.5
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)


def test_our_folder_loads_in_transformers(arch, tmp_path):
    model = _model(arch)
    save_model(model, tmp_path, end=0)
    theirs, report = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    assert theirs.config.eos_token_id == theirs.generation_config.eos_token_id == 0
    _assert_same_logits(model, theirs)


def test_their_folder_loads_in_ours_and_goes_back(arch, tmp_path):
    theirs = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(**to_config(arch)))
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, mean=1.0 if parameter.ndim == 1 else 0.0, std=0.3)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = load_model(tmp_path / "theirs")
    assert ours.arch == arch
    _assert_same_logits(ours, theirs)
    save_model(ours, tmp_path / "ours")
    _assert_same_logits(ours, transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours"))
    stored, written = (load_file(tmp_path / name / "model.safetensors") for name in ("theirs", "ours"))
    assert stored.keys() == written.keys()
    assert all(torch.equal(stored[name], written[name]) for name in stored)


def test_a_saved_model_loads_equal_and_goes_on_training(arch, tmp_path):
    model = _model(arch)
    save_model(model, tmp_path)
    loaded = load_model(tmp_path)
    assert loaded.arch == arch
    assert loaded.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in loaded.state_dict().items())
    loaded(torch.randint(97, (2, 8))).sum().backward()
    assert all(parameter.grad is not None for parameter in loaded.parameters())


def test_the_stored_type_is_kept_and_any_other_can_be_asked_for(tmp_path):
    model = _model(ARCHITECTURES["qwen3"]).bfloat16()
    save_model(model, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"
    assert load_file(tmp_path / "model.safetensors")["lm_head.weight"].dtype == torch.bfloat16
    narrow, wide = load_model(tmp_path, dtype=torch.bfloat16), load_model(tmp_path)
    assert torch.equal(narrow.head_weight, model.head_weight)
    assert torch.equal(wide.head_weight, model.head_weight.float())


def test_gpt2s_own_names_without_prefix_and_with_buffers():
    model, fresh = _model(ARCHITECTURES["gpt2"]), Decoder(ARCHITECTURES["gpt2"])
    bare = {name.removeprefix("transformer."): value for name, value in to_tensors(model).items()}
    load_tensors(fresh, bare | {"h.0.attn.bias": torch.ones(1, 1, 32, 32)})
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in fresh.state_dict().items())


def test_configurations_map_one_to_one(arch):
    assert from_config(json.loads(json.dumps(to_config(arch)))) == arch


@pytest.mark.parametrize(
    ("family", "field", "value"),
    [
        ("llama", "model_type", "mamba"),
        ("llama", "hidden_act", "relu"),
        ("llama", "attention_bias", True),
        ("llama", "auto_map", {"AutoModel": "code.Model"}),
        ("llama", "num_experts", 8),
        ("llama", "hidden_size", 2**40),
        ("llama", "rms_norm_eps", float("nan")),
        ("qwen2", "layer_types", ["full_attention", "sliding_attention"]),
        ("gpt2", "n_ctx", 7),
        ("llama", "rope_scaling", {"rope_type": "llama3", "factor": 8.0}),
        ("llama", "rope_parameters", {"rope_type": "yarn", "rope_theta": 1e4}),
        ("llama", "rope_parameters", {"full_attention": {"rope_type": "default"}}),
        ("llama", "rope_parameters", "default"),
        ("llama", "num_hidden_layers", None),
        ("llama", "quantization_config", {"bits": 4}),
        ("qwen3", "use_sliding_window", True),
        ("gpt2", "scale_attn_by_inverse_layer_idx", True),
        ("gpt2", "attn_pdrop", 0.5),
        ("gpt2", "activation_function", ["gelu_new"]),
    ],
)
def test_an_architecture_that_does_not_fit_is_refused_by_its_field(family, field, value):
    config = to_config(ARCHITECTURES[family]) | {field: value}
    if field == "rope_scaling":
        del config["rope_parameters"]
    named = "rope_type" if isinstance(value, dict) and "rope_type" in value else field
    with pytest.raises(UserError, match=f"{named}.*(is|does not fit|missing)"):
        from_config(config)


def test_transformers_4_writes_rope_on_top():
    config = to_config(ARCHITECTURES["llama"])
    del config["rope_parameters"]
    assert from_config(config) == ARCHITECTURES["llama"]


def test_a_folder_that_is_not_whole_is_refused_by_name(tmp_path):
    with pytest.raises(UserError, match=r"no config\.json"):
        load_model(tmp_path)
    save_model(_model(ARCHITECTURES["llama"]), tmp_path)
    weights = tmp_path / "model.safetensors"
    tensors = load_file(weights)

    def refused(what: str) -> None:
        with pytest.raises(UserError, match=what):
            load_model(tmp_path)

    save_file({name: value for name, value in tensors.items() if name != "lm_head.weight"}, weights)
    refused("lm_head.weight is missing")
    save_file(tensors | {"model.layers.7.mlp.up_proj.weight": torch.ones(2)}, weights)
    refused("layers.7.mlp.up_proj.weight has no place")
    save_file(tensors | {"lm_head.weight": torch.ones(97, 47)}, weights)
    refused(r"lm_head.weight holds \(97, 47\)")
    save_file(tensors | {"lm_head.weight": torch.ones(97, 48, dtype=torch.int64)}, weights)
    refused("int64")
    weights.write_bytes(weights.read_bytes()[:1000])
    refused("not valid safetensors")
    weights.unlink()
    refused("no model.safetensors")
    (tmp_path / "config.json").write_text("[]")
    save_file(tensors, weights)
    refused("a mapping is expected")
    (tmp_path / "config.json").write_text("{")
    refused("not valid JSON")
