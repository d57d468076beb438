"""Small models, a tokenizer, and folders of both, that the tests of this room share."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ingot.model.architecture import Architecture
from ingot.model.decoder import Decoder
from ingot.model.huggingface import save_model
from ingot.tokenizer.tokenizer import Tokenizer
from ingot.tokenizer.training import BPE

WORDS = ["the", "of", "and", "people", "nation", "state", "union", "peace", "war", "law", "great", "year", "é", "国"]


def texts(count: int, longest: int = 60, seed: int = 1) -> list[str]:
    """Made-up documents."""
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(1, longest))) + "." for _ in range(count)]


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """300 tokens, of bytes and words."""
    return BPE(vocabulary=300).train(iter(texts(200, seed=7)))


@pytest.fixture(scope="session")
def make_model(tokenizer: Tokenizer) -> Callable[..., Decoder]:
    """Random weights of a family, large enough that their predictions differ."""

    def make(family: str = "llama", context: int = 16, **fields) -> Decoder:
        torch.manual_seed(4)
        arch = Architecture(
            family=family, vocabulary=tokenizer.vocabulary, context=context, layers=2, hidden_size=32, heads=4, **fields
        )
        model = Decoder(arch).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 2:
                    parameter.mul_(4)
        return model

    return make


@pytest.fixture
def model_folder(tmp_path: Path, tokenizer: Tokenizer, make_model: Callable[..., Decoder]) -> Callable[..., Path]:
    """A Hugging Face folder with such a model and the tokenizer."""

    def write(family: str = "llama", **fields) -> Path:
        folder = tmp_path / f"model-{family}"
        save_model(make_model(family, **fields), folder, end=tokenizer.end)
        tokenizer.save(folder)
        return folder

    return write
