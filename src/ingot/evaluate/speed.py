"""How fast a model reads and writes on this machine, one text at a time and several at once."""

from __future__ import annotations

import statistics
import time

import torch

from ingot.distributed import most_held
from ingot.evaluate.record import SpeedRecord
from ingot.generate.batch import Batch
from ingot.generate.generator import Generator
from ingot.generate.sampling import Sampling
from ingot.model.decoder import Decoder
from ingot.tokenizer.tokenizer import Tokenizer

BATCHES = (1, 8)  # texts at once
PROMPT, NEW = 256, 64  # tokens, where the context holds them
TURNS = 3  # times that each is measured; the median counts


def speed(model: Decoder, tokenizer: Tokenizer) -> list[SpeedRecord]:
    """Prefill and decode of each of `BATCHES`, by the median of three turns that follow one to warm up."""
    context = model.arch.context
    prompt = min(PROMPT, max(1, context // 2))
    new = max(2, min(NEW, context - prompt))
    prompts = torch.randint(tokenizer.vocabulary, (max(BATCHES), prompt), generator=torch.Generator().manual_seed(1))
    generator = Generator(model, tokenizer, ends=())
    found = []
    for size in BATCHES:
        turns = [_turn(generator.batch(size, prompt + new), prompts[:size].tolist(), new) for _ in range(TURNS + 1)]
        prefill, decode = (statistics.median(column) for column in zip(*turns[1:], strict=True))
        found.append(
            SpeedRecord(
                batch=size,
                prompt=prompt,
                prefill=size * prompt / prefill,
                decode=size * (new - 1) / decode,
                memory_bytes=_memory(model, size, prompt + new),
            )
        )
    return found


def peak_memory(device: torch.device) -> int | None:
    """The most memory of this process, or on a GPU of its tensors, so far; None where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return most_held()


def _turn(batch: Batch, prompts: list[list[int]], new: int) -> tuple[float, float]:
    """Seconds until every text has its first token, and from there to the end."""
    began = time.perf_counter()
    first = {batch.add(prompt, Sampling(temperature=0, max_new_tokens=new)) for prompt in prompts}
    while first:
        first -= {token.request for token in batch.step()}
    middle = time.perf_counter()
    for _ in batch.run():
        pass
    return middle - began, time.perf_counter() - middle


def _memory(model: Decoder, rows: int, tokens: int) -> int:
    """Bytes of the weights, and of keys and values of `rows` texts of `tokens` tokens."""
    arch = model.arch
    kept = 2 * arch.layers * arch.kv_heads * arch.head_size * rows * tokens * model.head_weight.element_size()
    return kept + sum(tensor.nbytes for tensor in model.state_dict().values())
