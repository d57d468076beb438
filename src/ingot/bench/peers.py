"""How others turn JSON lines into a file of token ids; each as it is commonly written, in a process of its own.

python -m ingot.bench.peers NAME CORPUS OUT TOKENIZER-FOLDER prints how many tokens it wrote.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import tiktoken

CHUNK = 1000  # texts that are handed to a library at once
TOGETHER = 64  # texts that are sent to a process of a pool at once


def texts(corpus: Path) -> Iterator[str]:
    """The text of each line."""
    with corpus.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)["text"]


def chunks(corpus: Path) -> Iterator[list[str]]:
    """The texts, `CHUNK` at a time."""
    found = texts(corpus)
    while chunk := list(islice(found, CHUNK)):
        yield chunk


def read_tiktoken(folder: Path) -> tiktoken.Encoding:
    """tiktoken with the vocabulary of a tokenizer.json."""
    import tiktoken

    from ingot.tokenizer.byte_pairs import pattern
    from ingot.tokenizer.fast import ranks_of

    described = json.loads((folder / "tokenizer.json").read_bytes())
    model, special = described["model"], described["added_tokens"]
    return tiktoken.Encoding(
        "bench",
        pat_str=pattern(described["pre_tokenizer"]) or "",
        mergeable_ranks=ranks_of(model["vocab"], model["merges"]),
        special_tokens={token["content"]: token["id"] for token in special},
    )


def tiktoken_loop(corpus: Path, out: Path, folder: Path) -> int:
    """One text after another."""
    encoder = read_tiktoken(folder)
    end, count = encoder.eot_token, 0
    with out.open("wb") as file:
        for text in texts(corpus):
            ids = [end, *encoder.encode_ordinary(text)]
            file.write(np.array(ids, dtype=np.uint16).tobytes())
            count += len(ids)
    return count


def tiktoken_threads(corpus: Path, out: Path, folder: Path) -> int:
    """tiktoken's own batches, in two threads."""
    encoder = read_tiktoken(folder)
    end, count = encoder.eot_token, 0
    with out.open("wb") as file:
        for chunk in chunks(corpus):
            for found in encoder.encode_ordinary_batch(chunk, num_threads=2):
                ids = [end, *found]
                file.write(np.array(ids, dtype=np.uint16).tobytes())
                count += len(ids)
    return count


class Pooled:
    """The encoder of a process of nanoGPT's pool."""

    encoder: tiktoken.Encoding

    @classmethod
    def begin(cls, folder: Path) -> None:
        """Read it once."""
        cls.encoder = read_tiktoken(folder)

    @classmethod
    def encode(cls, text: str) -> list[int]:
        """A text, and the end token behind it."""
        return [*cls.encoder.encode_ordinary(text), cls.encoder.eot_token]


def nanogpt(corpus: Path, out: Path, folder: Path) -> int:
    """nanoGPT's prepare.py without `datasets`: a pool of two encodes, then all goes into one memory map."""
    with multiprocessing.get_context("spawn").Pool(2, Pooled.begin, (folder,)) as pool:
        found = [np.array(ids, dtype=np.uint16) for ids in pool.imap(Pooled.encode, texts(corpus), TOGETHER)]
    count = sum(map(len, found))
    written = np.memmap(out, dtype=np.uint16, mode="w+", shape=(count,))
    written[:] = np.concatenate(found)
    written.flush()
    return count


def tokenizers_batch(corpus: Path, out: Path, folder: Path) -> int:
    """Hugging Face's tokenizers, which encode a batch on all cores."""
    import tokenizers

    encoder = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    end, count = encoder.token_to_id("<|endoftext|>"), 0
    with out.open("wb") as file:
        for chunk in chunks(corpus):
            for found in encoder.encode_batch_fast(chunk):
                ids = [end, *found.ids]
                file.write(np.array(ids, dtype=np.uint16).tobytes())
                count += len(ids)
    return count


PEERS: dict[str, Any] = {
    "tiktoken": tiktoken_loop,
    "tiktoken-threads": tiktoken_threads,
    "nanogpt": nanogpt,
    "tokenizers": tokenizers_batch,
}

if __name__ == "__main__":
    peer, *places = sys.argv[1:]
    print(PEERS[peer](*map(Path, places)))
