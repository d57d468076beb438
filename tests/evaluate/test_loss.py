"""Held-out loss against a plain float64 computation over transformers' logits."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from ingot.data.loader import TokenBatch
from ingot.distributed import World
from ingot.errors import UserError
from ingot.evaluate.loss import HeldOutLoss, evaluating, held_out_loss
from ingot.model.architecture import Architecture
from ingot.model.decoder import Decoder
from ingot.model.huggingface import save_model

VOCABULARY = 61


def tiny(family: str, **fields) -> Decoder:
    torch.manual_seed(4)
    return Decoder(
        Architecture(family=family, vocabulary=VOCABULARY, context=16, layers=2, hidden_size=32, heads=4, **fields)
    )


def batches(*shapes: tuple[int, int], padded: int = 3) -> list[TokenBatch]:
    """Random rows; the last `padded` targets of the last row carry no loss."""
    random = np.random.default_rng(9)
    made = []
    for rows, length in shapes:
        tokens = random.integers(0, VOCABULARY, (rows, length + 1))
        targets = tokens[:, 1:].copy()
        targets[-1, length - padded :] = -100
        made.append(TokenBatch.of(tokens[:, :-1], targets, np.tile(np.arange(length), (rows, 1))))
    return made


def token_bytes() -> Tensor:
    return torch.from_numpy(np.random.default_rng(2).integers(0, 9, VOCABULARY))


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3"])
def test_the_loss_is_that_of_transformers_in_float64(family: str, tmp_path):
    transformers = pytest.importorskip("transformers")
    model, data = tiny(family), batches((3, 16), (2, 7))
    save_model(model, tmp_path / "model", end=0)
    reference = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model").double().eval()
    nats, tokens, text_bytes = 0.0, 0, 0
    for batch in data:
        with torch.no_grad():
            probabilities = reference(batch.inputs).logits.softmax(-1)
        for row, targets in enumerate(batch.targets.tolist()):
            for place, target in enumerate(targets):
                if target != -100:
                    nats -= math.log(probabilities[row, place, target].item())
                    tokens += 1
                    text_bytes += int(token_bytes()[target])
    result = held_out_loss(model, data, token_bytes())
    assert (result.tokens, result.bytes) == (tokens, text_bytes)
    assert result.loss == pytest.approx(nats / tokens, rel=1e-6)
    assert result.perplexity == pytest.approx(math.exp(nats / tokens), rel=1e-6)
    assert result.bits_per_byte == pytest.approx(nats / math.log(2) / text_bytes, rel=1e-6)


def test_how_rows_are_batched_does_not_matter():
    model = tiny("qwen3")
    [whole] = batches((6, 16))
    rows = [
        TokenBatch.of(*(tensor[row : row + 1].numpy() for tensor in (whole.inputs, whole.targets, whole.positions)))
        for row in range(6)
    ]
    together, alone = (held_out_loss(model, data, token_bytes()) for data in ([whole], rows))
    assert (together.tokens, together.bytes) == (alone.tokens, alone.bytes)
    assert together.nats == pytest.approx(alone.nats, rel=1e-6)


def test_sums_do_not_lose_what_float32_would(monkeypatch: pytest.MonkeyPatch):
    uneven = torch.tensor([2.0**24, *[1.0] * 15])  # a float32 sum stays at 2**24 when 1 is added
    monkeypatch.setattr("ingot.evaluate.loss.token_losses", lambda hidden, weight, targets: uneven)
    data = batches((1, 16), padded=0) * 4
    assert held_out_loss(tiny("llama"), data, token_bytes()).nats == 4 * (2**24 + 15)


def test_dropout_is_off_and_every_module_returns_to_its_mode():
    model, data = tiny("gpt2", dropout=0.5), batches((2, 16))
    model.train()
    model.blocks[0].eval()
    before = [module.training for module in model.modules()]
    assert held_out_loss(model, data, token_bytes()) == held_out_loss(model, data, token_bytes())
    assert [module.training for module in model.modules()] == before
    assert all(parameter.grad is None for parameter in model.parameters())
    with pytest.raises(RuntimeError), evaluating(model):
        assert not model.training
        raise RuntimeError
    assert [module.training for module in model.modules()] == before


def test_ranks_sum_what_each_has_scored():
    class Twin(World):
        """A world whose other rank has scored the same."""

        def sum(self, value: Tensor) -> Tensor:
            return value * 2

    model, data = tiny("llama"), batches((2, 16))
    alone = held_out_loss(model, data, token_bytes())
    both = held_out_loss(model, data, token_bytes(), Twin(0, 2, torch.device("cpu")))
    assert (both.nats, both.tokens, both.bytes) == (2 * alone.nats, 2 * alone.tokens, 2 * alone.bytes)


def test_nothing_to_measure_on_is_one_line():
    for data in ([], batches((1, 3), padded=3)):
        with pytest.raises(UserError, match="there is no held-out text to measure on"):
            held_out_loss(tiny("llama"), data, token_bytes())


def test_a_hopeless_model_has_no_overflow():
    assert HeldOutLoss(nats=1e6, tokens=10, bytes=0).perplexity == math.inf
    assert HeldOutLoss(nats=1e6, tokens=10, bytes=0).bits_per_byte == math.inf
