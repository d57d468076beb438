"""The decoder: who sees whom, roles, initial weights, and that it compiles."""

from __future__ import annotations

import math

import pytest
import torch

from ingot.config.check import validate
from ingot.model.architecture import Architecture
from ingot.model.attention import document_mask
from ingot.model.decoder import Decoder
from ingot.model.initial import Initialization, Scaled, Zero

SHAPE = {"vocabulary": 97, "context": 32, "layers": 2, "hidden_size": 48, "heads": 4}
ARCHITECTURES = {
    "gpt2": Architecture(family="gpt2", **SHAPE),
    "llama": Architecture(family="llama", kv_heads=2, tied=True, **SHAPE),
    "qwen3": Architecture(family="qwen3", kv_heads=1, head_size=20, **SHAPE),
}
WIDE = Architecture(vocabulary=512, context=32, layers=8, hidden_size=256, heads=4)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(params=ARCHITECTURES.values(), ids=ARCHITECTURES)
def model(request) -> Decoder:
    return Decoder(request.param, init=Scaled(width=0.2), generator=seeded(1)).eval()


def test_a_document_in_a_pack_is_as_if_alone(model):
    first, second, third = (torch.randint(97, (2, length)) for length in (5, 1, 7))
    row = torch.cat([first, second, third], 1)
    positions = torch.cat([torch.arange(5), torch.arange(1), torch.arange(7)]).expand(2, -1)
    packed = model(row, positions)
    for part, alone in zip(packed.split([5, 1, 7], 1), (first, second, third), strict=True):
        torch.testing.assert_close(part, model(alone), rtol=1e-5, atol=1e-5)


def test_a_document_begins_wherever_positions_do_not_go_on():
    mask = document_mask(torch.tensor([[3, 4, 0, 0, 1, 7]]))[0, 0]
    seen = [[key for key in range(6) if mask[query, key]] for query in range(6)]
    assert seen == [[0], [0, 1], [2], [3], [3, 4], [5]]


def test_the_causal_kernel_equals_the_mask(model):
    tokens, positions = torch.randint(97, (3, 16)), torch.arange(16).expand(3, -1)
    torch.testing.assert_close(
        model(tokens, positions, packed=False), model(tokens, positions, packed=True), rtol=1e-5, atol=1e-5
    )


def test_no_position_sees_a_later_one(model):
    tokens = torch.randint(97, (1, 12))
    changed = tokens.clone()
    changed[0, 7:] = (changed[0, 7:] + 1) % 97
    torch.testing.assert_close(model(tokens)[:, :7], model(changed)[:, :7], rtol=0, atol=1e-6)


def test_only_a_packed_call_builds_a_mask(model, monkeypatch):
    built = []
    monkeypatch.setattr("ingot.model.decoder.document_mask", lambda where: built.append(where) or document_mask(where))
    tokens, positions = torch.randint(97, (2, 8)), torch.arange(8).expand(2, -1)
    model.hidden(tokens)
    model.hidden(tokens, positions, packed=False)
    assert not built
    model.hidden(tokens, positions, packed=True)
    assert [where.tolist() for where in built] == [positions.tolist()]


def test_logits_are_hidden_states_times_the_head(model):
    tokens = torch.randint(97, (2, 8))
    torch.testing.assert_close(model(tokens), model.hidden(tokens) @ model.head_weight.T)
    assert (model.head_weight is model.embedding.weight) == model.arch.tied


def test_dropout_acts_in_training_only():
    model = Decoder(Architecture(family="gpt2", dropout=0.3, **SHAPE), generator=seeded(1))
    tokens = torch.randint(97, (2, 8))
    assert not torch.equal(model(tokens), model(tokens))
    model.eval()
    assert torch.equal(model(tokens), model(tokens))


def test_roles():
    roles = Decoder(ARCHITECTURES["gpt2"]).roles()
    assert roles["embedding.weight"] == roles["positions.table.weight"] == "embedding"
    assert roles["blocks.0.attention.query.bias"] == roles["norm.weight"] == "vector"
    assert roles["blocks.1.mlp.down.weight"] == "matrix"
    assert "head" not in roles.values()
    roles = Decoder(ARCHITECTURES["qwen3"]).roles()
    assert roles["head.weight"] == "head"
    assert roles["blocks.0.attention.query_norm.weight"] == "vector"


