"""The cache: the same logits as without it, whatever the order and the size of the pieces."""

from __future__ import annotations

import pytest
import torch

from ingot.generate.cache import StaticCache
from ingot.model.architecture import Architecture
from ingot.model.decoder import Decoder
from ingot.model.initial import Scaled

SHAPE = {"vocabulary": 97, "context": 48, "layers": 2, "hidden_size": 48, "heads": 4}
ARCHITECTURES = {
    "gpt2": Architecture(family="gpt2", **SHAPE),
    "llama": Architecture(family="llama", kv_heads=2, **SHAPE),
    "qwen3": Architecture(family="qwen3", kv_heads=1, head_size=20, **SHAPE),
}


@pytest.fixture(params=ARCHITECTURES.values(), ids=ARCHITECTURES)
def model(request) -> Decoder:
    return Decoder(request.param, init=Scaled(width=0.2)).eval()


def _cache(model: Decoder, rows: int, slots: int = 48) -> StaticCache:
    return StaticCache(model.arch, rows, slots, dtype=torch.float32, device=torch.device("cpu"))


def _positions(begin: int, end: int) -> torch.Tensor:
    return torch.arange(begin, end)[None]


@torch.no_grad()
@pytest.mark.parametrize("pieces", [[1] * 40, [40], [17] + [1] * 23, [16, 16, 8]])
def test_logits_with_a_cache_equal_those_without(model, pieces):
    tokens, cache, begin = torch.randint(97, (3, 40)), _cache(model, rows=3), 0
    logits = []
    for piece in pieces:
        end = begin + piece
        logits.append(model(tokens[:, begin:end], _positions(begin, end), cache=cache))
        begin = end
    torch.testing.assert_close(torch.cat(logits, 1), model(tokens), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_rows_may_stand_at_positions_of_their_own(model):
    tokens, cache = torch.randint(97, (2, 12)), _cache(model, rows=2)
    model(tokens[:, :9], cache=cache)
    step = torch.stack([tokens[0, 4:6], tokens[1, 9:11]])
    logits = model(step, torch.tensor([[4, 5], [9, 10]]), cache=cache)
    whole = model(tokens)
    torch.testing.assert_close(logits, torch.stack([whole[0, 4:6], whole[1, 9:11]]), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_going_back_is_writing_again(model):
    tokens, cache = torch.randint(97, (1, 20)), _cache(model, rows=1)
    model(torch.cat([tokens[:, :8], torch.randint(97, (1, 30))], 1), cache=cache)  # a draft, rejected from 8 on
    logits = model(tokens[:, 8:], _positions(8, 20), cache=cache)
    torch.testing.assert_close(logits, model(tokens)[:, 8:], rtol=1e-5, atol=1e-5)


def test_grouped_heads_are_stored_once():
    model = Decoder(ARCHITECTURES["llama"])
    assert _cache(model, rows=3, slots=10).keys.shape == (2, 3, 2, 10, 12)


def test_an_update_allocates_nothing(model):
    cache = _cache(model, rows=1)
    before = cache.keys.data_ptr()
    new = torch.ones(1, model.arch.kv_heads, 1, model.arch.head_size)
    keys, values = cache.update(1, new, 2 * new, torch.tensor([[5]]))
    assert keys.data_ptr() == cache.keys[1].data_ptr()
    assert cache.keys.data_ptr() == before
    assert (values[:, :, 5] == 2).all()
    assert (values[:, :, 6] == 0).all()
