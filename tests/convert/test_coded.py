"""Models of whole numbers: written, read back, compared; what reads them, and what refuses them by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import ingot
from ingot.checkpoint.sums import check_sums
from ingot.cli import run
from ingot.convert import coded as export_coded
from ingot.convert.coded import KINDS, check, write
from ingot.convert.export import export_model
from ingot.errors import UserError
from ingot.generate import build, layout
from ingot.generate.layout import PlainModel, lay_out
from ingot.generate.reader import Piece
from ingot.model.architecture import Architecture, parameter_counts
from ingot.model.coded import CODES, Coded, CodedEmbedding, CodedLinear, coded, kind_of, load_to_read
from ingot.model.codes import ROUND, Codes, to_int8
from ingot.model.decoder import Decoder
from ingot.model.huggingface import load_model, save_model

TOKENS = [(7 * place) % 300 for place in range(60)]


def logits(weights: layout.Layout) -> torch.Tensor:
    """Of all of TOKENS."""
    return weights.reader(1, 64).read([Piece(0, 0, TOKENS, len(TOKENS))])


@pytest.mark.parametrize("kind", KINDS)
def test_every_family_is_read_back_to_the_code_and_compared(kind, arch, tokenizer, tmp_path, model_of):
    model = model_of(arch)
    write(tmp_path / "out", model, tokenizer, kind)
    back = load_to_read(tmp_path / "out")
    assert (back.arch, kind_of(back)) == (arch, kind)
    expected = coded(model, kind).state_dict()
    assert back.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in back.state_dict().items())
    verdict = check(tmp_path / "out", model, tokenizer, kind)
    assert verdict.texts == 200
    assert verdict.difference < 0.8 * verdict.bound  # 0.58 of it, were there more of such a model


def test_rounding_moves_logits_0_58_times_as_far_as_its_largest_errors_would(tokenizer, tmp_path):
    shape = Architecture(vocabulary=307, context=96, layers=2, hidden_size=256, heads=4)
    model = Decoder(shape, generator=torch.Generator().manual_seed(2)).eval()
    write(tmp_path, model, tokenizer, "int8")
    verdict = check(tmp_path, model, tokenizer, "int8")
    assert verdict.difference / verdict.bound == pytest.approx(1 / 3**0.5, rel=0.1)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_the_native_engine_pytorchs_kernels_and_the_plain_path_agree(kind, arch, model_of, monkeypatch):
    model = model_of(arch)
    made = coded(model, kind)
    plain, whole = made(torch.tensor([TOKENS]))[0], model(torch.tensor([TOKENS]))[0]
    if build.library():  # which rounds activations to 16 bits
        assert (logits(lay_out(made)) - plain).norm() < 0.02 * (plain - whole).norm()
    torch.testing.assert_close(logits(PlainModel(made, kind)), plain, rtol=1e-4, atol=1e-4)
    monkeypatch.setattr(layout, "_has_kernel", lambda kind, like: False)
    torch.testing.assert_close(logits(PlainModel(made, kind)), plain, rtol=1e-5, atol=1e-5)


@given(st.integers(1, 9), st.integers(1, 70), st.sampled_from(KINDS), st.sampled_from([torch.float32, torch.bfloat16]))
def test_a_layer_holds_what_its_codes_stand_for(rows: int, columns: int, kind, dtype: torch.dtype):
    matrix = torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows)).to(dtype)
    made, codes = CodedLinear(matrix, None, kind), ROUND[kind](matrix)
    assert torch.equal(made.read().values(), codes.values())
    assert torch.equal(made.weight, codes.values()[:, :columns].to(dtype))
    table = CodedEmbedding(torch.nn.Embedding.from_pretrained(matrix))
    tokens = torch.arange(rows).flip(0)[None]
    assert torch.equal(table(tokens), table.weight[tokens])


@pytest.mark.parametrize(("kind", "share"), [("int8", 0.26), ("int4", 0.17)])
def test_the_files_are_as_small_as_promised_and_so_is_the_model_in_memory(kind, share, tokenizer, tmp_path, model_of):
    shape = Architecture(vocabulary=307, context=64, layers=4, hidden_size=256, heads=4)
    model = model_of(shape)
    write(tmp_path, model, tokenizer, kind)
    floats = 4 * parameter_counts(shape)["total"]
    assert (tmp_path / CODES).stat().st_size < share * floats
    assert sum(value.nbytes for value in load_to_read(tmp_path).state_dict().values()) < share * floats


@pytest.fixture(params=KINDS)
def exported(request, run_of: Callable, tmp_path: Path, architectures, model_of, capsys) -> Path:
    """A run and its export of a kind, by the command line."""
    runs = run_of(model_of(architectures["qwen3-tied"]))
    out = tmp_path / "out"
    assert run(["export", "source", "ingot", str(out), "--quantize", request.param, "--runs", str(runs)]) == 0
    assert "200 texts with the same ids" in capsys.readouterr().out
    return out


def test_it_writes_talks_and_is_measured_as_any_model_folder(exported, tmp_path, capsys, monkeypatch):
    assert {path.name for path in exported.iterdir()} >= {CODES, "README.md", "config.json", "tokenizer.json"}
    assert 'ingot generate path/to/this/folder "Once"' in (exported / "README.md").read_text()
    assert check_sums(exported)
    model = ingot.load(exported)
    kind = kind_of(model.model)
    said = model.generate("The", temperature=0, max_new_tokens=20)
    assert "".join(ingot.load(exported, quantize=kind).stream("The", temperature=0, max_new_tokens=20)) == said
    model.batch_generate(["The"], tmp_path / "made.jsonl", temperature=0, max_new_tokens=20)
    assert json.loads((tmp_path / "made.jsonl").read_text().splitlines()[0])["text"] == said
    capsys.readouterr()
    assert run(["generate", str(exported), "The", "--temperature", "0", "--max-new-tokens", "20"]) == 0
    assert capsys.readouterr().out == f"The{said}\n"
    (tmp_path / "text.txt").write_text("The quick brown fox jumps over the lazy dog.\n\n" * 3)
    report = tmp_path / "found.json"
    data = ["--data", str(tmp_path / "text.txt"), "--only", "text", "--output", str(report)]
    monkeypatch.chdir(tmp_path)
    assert run(["evaluate", str(exported), *data]) == 0
    losses = [json.loads(report.read_text())["text"][0]["loss"]["value"]]
    assert run(["evaluate", "source", *data]) == 0
    losses.append(json.loads(report.read_text())["text"][0]["loss"]["value"])
    assert losses[0] == pytest.approx(losses[1], rel=0.15)
    assert losses[0] != losses[1]


def test_what_needs_floats_is_refused_in_one_line(exported, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kind = kind_of(load_to_read(exported))
    recipe = ["demo", f"start={exported}", "train.duration=1 step"]
    for command in (
        ["export", str(exported), "huggingface", "again"],
        ["export", str(exported), "ingot", "again", "--quantize", "int8"],
        ["models", "import", str(exported)],
        ["train", *recipe, "name=on"],
    ):
        assert run(command) == 2
        said = capsys.readouterr().err.strip().splitlines()[-1]
        assert f"its weights are {kind} codes, which write and are measured, and can't be trained or converted" in said
        assert said.endswith("take the model that it was exported from")
    assert not (tmp_path / "again").exists()
    other = "int4" if kind == "int8" else "int8"
    for wish in (other, "bfloat16"):
        assert run(["generate", str(exported), "The", "--quantize", wish]) == 2
        assert (
            f"the weights of this model are {kind} codes already, and can't be made {wish}" in capsys.readouterr().err
        )


def test_other_programs_refuse_it(tokenizer, tmp_path, architectures, model_of):
    transformers = pytest.importorskip("transformers")
    write(tmp_path / "out", model_of(architectures["llama"]), tokenizer, "int8")
    with pytest.raises(OSError, match=r"no file named model\.safetensors"):
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")


@pytest.mark.parametrize("wrong", ["a code", "the rounding", "the engine"])
def test_a_difference_is_an_error_and_leaves_nothing_behind(
    wrong, run_of, tmp_path, monkeypatch, architectures, model_of
):
    runs = run_of(model_of(architectures["llama"]))
    if wrong == "a code":

        def spoil(folder: Path, *rest: object) -> None:
            write(folder, *rest)
            found = load_file(folder / CODES)
            found["embedding.codes"][5, 5] ^= 1
            save_file(found, folder / CODES)

        monkeypatch.setattr(export_coded, "write", spoil)
        match = "a code does not read back as it was written"
    elif wrong == "the rounding":
        monkeypatch.setitem(ROUND, "int8", a_step_aside)
        match = "the logits of the int8 weights are apart by"
    else:
        monkeypatch.setattr(export_coded, "_looked_up", lambda model, _: model)  # as though the table were not rounded
        match = "the folder does not write what its source does by --quantize int8"
    with pytest.raises(UserError, match=match):
        export_model("source", "ingot", tmp_path / "out", kind="int8", runs=runs)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"]


def a_step_aside(matrix: torch.Tensor) -> Codes:
    made = to_int8(matrix)
    return replace(made, codes=made.codes.clamp(max=126) + 1)


def spoilt(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    """Changes the tensors of a folder."""

    def spoil(folder: Path) -> None:
        found = load_file(folder / CODES)
        change(found)
        save_file(found, folder / CODES)

    return spoil


def lying(**fields: object) -> Callable[[Path], None]:
    """Changes the configuration of a folder."""

    def lie(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    return lie


QUERY = "blocks.0.attention.query"
DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (spoilt(lambda f: f.pop("norm.weight")), r"the tensor norm\.weight is missing"),
    "more": (spoilt(lambda f: f.update(x=torch.zeros(1))), "the tensor x has no place in the model"),
    "shape": (spoilt(lambda f: f.update({f"{QUERY}.codes": torch.zeros(3, 3, dtype=torch.uint8)})), r"holds \(3, 3\)"),
    "type": (
        spoilt(lambda f: f.update({f"{QUERY}.scales": f[f"{QUERY}.scales"].float()})),
        r"\.scales holds .*float32",
    ),
    "number": (spoilt(lambda f: f[f"{QUERY}.least"].fill_(float("nan"))), r"query\.least holds what is no weight"),
    "code": (spoilt(lambda f: f["embedding.codes"].fill_(-128)), r"embedding\.codes holds what is no weight"),
    "other kind": (lying(quantization_config={"quant_method": "ingot", "bits": 8}), r"holds .*int8 is expected"),
    "foreign": (lying(quantization_config={"quant_method": "gptq", "bits": 4}), "quantization_config must be null"),
    "no kind": (lying(quantization_config=None), r"there is no model\.safetensors"),
    "larger": (lying(hidden_size=2**16, intermediate_size=2**18), r"the configuration describes [\d,]+ parameters"),
    "cut": (lambda folder: (folder / CODES).write_bytes(b"\x05" * 20), "not valid safetensors"),
    "gone": (lambda folder: (folder / CODES).unlink(), r"there is no codes\.safetensors"),
    "elsewhere": (lambda folder: _linked(folder / CODES), "is a link to outside of the folder"),
    "tokenizer": (lambda folder: _linked(folder / "tokenizer.json"), "is a link to outside of the folder"),
    "settings": (lambda folder: (folder / "tokenizer_config.json").write_text("[]"), "a mapping is expected"),
}


def _linked(path: Path) -> None:
    there = path.parent.parent / path.name
    shutil.move(path, there)
    path.symlink_to(there)


@pytest.mark.parametrize(("damage", "match"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_folder_is_refused_by_name(damage, match, tokenizer, tmp_path, architectures, model_of):
    write(tmp_path / "out", model_of(architectures["llama"]), tokenizer, "int4")
    damage(tmp_path / "out")
    with pytest.raises(UserError, match=match):
        ingot.load(tmp_path / "out")


def test_sizes_are_checked_before_memory_is_taken(tokenizer, tmp_path, architectures, model_of, monkeypatch):
    write(tmp_path, model_of(architectures["llama"]), tokenizer, "int4")
    spoilt(lambda found: found.pop("norm.weight"))(tmp_path)
    monkeypatch.setattr(Decoder, "to_empty", lambda *_, **__: pytest.fail("memory was taken"))
    with pytest.raises(UserError, match="is missing"):
        load_to_read(tmp_path)


def test_floats_are_loaded_as_ever(tokenizer, tmp_path, architectures, model_of):
    save_model(model_of(architectures["llama"]), tmp_path, end=tokenizer.end)
    found, expected = load_to_read(tmp_path), load_model(tmp_path)
    assert not any(isinstance(part, Coded) for part in found.modules())
    assert all(map(torch.equal, found.parameters(), expected.parameters()))
