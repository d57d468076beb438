"""Weights laid out for reading: the decoder's own logits, in any number format, in one piece or in many."""

from __future__ import annotations

import copy
import platform
import shutil
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import ARCHITECTURES, SHAPE, small_model
from torch import Tensor, nn

from ingot.errors import UserError
from ingot.generate import build, layout, native
from ingot.generate.layout import PlainModel, lay_out
from ingot.generate.native import NativeModel
from ingot.generate.reader import Piece, Reader
from ingot.generate.weights import Format
from ingot.model.architecture import Architecture
from ingot.model.codes import GROUP, to_int4, to_int8
from ingot.model.decoder import Decoder

SHAPES = ARCHITECTURES | {
    "qwen2": Architecture(family="qwen2", kv_heads=2, **SHAPE),
    "geglu": Architecture(family="llama", mlp="geglu", mlp_size=80, tied=True, **SHAPE),
    "many heads": Architecture(family="llama", kv_heads=1, **SHAPE | {"hidden_size": 112, "heads": 7}),
}
FORMATS: tuple[Format, ...] = get_args(Format)
TOKENS = [(7 * place) % 257 for place in range(60)]


@pytest.fixture(scope="module")
def library():
    found = build.library()
    if found is None:
        pytest.skip("needs a C++ compiler")
    return found


def _narrowed(model: Decoder, number_format: Format) -> Decoder:
    """The model with its matrices rounded as the format rounds them, in float32."""
    made = copy.deepcopy(model)
    rounded = {
        "float32": lambda weight: weight,
        "bfloat16": lambda weight: weight.bfloat16().float(),
        "int8": lambda weight: to_int8(weight).values(),
        "int4": lambda weight: to_int4(weight).values()[:, : weight.shape[1]],
    }
    with torch.no_grad():
        for block in made.blocks:
            for layer in block.modules():
                if isinstance(layer, nn.Linear):
                    layer.weight.copy_(rounded[number_format](layer.weight))
        made.head = nn.Linear(model.arch.hidden_size, model.arch.vocabulary, bias=False)  # the embedding stays as it is
        made.head.weight.copy_(rounded["int8" if number_format == "int4" else number_format](model.head_weight))
    return made.eval()


def _read(reader: Reader, tokens: list[int], row: int = 0) -> Tensor:
    return reader.read([Piece(row, 0, tokens, len(tokens))])


@torch.no_grad()
@pytest.mark.parametrize("number_format", ["float32", "bfloat16"])
@pytest.mark.parametrize("arch", SHAPES.values(), ids=SHAPES)
def test_the_same_logits_as_the_decoder(arch: Architecture, number_format: Format, library):
    model = small_model(arch, width=0.15)
    expected = _narrowed(model, number_format)(torch.tensor([TOKENS]))[0]
    found = _read(NativeModel(library, model, number_format).reader(2, 64), TOKENS, row=1)
    torch.testing.assert_close(found, expected, rtol=2e-5, atol=2e-5)


@torch.no_grad()
@pytest.mark.parametrize("number_format", ["int8", "int4"])
@pytest.mark.parametrize("arch", SHAPES.values(), ids=SHAPES)
def test_activations_of_16_bits_cost_a_hundredth_of_what_the_weights_cost(
    arch: Architecture, number_format: Format, library
):
    model = small_model(arch, width=0.15)
    whole = model(torch.tensor([TOKENS]))[0]
    narrow = _narrowed(model, number_format)(torch.tensor([TOKENS]))[0]
    found = _read(NativeModel(library, model, number_format).reader(2, 64), TOKENS, row=1)
    assert (found - narrow).norm() < 0.02 * (narrow - whole).norm()


@torch.no_grad()
@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="tries what Intel's and AMD's processors differ in")
@pytest.mark.parametrize("without", ["-mno-avx512vnni", "-mno-avx512f"])
def test_processors_that_have_less_make_the_same(without: str):
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("needs a C++ compiler")
    less = build.load(build.compiled(compiler, without))
    for arch in SHAPES.values():
        model = small_model(arch, width=0.15)
        for number_format in FORMATS:
            expected = _narrowed(model, number_format)(torch.tensor([TOKENS]))[0]
            found = _read(NativeModel(less, model, number_format).reader(2, 64), TOKENS, row=1)
            torch.testing.assert_close(found, expected, rtol=2e-5, atol=2e-5)