def _stds(model: Decoder) -> dict[str, float]:
    return {name: parameter.std().item() for name, parameter in model.named_parameters() if parameter.ndim == 2}


def test_scaled_initialisation_narrows_what_writes_into_the_stream():
    for name, std in _stds(Decoder(WIDE, generator=seeded(1))).items():
        into_stream = name.endswith(("output.weight", "down.weight"))
        assert std == pytest.approx(0.02 / math.sqrt(16) if into_stream else 0.02, rel=0.02), name


def test_zero_initialisation_starts_every_block_as_the_identity():
    model = Decoder(WIDE, init=Zero(), generator=seeded(1))
    stds = _stds(model)
    assert stds["blocks.3.attention.output.weight"] == stds["blocks.3.mlp.down.weight"] == 0
    assert stds["blocks.3.attention.query.weight"] == pytest.approx(256**-0.5, rel=0.02)
    assert stds["embedding.weight"] == pytest.approx(1, rel=0.02)
    assert stds["head.weight"] == pytest.approx(0.001, rel=0.02)
    tokens = torch.randint(512, (1, 8))
    torch.testing.assert_close(model.hidden(tokens), model.norm(model.embedding(tokens)))


def test_zero_initialisation_of_a_tied_model_keeps_the_logits_small():
    stds = _stds(Decoder(WIDE.model_copy(update={"tied": True}), init=Zero(), generator=seeded(1)))
    assert stds["embedding.weight"] == pytest.approx(0.02, rel=0.02)


def test_gains_start_at_one_and_biases_at_zero():
    for name, parameter in Decoder(ARCHITECTURES["gpt2"]).named_parameters():
        if parameter.ndim == 1:
            assert (parameter == (0 if name.endswith("bias") else 1)).all(), name


def test_a_generator_of_the_same_seed_draws_the_same_weights():
    first, again, other = (Decoder(ARCHITECTURES["qwen3"], generator=seeded(seed)).state_dict() for seed in (7, 7, 8))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["embedding.weight"], other["embedding.weight"])


def test_without_a_generator_pytorchs_own_is_used():
    torch.manual_seed(7)
    first = Decoder(ARCHITECTURES["llama"]).embedding.weight
    torch.manual_seed(7)
    assert torch.equal(first, Decoder(ARCHITECTURES["llama"]).embedding.weight)


def test_an_initialisation_is_chosen_by_name():
    assert validate(Initialization, {"kind": "zero", "head": 0.01}, where="init") == Zero(head=0.01)


def test_a_model_without_a_vocabulary_is_refused():
    with pytest.raises(ValueError, match="vocabulary"):
        Decoder(Architecture(**SHAPE | {"vocabulary": 0}))


@pytest.mark.parametrize("arch", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_one_graph_without_a_break(arch):
    """Dynamo alone: whatever it can trace whole, the compiler behind it gets in one piece."""
    model = Decoder(arch, generator=seeded(1))
    tokens, positions = torch.randint(97, (2, 16)), torch.arange(8).repeat(2).expand(2, -1)
    traced = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(traced(tokens, positions, packed=True), model(tokens, positions, packed=True))
    torch.testing.assert_close(traced(tokens, positions, packed=False), model(tokens, packed=False))


@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_compiled_equals_eager_forward_and_backward(arch):
    model, tokens = Decoder(arch, init=Scaled(width=0.2), generator=seeded(1)), torch.randint(97, (2, 16))
    compiled = torch.compile(model, fullgraph=True)
    eager_gradients = torch.autograd.grad(model(tokens).logsumexp(-1).sum(), list(model.parameters()))
    gradients = torch.autograd.grad(compiled(tokens).logsumexp(-1).sum(), list(model.parameters()))
    torch.testing.assert_close(gradients, eager_gradients, rtol=1e-3, atol=1e-4)
