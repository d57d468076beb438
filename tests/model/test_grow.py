"""Growth: a grown model gives the logits of the one that it came from, and learns in all of its new parts."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from ingot.errors import UserError
from ingot.model.architecture import Architecture
from ingot.model.decoder import Decoder
from ingot.model.grow import check, grow, sources
from ingot.model.initial import Scaled, Zero
from ingot.model.loss import token_loss

SMALL: dict[str, dict[str, Any]] = {
    "gpt2": {"family": "gpt2", "heads": 4},
    "gpt2, untied": {"family": "gpt2", "heads": 4, "tied": False},
    "llama": {"family": "llama", "heads": 4, "kv_heads": 2},
    "llama, tied": {"family": "llama", "heads": 4, "kv_heads": 2, "tied": True},
    "qwen3": {"family": "qwen3", "heads": 4, "kv_heads": 2, "head_size": 8},
}
COMMON = {"vocabulary": 61, "context": 24, "layers": 2, "hidden_size": 32, "mlp_size": 48}
LARGER: dict[str, dict[str, Any]] = {
    "the same": {},
    "deeper": {"layers": 5},
    "a wider MLP": {"mlp_size": 80},
    "a longer context": {"context": 40},
    "wider": {"hidden_size": 48},
    "more heads": {"heads": 8},
    "more of all": {"layers": 3, "hidden_size": 64, "heads": 8, "kv_heads": 4, "mlp_size": 96, "context": 32},
}


def model(dtype: torch.dtype, seed: int = 1, **values: Any) -> Decoder:
    """With weights of a size at which logits spread over several nats, and no gain or bias at its plain value."""
    arch = Architecture(**values)
    generator = torch.Generator().manual_seed(seed)
    made = Decoder(arch, init=Scaled(width=0.3), generator=generator).to(dtype).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator).to(dtype))
    return made


def larger(family: str, growth: str) -> dict[str, Any]:
    """The shape to grow into: GPT-2's heads fill its width, and it has no groups."""
    values = COMMON | SMALL[family] | LARGER[growth]
    if values["family"] == "gpt2":
        values |= {"kv_heads": values["heads"], "hidden_size": max(values["hidden_size"], 8 * values["heads"])}
    elif values["family"] == "llama":
        values.setdefault("head_size", 8)
    return values


def logits(of: Decoder, tokens: Tensor) -> Tensor:
    """By every document alone, packed into one row: positions restart."""
    positions = torch.cat([torch.arange(9), torch.arange(15)])[None].expand(len(tokens), -1)
    with torch.no_grad():
        return of(tokens, positions)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
@pytest.mark.parametrize("growth", LARGER)
@pytest.mark.parametrize("family", SMALL)
def test_logits_are_the_same_before_and_after(family, growth, dtype, tolerance):
    old = model(dtype, **(COMMON | SMALL[family]))
    new = Decoder(Architecture(**larger(family, growth)), generator=torch.Generator().manual_seed(2)).to(dtype).eval()
    tokens = torch.randint(61, (3, 24))
    before = logits(old, tokens)
    assert before.std() > 0.5
    for order in ("interleaved", "stacked"):
        grow(old, new, order)
        torch.testing.assert_close(logits(new, tokens), before, rtol=tolerance, atol=tolerance * float(before.std()))


def test_the_same_shape_is_copied_to_the_last_bit():
    for values in SMALL.values():
        old, new = model(torch.float32, **(COMMON | values)), model(torch.float32, seed=2, **(COMMON | values))
        grow(old, new)
        for name, parameter in old.state_dict().items():
            assert torch.equal(parameter, new.state_dict()[name]), name


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"heads": 4, "kv_heads": 4}, {"heads": 8, "kv_heads": 4}),  # each key/value head serves more heads
        ({"heads": 4, "kv_heads": 1}, {"heads": 4, "kv_heads": 2}),  # or fewer: it is copied
        # A group is split, with a place left over; llama would want a width that 6 divides.
        ({"family": "qwen3", "heads": 6, "kv_heads": 2}, {"family": "qwen3", "heads": 8, "kv_heads": 4}),
        ({"heads": 4, "kv_heads": 2}, {"heads": 4, "kv_heads": 2, "head_size": 24}),  # rotary pairs keep their angles
    ],
)
def test_heads_keep_what_they_look_at(old, new):
    common = COMMON | {"family": "llama", "head_size": 8}
    small = model(torch.float64, **(common | old))
    large = Decoder(Architecture(**(common | new))).double().eval()
    grow(small, large)
    tokens = torch.randint(61, (2, 24))
    torch.testing.assert_close(logits(large, tokens), logits(small, tokens), rtol=1e-9, atol=1e-9)


