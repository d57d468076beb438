"""Damaged and hostile model folders: one clear line each, in a bounded memory, and nothing written outside."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from ingot.checkpoint.sums import write_sums
from ingot.convert import coded, huggingface
from ingot.convert.gguf.writer import write as write_gguf

pytest.importorskip("gguf")


@pytest.fixture(scope="module")
def bases(tmp_path_factory, architectures, model_of, tokenizer) -> Path:
    """A whole folder, one of several files, one with sums, two of codes, a GGUF file, and a llama2.c checkpoint."""
    folder = tmp_path_factory.mktemp("bases")
    huggingface.write(folder / "whole", model_of(architectures["llama"]), tokenizer, "fp32")
    huggingface.write(folder / "sharded", model_of(architectures["gpt2"]), tokenizer, "bf16", file_bytes=20_000)
    huggingface.write(folder / "sums", model_of(architectures["qwen3"]), tokenizer, "fp16")
    write_sums(folder / "sums")
    coded.write(folder / "codes8", model_of(architectures["gpt2-untied"]), tokenizer, "int8")
    coded.write(folder / "codes4", model_of(architectures["llama-tied"]), tokenizer, "int4")
    (folder / "gguf").mkdir()
    write_gguf(folder / "gguf" / "m.gguf", model_of(architectures["qwen2"]), tokenizer, "q8_0")
    write_llama2c(folder / "llama2c")
    return folder


def write_llama2c(folder: Path) -> None:
    """A tiny checkpoint in llama2.c's old format: 8 wide, one layer, 300 pieces."""
    folder.mkdir()
    hidden, mlp, layers, heads, pieces, context = 8, 12, 1, 2, 300, 16
    numbers = (
        pieces * hidden + layers * (2 * hidden + 4 * hidden**2 + 3 * hidden * mlp) + hidden + context * hidden // 2
    )
    header = struct.pack("<7i", hidden, mlp, layers, heads, heads, pieces, context)
    (folder / "m.bin").write_bytes(header + struct.pack(f"<{numbers}f", *[0.01 * (n % 7) for n in range(numbers)]))
    texts = ["<unk>", "\n<s>\n", "\n</s>\n", *(f"<0x{byte:02X}>" for byte in range(256))]
    texts += [chr(0x21 + place) for place in range(pieces - len(texts))]
    entries = [struct.pack("<fi", -float(place), len(text)) + text.encode() for place, text in enumerate(texts)]
    (folder / "tokenizer.bin").write_bytes(struct.pack("<i", 7) + b"".join(entries))


def imported(bases: Path, first: int, last: int, room: Path) -> list[dict[str, str]]:
    """How each of the damaged models of these numbers ended; the process must have come to the end of them."""
    program = Path(__file__).with_name("damage.py")
    room.mkdir(exist_ok=True)
    command = [sys.executable, str(program), str(bases), str(first), str(last), str(room)]
    environment = {"PYTHONPATH": str(Path(__file__).parents[2] / "src"), "PATH": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == last - first, f"number {first + len(found)} ended the process: {done.stderr[-2000:]}"
    return found


def check(found: list[dict[str, str]]) -> Counter[str]:
    bad = [one for one in found if not one["ended"].startswith(("refused: ", "loaded"))]
    assert not bad, json.dumps(bad, indent=1)
    kept = [one for one in found if one["ended"] == "loaded" and one["base"] == "sums"]
    unseen = [one for one in kept if one["harm"] != "swap"]  # which may take the sums themselves
    assert not unseen, f"sums did not give it away: {unseen}"
    return Counter(one["ended"].partition(":")[0] for one in found)


def test_damaged_models_are_refused_in_one_line(bases: Path, tmp_path: Path):
    counts = check(imported(bases, 0, 99, tmp_path / "room"))
    assert counts["refused"] > 60


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_two_thousand_damaged_models(bases: Path, tmp_path: Path):
    total: Counter[str] = Counter()
    for first in range(0, 2000, 250):
        total += check(imported(bases, first, first + 250, tmp_path / f"room-{first}"))
    print(dict(total))
    assert total["refused"] > 1200
