"""The engine: one update is the update of the mean over all target tokens, however the batch is cut."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ingot.data.loader import IGNORED, TokenBatch
from ingot.distributed import World
from ingot.engine.engine import Engine
from ingot.engine.parallel import Automatic
from ingot.model.architecture import Architecture
from ingot.model.decoder import Decoder
from ingot.optim.optimizer import AdamW, Muon, Optimizer

SHAPE = Architecture(family="llama", vocabulary=61, context=16, layers=2, hidden_size=32, heads=2)
WITH_DROPOUT = Architecture(family="gpt2", vocabulary=61, context=16, layers=2, hidden_size=32, heads=2, dropout=0.2)
WORLD = World(0, 1, torch.device("cpu"))


def engine(arch: Architecture = SHAPE, optimizer: Optimizer | None = None) -> Engine:
    model = Decoder(arch, generator=torch.Generator().manual_seed(1))
    return Automatic().build(model, optimizer or AdamW(lr=0.01), WORLD, clip=1.0, precision="fp32")


def batch(rows: int, seed: int, masked: float = 0.0) -> TokenBatch:
    draw = torch.Generator().manual_seed(seed)
    tokens = torch.randint(61, (rows, 17), generator=draw)
    targets = tokens[:, 1:].clone()
    targets[torch.rand(targets.shape, generator=draw) < masked] = IGNORED
    positions = torch.arange(16).expand(rows, -1).contiguous()
    count = int((targets != IGNORED).sum())
    return TokenBatch(tokens[:, :-1].contiguous(), targets, positions, packed=False, target_count=count)


def joined(*batches: TokenBatch) -> TokenBatch:
    inputs, targets, positions = (
        torch.cat([getattr(one, name) for one in batches]) for name in ("inputs", "targets", "positions")
    )
    return TokenBatch(inputs, targets, positions, packed=False, target_count=sum(one.target_count for one in batches))


def test_a_step_is_the_one_that_plain_pytorch_makes():
    ours, rows = engine(), batch(4, seed=2)
    model = Decoder(SHAPE, generator=torch.Generator().manual_seed(1))
    matrices = [one for one in model.parameters() if one.ndim > 1]
    vectors = [one for one in model.parameters() if one.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=0.005, betas=(0.9, 0.95))
    for step in range(3):
        result = ours.step([rows], factor=0.5, step=step, seed=1)
        loss = nn.functional.cross_entropy(model(rows.inputs).flatten(0, 1), rows.targets.flatten())
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        torch.testing.assert_close(result.loss, loss.detach(), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(result.gradient_norm, norm, rtol=1e-4, atol=1e-5)
    for one, other in zip(ours.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("optimizer", [AdamW(lr=0.01), Muon()], ids=lambda config: config.kind)
def test_unequal_micro_batches_weigh_tokens_not_batches(optimizer):
    parts = [batch(1, 3, masked=0.9), batch(3, 4), batch(2, 5, masked=0.5)]
    split, whole = engine(optimizer=optimizer), engine(optimizer=optimizer)
    one = split.step(parts, factor=1.0, step=0, seed=1)
    other = whole.step([joined(*parts)], factor=1.0, step=0, seed=1)
    assert one.targets == other.targets == sum(part.target_count for part in parts)
    torch.testing.assert_close(one.loss, other.loss)
    torch.testing.assert_close(one.gradient_norm, other.gradient_norm, rtol=1e-4, atol=1e-6)


def test_a_batch_without_targets_changes_nothing_else():
    empty = batch(2, 6, masked=1.1)
    with_empty, without = engine(), engine()
    one = with_empty.step([empty, batch(2, 7)], factor=1.0, step=0, seed=1)
    other = without.step([batch(2, 7)], factor=1.0, step=0, seed=1)
    assert torch.equal(one.loss, other.loss)
    for left, right in zip(with_empty.model.parameters(), without.model.parameters(), strict=True):
        assert torch.equal(left, right)
    alone = with_empty.step([empty], factor=1.0, step=1, seed=1)
    assert alone.loss == 0 and alone.gradient_norm == 0
    assert all(parameter.isfinite().all() for parameter in with_empty.model.parameters())


def test_dropout_is_a_function_of_seed_and_step():
    losses = {}
    for seed, step in [(1, 0), (1, 0), (1, 1), (2, 0)]:
        torch.rand(3)  # whatever happened to the global stream before
        losses.setdefault((seed, step), []).append(
            engine(WITH_DROPOUT).step([batch(4, 8)], factor=0.0, step=step, seed=seed).loss.item()
        )
    assert losses[1, 0][0] == losses[1, 0][1]
    assert len({values[0] for values in losses.values()}) == 3


def test_a_rate_of_zero_leaves_the_weights_alone():
    one = engine(optimizer=Muon())
    before = [parameter.clone() for parameter in one.model.parameters()]
    one.step([batch(4, 9)], factor=0.0, step=0, seed=1)
    assert all(torch.equal(old, new) for old, new in zip(before, one.model.parameters(), strict=True))


def test_a_compiler_that_fails_leaves_a_working_engine(monkeypatch):
    def no_compiler(*args: object, **kwargs: object) -> object:
        def broken(*args: object, **kwargs: object) -> object:
            raise RuntimeError("no C++ compiler\nand a long story")

        return broken

    monkeypatch.setattr(torch, "compile", no_compiler)
    one = engine()
    with pytest.raises(RuntimeError, match="no C"):
        one.compile([batch(4, 10)])
    assert one.step([batch(4, 10)], factor=1.0, step=0, seed=1).loss.isfinite()


def test_state_goes_on_bit_for_bit():
    whole, first, second = engine(optimizer=Muon()), engine(optimizer=Muon()), engine(optimizer=Muon())
    for step in range(4):
        whole.step([batch(4, 20 + step)], factor=0.7, step=step, seed=1)
    for step in range(2):
        first.step([batch(4, 20 + step)], factor=0.7, step=step, seed=1)
    second.model.load_state_dict(first.model.state_dict())
    second.load_state(first.state())
    for step in range(2, 4):
        second.step([batch(4, 20 + step)], factor=0.7, step=step, seed=1)
    for one, other in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.slow
def test_a_compiled_step_is_the_eager_step():
    eager, compiled = engine(), engine()
    compiled.compile([batch(4, 30)])
    for step in range(3):
        one = eager.step([batch(4, 30 + step)], factor=1.0, step=step, seed=1)
        other = compiled.step([batch(4, 30 + step)], factor=1.0, step=step, seed=1)
        torch.testing.assert_close(one.loss, other.loss, rtol=1e-4, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_makes_the_step_that_the_cpu_makes():
    device = torch.device("cuda")
    model = Decoder(SHAPE, generator=torch.Generator().manual_seed(1))
    gpu = Automatic().build(model, AdamW(lr=0.01), World(0, 1, device), clip=1.0, precision="fp32")
    one = gpu.step([batch(4, 2)], factor=1.0, step=0, seed=1)
    other = engine().step([batch(4, 2)], factor=1.0, step=0, seed=1)
    torch.testing.assert_close(one.loss.cpu(), other.loss, rtol=1e-3, atol=1e-3)