def test_gpt2_grows_wider_heads():
    small = model(torch.float64, **(COMMON | SMALL["gpt2"]))
    large = Decoder(Architecture(**(COMMON | SMALL["gpt2"] | {"hidden_size": 48}))).double().eval()
    assert large.arch.head_size == 12
    grow(small, large)
    tokens = torch.randint(61, (2, 24))
    torch.testing.assert_close(logits(large, tokens), logits(small, tokens), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("init", [Scaled(), Zero()])
@pytest.mark.parametrize("family", SMALL)
def test_every_new_part_learns(family, init):
    """After a few steps no channel, head, unit or layer that was added is where it started."""
    old = model(torch.float64, **(COMMON | SMALL[family]))
    new = Decoder(Architecture(**larger(family, "more of all")), init=init).double()
    grow(old, new)
    tokens = torch.randint(61, (16, 24))
    optimizer = torch.optim.SGD(new.parameters(), lr=0.1)
    began = {name: parameter.detach().clone() for name, parameter in new.named_parameters()}
    for _ in range(4):
        loss = token_loss(new.hidden(tokens[:, :-1]).flatten(0, 1), new.head_weight, tokens[:, 1:].flatten())
        (loss / tokens[:, 1:].numel()).backward()
        optimizer.step()
        optimizer.zero_grad()
    for name, parameter in new.named_parameters():
        if name == "embedding.weight" or name.startswith("positions."):
            continue  # rows of tokens and positions that did not occur
        moved = (parameter.detach() - began[name]).abs() > 0
        if parameter.ndim > 1:
            assert moved.any(0).all() and moved.any(1).all(), name
        elif not name.endswith("key.bias"):  # to which softmax is blind
            assert moved.all(), name


def test_new_layers_lie_between_the_old_ones_or_on_top():
    assert sources(2, 5, "interleaved") == [(0, True), (0, False), (0, False), (1, True), (1, False)]
    assert sources(2, 5, "stacked") == [(0, True), (1, True), (0, False), (1, False), (0, False)]
    assert sources(3, 3, "interleaved") == sources(3, 3, "stacked") == [(0, True), (1, True), (2, True)]


@pytest.mark.parametrize(
    ("family", "change", "line"),
    [
        ("llama", {"family": "qwen3", "head_size": 8}, "model.family: a model with family=llama can't grow into one"),
        ("llama", {"vocabulary": 62}, "model.vocabulary: a model with vocabulary=61 can't grow into one with 62"),
        ("llama", {"layers": 1}, "model.layers: a model with layers=2 can't grow into one with 1; 2 or more"),
        ("llama", {"hidden_size": 16}, "model.hidden_size"),
        ("llama", {"mlp_size": 40}, "model.mlp_size"),
        ("llama", {"heads": 2, "kv_heads": 2}, "model.heads"),
        ("llama", {"heads": 8, "kv_heads": 1, "head_size": 8}, "model.kv_heads: a model with kv_heads=2 can't grow"),
        ("llama", {"mlp": "geglu"}, "model.mlp"),
        ("llama", {"norm_eps": 1e-6}, "model.norm_eps"),
        ("llama", {"tied": True}, "model.tied: a model with tied=false can't grow into one with true; set it to false"),
        ("llama", {"rope_theta": 5e5}, "model.rope_theta"),
        ("llama", {"head_size": 12}, "model.head_size"),
        ("qwen3", {"head_size": 16}, "model.head_size"),
        ("gpt2", {"context": 12}, "model.context"),
    ],
)
def test_what_can_not_grow_is_refused_by_its_first_field(family, change, line):
    old = Architecture(**(COMMON | SMALL[family]))
    with pytest.raises(UserError, match=re.escape(line)) as caught:
        check(old, Architecture(**(COMMON | SMALL[family] | change)))
    assert "\n" not in str(caught.value)
