"""Who writes text in `ingot bench generate`: each reads the same model's folder or file, and continues ids by ids."""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

Write = Callable[[Sequence[Sequence[int]], int], None]
"""prompts of one length, and how many tokens to write after each of them, whatever they are"""


@dataclass(frozen=True)
class Writer:
    """A way to write: `maker`, and the numbers that its weights are kept in."""

    maker: str
    numbers: str

    @property
    def name(self) -> str:
        """In words."""
        return f"{self.maker}, {self.numbers}"

    def open(self, folder: Path, context: int) -> Write:
        """Load the model; whatever the maker raises."""
        makers = {"ingot": _ingot, "transformers": _transformers, "llama.cpp": _llama_cpp}
        return makers[self.maker](folder, self.numbers, context)


def _ingot(folder: Path, numbers: str, context: int) -> Write:
    from ingot.generate.generator import Generator
    from ingot.generate.sampling import Sampling
    from ingot.generate.weights import Quantize
    from ingot.model.huggingface import load_model
    from ingot.tokenizer.tokenizer import Tokenizer

    formats: dict[str, Quantize | None] = {"fp32": None, "bf16": "bfloat16", "int8": "int8", "int4": "int4"}
    generator = Generator(load_model(folder).eval(), Tokenizer.load(folder), ends=(), quantize=formats[numbers])

    def write(prompts: Sequence[Sequence[int]], count: int) -> None:
        generator.complete(prompts, [Sampling(temperature=0, max_new_tokens=count)] * len(prompts))

    return write


def _transformers(folder: Path, numbers: str, context: int) -> Write:
    """As its users call it: with its default cache, and not compiled."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[numbers]
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()

    def write(prompts: Sequence[Sequence[int]], count: int) -> None:
        ids = torch.tensor(prompts)
        model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=count, min_new_tokens=count
        )

    return write


def _llama_cpp(folder: Path, numbers: str, context: int) -> Write:
    """llama.cpp's own server within the process, as its Python package brings it."""
    import xllamacpp

    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # it tells all it does
        os.dup2(nowhere, stream)
    params = xllamacpp.CommonParams()
    params.model.path = str(folder / f"{numbers}.gguf")
    params.n_parallel = 16
    params.n_ctx = params.n_parallel * context
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = torch.get_num_threads()
    params.n_gpu_layers = params.port = 0
    server = xllamacpp.Server(params)
    pool = ThreadPoolExecutor(params.n_parallel)

    def write(prompts: Sequence[Sequence[int]], count: int) -> None:
        def ask(ids: Sequence[int]) -> dict[str, Any]:
            settings = {"temperature": -1.0, "ignore_eos": True, "cache_prompt": False}
            body = json.dumps({"prompt": list(ids), "n_predict": count, **settings}).encode()
            request = urllib.request.Request(
                f"{server.listening_address}/completion", body, {"Content-Type": "application/json"}
            )
            with urllib.request.urlopen(request) as answer:
                return json.load(answer)

        for made in pool.map(ask, prompts):
            assert made["tokens_predicted"] == count, f"{made['tokens_predicted']} tokens instead of {count}"

    return write
