"""What is computed again, how much memory there is, and a trial that survives its want."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ingot.data.loader import TokenBatch
from ingot.distributed import World
from ingot.engine import memory as room
from ingot.engine.engine import Engine
from ingot.engine.memory import available, fitting_rows, is_out_of_memory, recompute, survives
from ingot.engine.parallel import Automatic
from ingot.model.architecture import Architecture
from ingot.model.decoder import Decoder
from ingot.optim.optimizer import AdamW

CPU = torch.device("cpu")
SHAPE = Architecture(family="gpt2", vocabulary=61, context=32, layers=4, hidden_size=32, heads=2, dropout=0.2)


def engine(every: int = 0, precision: str = "fp32") -> Engine:
    model = Decoder(SHAPE, generator=torch.Generator().manual_seed(1))
    recompute(model, every)
    return Automatic().build(model, AdamW(lr=0.01), World(0, 1, CPU), clip=1.0, precision=precision)


def batch(seed: int) -> TokenBatch:
    tokens = torch.randint(61, (3, 33), generator=torch.Generator().manual_seed(seed))
    positions = torch.arange(32).remainder(20).expand(3, -1).contiguous()
    return TokenBatch(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous(), positions, True, 96)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("every", [1, 2, 3, 9])
def test_what_is_computed_again_is_the_same_to_the_last_bit(every: int, precision: str):
    plain, again = engine(0, precision), engine(every, precision)
    for step in range(2):
        one = plain.step([batch(step), batch(9)], factor=1.0, step=step, seed=5)
        other = again.step([batch(step), batch(9)], factor=1.0, step=step, seed=5)
        assert torch.equal(one.loss, other.loss) and torch.equal(one.gradient_norm, other.gradient_norm)
    for left, right in zip(plain.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(left, right)


def kept(every: int) -> int:
    """Bytes that the forward pass keeps for the backward pass, the weights left out."""
    model = Decoder(SHAPE)
    recompute(model, every)
    weights, found = {parameter.data_ptr() for parameter in model.parameters()}, {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in weights:
            found[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        hidden = model.hidden(batch(1).inputs)
    assert hidden.requires_grad
    return sum(found.values())


def test_computing_again_keeps_less():
    none, half, all_of_them = kept(0), kept(2), kept(1)
    assert all_of_them < 0.2 * none
    assert half == pytest.approx((none + all_of_them) / 2, rel=0.1)


def test_without_gradients_nothing_is_computed_again(monkeypatch: pytest.MonkeyPatch):
    model, calls = Decoder(SHAPE).eval(), []
    recompute(model, 1)
    monkeypatch.setattr("ingot.model.decoder.checkpoint", lambda *args, **kwargs: calls.append(args))
    with torch.no_grad():
        model(batch(1).inputs)
    assert not calls


@pytest.mark.slow
def test_a_compiled_model_computes_again_as_well():
    plain, again = engine(0), engine(1)
    again.compile([batch(1)])
    for step in range(2):
        one = plain.step([batch(step)], factor=1.0, step=step, seed=5)
        other = again.step([batch(step)], factor=1.0, step=step, seed=5)
        assert not other.uncompiled
        torch.testing.assert_close(one.loss, other.loss, rtol=0.2, atol=0.2)  # other random numbers, the same dropout


# --- how much there is ------------------------------------------------------------------------------------------------


@pytest.fixture
def group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A control group of version 2, in a folder."""
    monkeypatch.setattr(room, "CONTROL", tmp_path)
    return tmp_path


def test_a_container_has_what_its_limit_leaves(group: Path):
    machine = available(CPU)
    assert machine > 0
    (group / "memory.current").write_text("900000\n")
    (group / "memory.stat").write_text("anon 500000\ninactive_file 300000\n")
    (group / "memory.max").write_text("1000000\n")
    assert available(CPU) == 1_000_000 - 900_000 + 300_000, "what is read from files can be dropped"
    (group / "memory.max").write_text("max\n")
    assert available(CPU) == pytest.approx(machine, rel=0.5), "no limit"


