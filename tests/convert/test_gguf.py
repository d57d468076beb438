"""GGUF: the round trip, llama.cpp's reading of it, and what it can't represent."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from ingot.convert.gguf.check import check
from ingot.convert.gguf.container import Container
from ingot.convert.gguf.reader import read
from ingot.convert.gguf.scheme import from_pairs, to_pairs
from ingot.convert.gguf.tokens import WHOLE, from_metadata, pre_name, to_metadata
from ingot.convert.gguf.writer import FILE_TYPES, write
from ingot.convert.pieces import Piece, byte_name, describe_pieces
from ingot.convert.samples import samples
from ingot.errors import UserError
from ingot.extras import pip_install
from ingot.tokenizer.tokenizer import Tokenizer

gguf = pytest.importorskip("gguf")


def same(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    return all(torch.equal(one.float(), other.float()) for one, other in pairs)


def test_what_is_written_reads_back_to_the_bit(arch, tokenizer, tmp_path, model_of):
    model = model_of(arch)
    write(tmp_path / "m.gguf", model, tokenizer, "f32")
    back, tokens = read(tmp_path / "m.gguf")
    assert back.arch == arch
    assert same(back, model)
    assert tokens.content == tokenizer.content
    assert tokens.special == tokenizer.special
    assert tokens.end == tokenizer.end


@pytest.mark.parametrize("kind", FILE_TYPES)
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_a_second_round_trip_changes_nothing(name, kind, tokenizer, tmp_path, architectures, model_of):
    """In the stored type: what was read is written to the same bytes."""
    write(tmp_path / "first.gguf", model_of(architectures[name]), tokenizer, kind)
    back, tokens = read(tmp_path / "first.gguf")
    write(tmp_path / "second.gguf", back, tokens, kind)
    first, second = (Container(tmp_path / f"{place}.gguf") for place in ("first", "second"))
    assert first.tensors == second.tensors
    assert all(first.raw(one) == second.raw(one) for one in first.tensors)


def test_the_package_of_llama_cpp_reads_the_same(tokenizer, tmp_path, architectures, model_of):
    write(tmp_path / "m.gguf", model_of(architectures["llama"]), tokenizer, "q8_0")
    ours, theirs = Container(tmp_path / "m.gguf"), gguf.GGUFReader(tmp_path / "m.gguf")
    assert {one.name: one.data_offset for one in theirs.tensors} == {n: t.offset for n, t in ours.tensors.items()}
    assert all(bytes(one.data.tobytes()) == ours.raw(one.name) for one in theirs.tensors)
    assert theirs.get_field("tokenizer.ggml.pre").contents() == ours.metadata["tokenizer.ggml.pre"] == "qwen2"
    assert theirs.get_field("tokenizer.ggml.tokens").contents() == ours.metadata["tokenizer.ggml.tokens"]


def test_pairs_are_turned_as_halves_were():
    """RoPE on neighbours after the permutation is RoPE on halves before it."""
    weight = torch.arange(2 * 6 * 3.0).view(12, 3)
    assert torch.equal(from_pairs(to_pairs(weight, 6), 6), weight)
    assert to_pairs(weight, 6)[:6, 0].tolist() == [0.0, 9.0, 3.0, 12.0, 6.0, 15.0]


@pytest.mark.parametrize(
    ("name", "split", "kind"),
    [("llama", "qwen2", "f32"), ("qwen2", "llama3", "q8_0"), ("qwen3", "qwen2", "f16"), ("gpt2", "gpt2", "f32")],
)
def test_llama_cpp_reads_writes_and_talks_alike(name, split, kind, tmp_path, architectures, model_of, tokenizer_of):
    """200 texts, 64 tokens by the likeliest, the logits along them, and a conversation by the template."""
    pytest.importorskip("xllamacpp")
    model, tokenizer = model_of(architectures[name]), tokenizer_of(split)
    write(tmp_path / "m.gguf", model, tokenizer, kind)
    verdict = check(tmp_path / "m.gguf", model, tokenizer, kind)
    assert verdict.texts == 200
    assert verdict.written > 10
    if kind == "f32":
        assert not verdict.parted


def test_a_difference_is_an_error(tokenizer, tmp_path, monkeypatch, architectures, model_of):
    pytest.importorskip("xllamacpp")
    model = model_of(architectures["llama"])
    write(tmp_path / "m.gguf", model, tokenizer, "f32")
    with pytest.raises(UserError, match="does not read back as the same model"):
        check(tmp_path / "m.gguf", model_of(architectures["llama"], seed=2), tokenizer, "f32")
    monkeypatch.setattr("ingot.convert.gguf.scheme.to_pairs", lambda weight, size: weight)
    monkeypatch.setattr("ingot.convert.gguf.writer.to_pairs", lambda weight, size: weight)
    monkeypatch.setattr("ingot.convert.gguf.reader.from_pairs", lambda weight, size: weight)
    write(tmp_path / "wrong.gguf", model, tokenizer, "f32")
    with pytest.raises(UserError, match=r"the logits of llama\.cpp are apart"):
        check(tmp_path / "wrong.gguf", model, tokenizer, "f32")


def test_what_llama_cpp_has_no_name_for_is_refused_by_name(tokenizer, tmp_path, architectures, model_of):
    geglu = architectures["llama"].model_copy(update={"mlp": "geglu"})
    with pytest.raises(UserError, match="computes swiglu in a llama, and this model has mlp=geglu"):
        write(tmp_path / "m.gguf", model_of(geglu), tokenizer, "f32")
    for old, new, match in (
        (r"\\p{N}|", r"\\p{N}{1,7}|", "cuts text by"),
        ('"normalizer": null', '"normalizer": {"type": "Lowercase"}', "changes text by Lowercase"),
    ):
        odd = Tokenizer(tokenizer.content.replace(old, new, 1), tokenizer.settings)
        assert odd.content != tokenizer.content
        with pytest.raises(UserError, match=match):
            to_metadata(odd, 300)


def test_a_tokenizer_is_made_anew_from_the_files_own_lists(tokenizer, tmp_path, architectures, model_of, tokenizer_of):
    """As for a file that another program wrote, without a tokenizer.json within."""
    for split in ("gpt2", "qwen2", "llama3"):
        tokenizer = tokenizer_of(split)
        write(tmp_path / f"{split}.gguf", model_of(architectures["llama"]), tokenizer, "f32")
        file = Container(tmp_path / f"{split}.gguf")
        del file.metadata[WHOLE]
        made = from_metadata(file)
        assert [made.encode(text) for text in samples()] == [tokenizer.encode(text) for text in samples()]
        assert made.special == tokenizer.special


def test_sentencepiece_is_llama_cpps_too(tmp_path, architectures, model_of):
    pytest.importorskip("xllamacpp")
    letters = [Piece(letter, -float(place), "normal") for place, letter in enumerate("▁abcdehlotTHw123")]
    words = [Piece(word, 100.0 - place, "normal") for place, word in enumerate(["he", "▁t", "ab", "▁the", "▁ab", "12"])]
    pieces = [Piece("<unk>", 0, "unknown"), Piece("<s>", 0, "control"), Piece("</s>", 0, "control")]
    pieces += [Piece(byte_name(byte), 0.0, "byte") for byte in range(256)] + words + letters
    content = describe_pieces(pieces, prefix=True, where="test")
    tokenizer = Tokenizer(content, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"})
    assert tokenizer.exact
    arch = architectures["llama"].model_copy(update={"vocabulary": len(pieces)})
    model = model_of(arch)
    write(tmp_path / "m.gguf", model, tokenizer, "f32")
    assert check(tmp_path / "m.gguf", model, tokenizer, "f32").texts == 200
    file = Container(tmp_path / "m.gguf")
    del file.metadata[WHOLE]
    made = from_metadata(file)
    assert [made.encode(text) for text in samples()] == [tokenizer.encode(text) for text in samples()]


@pytest.mark.parametrize(
    ("key", "value", "match"),
    [
        ("general.architecture", "mamba", "general.architecture is 'mamba'"),
        ("llama.rope.scaling.type", "yarn", "llama.rope.scaling.type is 'yarn'"),
        ("llama.expert_count", 8, "llama.expert_count is 8"),
        ("llama.attention.sliding_window", 4096, "llama.attention.sliding_window is 4096"),
        ("llama.block_count", 10**12, "layers is 1000000000000"),
        ("llama.attention.value_length", 99, "llama.attention.value_length is 99"),
        ("split.count", 2, "split.count is 2"),
        ("tokenizer.ggml.model", "t5", "of the kind 't5'"),
    ],
)
def test_what_does_not_fit_is_refused_by_its_key(
    key, value, match, tokenizer, tmp_path, monkeypatch, architectures, model_of
):
    write(tmp_path / "m.gguf", model_of(architectures["llama"]), tokenizer, "f32")
    honest = Container._read

    def lying(self: Container) -> None:
        honest(self)
        self.metadata[key] = value

    monkeypatch.setattr(Container, "_read", lying)
    with pytest.raises(UserError, match=match):
        read(tmp_path / "m.gguf")


@pytest.mark.parametrize(("split", "name"), [("gpt2", "gpt-2"), ("qwen2", "qwen2"), ("llama3", "dbrx")])
def test_each_of_our_split_patterns_has_a_name_there(split, name, tokenizer_of):
    assert pre_name(json.loads(tokenizer_of(split).content)) == name


def test_a_missing_library_is_one_line(tokenizer, tmp_path: Path, monkeypatch, architectures, model_of):
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    with pytest.raises(UserError, match=rf"gguf is not installed.*{re.escape(pip_install('export'))}"):
        write(tmp_path / "m.gguf", model_of(architectures["llama"]), tokenizer, "f32")
