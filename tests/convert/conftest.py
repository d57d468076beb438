"""Models of every family, and tokenizers, that the tests of conversion share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ingot.checkpoint.store import Checkpoints
from ingot.model.architecture import Architecture
from ingot.model.decoder import Decoder
from ingot.model.huggingface import save_model
from ingot.model.initial import Scaled
from ingot.tokenizer.tokenizer import Tokenizer
from ingot.tokenizer.training import BPE

TEXT = "The quick brown fox's 12345 jumps over the lazy dog; naïve Привет 東京 😀.\n\tif x == 10: return 'it'\n"
SHAPE = {"context": 96, "layers": 2, "hidden_size": 32, "heads": 4}
ARCHITECTURES = {
    "gpt2": Architecture(family="gpt2", vocabulary=301, **SHAPE),
    "gpt2-untied": Architecture(family="gpt2", vocabulary=300, tied=False, mlp_size=100, **SHAPE),
    "llama": Architecture(family="llama", vocabulary=307, kv_heads=2, rope_theta=500.0, norm_eps=1e-6, **SHAPE),
    "llama-tied": Architecture(family="llama", vocabulary=300, tied=True, head_size=20, mlp_size=70, **SHAPE),
    "qwen2": Architecture(family="qwen2", vocabulary=303, kv_heads=1, **SHAPE),
    "qwen3": Architecture(family="qwen3", vocabulary=311, kv_heads=2, head_size=12, **SHAPE),
    "qwen3-tied": Architecture(family="qwen3", vocabulary=300, tied=True, **SHAPE),
}


@pytest.fixture(params=ARCHITECTURES)
def arch(request: pytest.FixtureRequest) -> Architecture:
    return ARCHITECTURES[request.param]


@pytest.fixture(scope="session")
def architectures() -> dict[str, Architecture]:
    return ARCHITECTURES


@pytest.fixture(scope="session")
def model_of() -> Callable[..., Decoder]:
    """Makes a model of a shape; another `seed` gives other weights."""
    return make_model


def make_model(arch: Architecture, seed: int = 1) -> Decoder:
    """Weights large enough that logits differ widely, gains and biases included."""
    generator = torch.Generator().manual_seed(seed)
    model = Decoder(arch, init=Scaled(width=0.2), generator=generator).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.2)
    return model


@pytest.fixture(scope="session")
def tokenizer_of() -> Callable[[str], Tokenizer]:
    """Trains a tokenizer that cuts text in the way of a name."""
    return train_tokenizer


def train_tokenizer(split: str) -> Tokenizer:
    return BPE(vocabulary=300, split=split).train(iter([TEXT] * 4))


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train_tokenizer("qwen2")


@pytest.fixture
def run_of(tmp_path: Path, tokenizer: Tokenizer) -> Callable[..., Path]:
    """Saves a model as the run of a name; gives back the folder of all runs."""

    def save(model: Decoder, name: str = "source", **fields: object) -> Path:
        def write(folder: Path) -> None:
            save_model(model, folder, end=tokenizer.end)
            tokenizer.save(folder)

        Checkpoints(tmp_path / "runs" / name).save({"model": write}, **{"step": 7, "tokens": 70, **fields})
        return tmp_path / "runs"

    return save