@torch.no_grad()
@pytest.mark.parametrize("number_format", ["int8", "int4"])
@pytest.mark.parametrize("arch", SHAPES.values(), ids=SHAPES)
def test_pytorchs_own_narrow_layers_give_the_same(arch: Architecture, number_format: Format):
    model = small_model(arch, width=0.15)
    expected = _narrowed(model, number_format)(torch.tensor([TOKENS]))[0]
    found = _read(PlainModel(model, number_format).reader(2, 64), TOKENS)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@settings(max_examples=20)
@given(st.data(), st.sampled_from(list(SHAPES)), st.sampled_from(FORMATS))
def test_bit_for_bit_whatever_is_read_beside_it_and_in_which_pieces(library, data, name: str, number_format: Format):
    torch.manual_seed(0)
    made = NativeModel(library, small_model(SHAPES[name]), number_format)
    expected = _read(made.reader(1, 64), TOKENS)
    reader, place, found = made.reader(20, 64), 0, []
    while place < len(TOKENS):
        count = data.draw(st.integers(1, len(TOKENS) - place))
        others = data.draw(st.integers(0, 19))
        beside = [Piece(row, 0, TOKENS[: 1 + (row * count) % 30], 1) for row in range(1, 1 + others)]
        piece = Piece(0, place, TOKENS[place : place + count], count)
        at = data.draw(st.integers(0, others))
        found.append(reader.read([*beside[:at], piece, *beside[at:]])[at : at + count])
        place += count
    assert torch.equal(torch.cat(found), expected)


def test_two_threads_make_the_same_as_one(library, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(native, "ALONE", 0)
    made = NativeModel(library, small_model(SHAPES["qwen3"]), "float32")
    alone = _read(made.reader(1, 64), TOKENS)
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert torch.equal(_read(made.reader(1, 64), TOKENS), alone)
    finally:
        torch.set_num_threads(threads)


@given(st.integers(1, 5), st.integers(1, 70), st.floats(-8, 8), st.floats(0.001, 1000))
def test_rounding_errs_by_half_a_step(outputs: int, columns: int, middle: float, width: float):
    matrix = middle + width * torch.randn(outputs, columns)
    eight = to_int8(matrix)
    assert ((eight.values() - matrix).abs() <= matrix.abs().amax(1, keepdim=True) / 254 * 1.001).all()
    assert ((eight.values() - matrix).abs() <= eight.most() * 1.001).all()
    four = to_int4(matrix)
    filled = nn.functional.pad(matrix, (0, -columns % GROUP)).unflatten(1, (-1, GROUP))
    steps = (filled.amax(-1) - filled.amin(-1)) / 15
    allowed = 0.54 * steps + filled.abs().amax(-1) / 256
    errors = (four.values().unflatten(1, (-1, GROUP)) - filled).abs()
    assert (errors <= allowed[..., None] * 1.001).all()
    assert (errors.flatten(1) <= four.most() * 1.001).all()


@torch.no_grad()
@pytest.mark.parametrize(("number_format", "bound"), [("bfloat16", 0.01), ("int8", 0.02), ("int4", 0.2)])
def test_logits_err_by_no_more_than_stated(number_format: Format, bound: float):
    """Root mean square of the error, as a share of that of the logits: 1%, 2% and 20% for weights drawn at random."""
    model = Decoder(Architecture(family="llama", vocabulary=997, context=64, layers=8, hidden_size=256, heads=4)).eval()
    tokens = [(31 * place) % 997 for place in range(60)]
    expected = model(torch.tensor([tokens]))[0]
    found = _read(lay_out(model, number_format).reader(1, 64), tokens).float()
    error = (found - expected).square().mean().sqrt() / expected.square().mean().sqrt()
    assert error < bound


def test_without_a_compiler_pytorch_writes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(layout, "library", build.library.__wrapped__)
    made = lay_out(small_model(SHAPES["llama"]))
    assert isinstance(made, PlainModel)
    assert capsys.readouterr().err == (
        "ingot: texts are written by PyTorch, which is slower: there is no C++ compiler\n"
    )


def test_a_format_that_pytorch_lacks_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch):
    def lacks(self, x):
        raise NotImplementedError("no kernel")

    monkeypatch.setattr(layout.Int4Linear, "forward", lacks)
    with pytest.raises(UserError, match="this PyTorch has no int4 weights on cpu"):
        PlainModel(small_model(SHAPES["llama"]), "int4")


def test_a_model_that_has_learned_is_laid_out_anew():
    from small_models import ByteTokenizer

    from ingot.generate.generator import Generator

    generator = Generator(small_model(SHAPES["llama"]), ByteTokenizer())
    first = generator.layout
    assert generator.layout is first
    with torch.no_grad():
        generator.model.norm.weight.mul_(2)
    assert generator.layout is not first