def test_processes_beside_it_get_their_share(group: Path, monkeypatch: pytest.MonkeyPatch):
    for name, text in {"memory.max": "4000", "memory.current": "1000", "memory.stat": "inactive_file 0"}.items():
        (group / name).write_text(text)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    assert available(CPU) == 1000


@given(st.integers(1, 500), st.integers(0, 500))
def test_rows_are_halved_until_they_fit(most: int, limit: int):
    tried: list[int] = []

    def fits(rows: int) -> bool:
        tried.append(rows)
        return rows <= limit

    rows = fitting_rows(most, fits)
    assert rows <= limit and (rows > limit / 2 - 1 or rows == most)
    assert tried == sorted(set(tried), reverse=True)


# --- the trial --------------------------------------------------------------------------------------------------------


def test_a_trial_leaves_no_trace():
    one, other = engine(), engine()
    assert survives(one, [batch(1), batch(2)])
    for step in range(2):
        left = one.step([batch(step)], factor=1.0, step=step, seed=5)
        right = other.step([batch(step)], factor=1.0, step=step, seed=5)
        assert torch.equal(left.loss, right.loss)
    for left, right in zip(one.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(left, right)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        MemoryError(),
    ],
    ids=["cuda", "cpu", "cublas", "python"],
)
def test_a_trial_survives_the_want_of_memory(error: Exception):
    """In the middle of a backward pass, when some gradients are there already."""
    ours, fresh = engine(), engine()

    def fail(gradient: torch.Tensor) -> None:
        raise error

    hook = ours.model.blocks[1].mlp.up.weight.register_hook(fail)
    assert not survives(ours, [batch(1)])
    hook.remove()
    assert all(parameter.grad is None for parameter in ours.model.parameters())
    one = ours.step([batch(3)], factor=1.0, step=0, seed=5)
    assert torch.equal(one.loss, fresh.step([batch(3)], factor=1.0, step=0, seed=5).loss)


def test_another_error_is_not_taken_for_want_of_memory():
    ours = engine()
    with pytest.raises(IndexError):
        survives(ours, [TokenBatch(*(torch.full((1, 4), 999),) * 3, False, 4)])
    assert not is_out_of_memory(RuntimeError("a bug"))


def test_a_real_allocation_that_fails_is_known():
    try:
        torch.empty(2**60, dtype=torch.uint8)
    except RuntimeError as error:
        assert is_out_of_memory(error)
    else:
        pytest.skip("this machine promises any amount of memory")


def test_a_compiled_model_that_fails_in_a_step_is_left(monkeypatch: pytest.MonkeyPatch):
    plain, ours = engine(), engine()
    broken: list[bool] = []

    def compiled(forward: Callable[..., torch.Tensor], **options: object) -> Callable[..., torch.Tensor]:
        def call(*args: object, **words: object) -> torch.Tensor:
            if broken:
                raise RuntimeError("kernel launch failed\nand a long story")
            return forward(*args, **words)

        return call

    monkeypatch.setattr(torch, "compile", compiled)
    ours.compile([batch(1)])
    broken.append(True)
    for step in range(2):
        one = ours.step([batch(step)], factor=1.0, step=step, seed=5)
        other = plain.step([batch(step)], factor=1.0, step=step, seed=5)
        assert torch.equal(one.loss, other.loss)
        assert one.uncompiled == ("kernel launch failed" if step == 0 else "")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_that_is_full_is_no_end():
    device = torch.device("cuda")
    shape = SHAPE.model_copy(update={"context": 1024, "hidden_size": 512, "mlp_size": 2048, "head_size": 256})
    ours = Automatic().build(Decoder(shape), AdamW(), World(0, 1, device), clip=1.0, precision="fp32")
    total = torch.cuda.get_device_properties(device).total_memory
    full = torch.empty(available(device) - total // 20, dtype=torch.uint8, device=device)
    tokens = torch.zeros(256, 1024, dtype=torch.long)
    many = TokenBatch(tokens, tokens, torch.arange(1024).expand(256, -1).contiguous(), False, tokens.numel())
    assert not survives(ours, [many])
    del full
    tokens = tokens[:1].contiguous()
    one = TokenBatch(tokens, tokens, torch.arange(1024)[None].contiguous(), False, tokens.numel())
    assert survives(ours, [one])
