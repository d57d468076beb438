"""llama2.c's `.bin` checkpoints in float32, and the `tokenizer.bin` beside them (github.com/karpathy/llama2.c).

D hidden size, H heads, G key/value heads, C head size, F MLP size, V vocabulary, L layers, T positions.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from torch import Tensor

from ingot.config.check import validate
from ingot.convert.gguf.scheme import from_pairs
from ingot.convert.pieces import LONGEST_PIECE, SPACE, Piece, byte_name, describe_pieces
from ingot.errors import UserError
from ingot.model.architecture import Architecture
from ingot.model.decoder import Decoder
from ingot.model.foreign import check_numbers, inside
from ingot.tokenizer.tokenizer import Tokenizer

TOKENIZER = "tokenizer.bin"
MAGIC, HEADER = 0x616B3432, 256  # "ak42", and the bytes before the weights, from version 1 on
EPSILON, THETA = 1e-5, 10_000.0  # as the program has them, whatever the file
SPECIAL = 3  # <unk>, <s> and </s> come first in Llama 2's vocabulary, then the bytes


def read(path: Path, tokenizer: Path | None = None) -> tuple[Decoder, Tokenizer]:
    """The model in a `.bin` file and the tokenizer beside it, or elsewhere. Raises UserError for what is not whole."""
    try:
        data = np.memmap(path, dtype=np.uint8, mode="r")
    except (OSError, ValueError) as error:
        raise UserError(f"this file can't be read ({error})", where=str(path), mend="check the file") from None
    arch, begin, old = _architecture(data, path)
    tokens = read_tokenizer(tokenizer or inside(path.parent, TOKENIZER), arch.vocabulary)
    sizes = [math.prod(shape) for _, shape in _layout(arch, old)]
    if begin + 4 * sum(sizes) > len(data):
        needed = begin + 4 * sum(sizes)
        _refuse(path, f"the file has {len(data):,} bytes, and a model of its header's shape takes {needed:,}")
    with torch.device("meta"):
        model = Decoder(arch)
    model.to_empty(device="cpu")
    at = begin
    for (names, shape), size in zip(_layout(arch, old), sizes, strict=True):
        value = torch.from_numpy(np.array(data[at : at + 4 * size])).view(torch.float32).view(shape)
        at += 4 * size
        if not torch.isfinite(value).all():
            _refuse(path, f"{names[0] if names else 'a table'} holds what is no number")
        _put(model, names, value, arch)
    return model, tokens


def read_tokenizer(path: Path, vocabulary: int) -> Tokenizer:
    """The tokenizer in a `tokenizer.bin`, whose pieces must be as many as the model's tokens."""
    if not path.is_file():  # a pipe would be waited for
        raise UserError("there is no such file", where=str(path), mend=f"name a {TOKENIZER}")
    try:
        data = path.read_bytes() if path.stat().st_size < vocabulary * (LONGEST_PIECE + 8) + 4 else b""
    except OSError as error:
        mend = f"put {TOKENIZER} beside the model"
        raise UserError(f"the tokenizer can't be read ({error.strerror})", where=str(path), mend=mend) from None
    pieces, at = [], 4
    try:
        for token in range(vocabulary):
            score, length = struct.unpack_from("<fi", data, at)
            if not 0 <= length <= LONGEST_PIECE or at + 8 + length > len(data):
                raise ValueError
            pieces.append(_piece(token, data[at + 8 : at + 8 + length].decode("utf-8"), score))
            at += 8 + length
    except (struct.error, ValueError):
        _refuse(path, f"no tokenizer of {vocabulary:,} pieces is in this file")
    content = describe_pieces(pieces, prefix=True, where=str(path))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    named = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    # Stories are led by <s> and end where the next begins; </s> is a token that was never trained.
    return Tokenizer(content, {**settings, **named, "document_token": "<s>"}, where=str(path))


def _piece(token: int, text: str, score: float) -> Piece:
    if token < SPECIAL:
        return Piece(("<unk>", "<s>", "</s>")[token], 0.0, "unknown" if token == 0 else "control")
    if token < SPECIAL + 256:
        return Piece(byte_name(token - SPECIAL), score, "byte")
    return Piece(text.replace(" ", SPACE), score, "normal")


def _architecture(data: np.ndarray, path: Path) -> tuple[Architecture, int, bool]:
    """The shape, where the weights begin, and whether they lie as in the old format."""
    try:
        magic, version = struct.unpack_from("<Ii", data[:8].tobytes())
        old = magic != MAGIC
        hidden, mlp, layers, heads, kv_heads, vocabulary, context = struct.unpack(
            "<7i", data[0:28].tobytes() if old else data[8:36].tobytes()
        )
    except struct.error:
        _refuse(path, "the file is shorter than a header")
    if not old and version != 1:
        _refuse(path, f"version {version} of the format; the float32 ones, 0 and 1, are known here")
    tied = vocabulary > 0 if old else bool(data[36])  # the old format has the sign say so
    values = {
        "family": "llama",
        "vocabulary": abs(vocabulary),
        "context": context,
        "layers": layers,
        "hidden_size": hidden,
        "heads": heads,
        "kv_heads": kv_heads,
        "mlp_size": mlp,
        "tied": tied,
        "norm_eps": EPSILON,
        "rope_theta": THETA,
    }
    if min(abs(vocabulary), context, layers, hidden, heads, kv_heads, mlp) < 1:
        _refuse(path, "the header names a size that is none; it is no llama2.c checkpoint")
    check_numbers(values, str(path))
    return validate(Architecture, values, where=str(path)), 28 if old else HEADER, old


def _layout(arch: Architecture, old: bool) -> Iterator[tuple[tuple[str, ...], tuple[int, ...]]]:
    """The tensors in the file's order: our parameters, one for each layer or one alone, and the shape of them all."""
    wide, narrow = arch.heads * arch.head_size, arch.kv_heads * arch.head_size
    shapes = {
        "attention_norm": (arch.hidden_size,),
        "attention.query": (wide, arch.hidden_size),
        "attention.key": (narrow, arch.hidden_size),
        "attention.value": (narrow, arch.hidden_size),
        "attention.output": (arch.hidden_size, wide),
        "mlp_norm": (arch.hidden_size,),
        "mlp.gate": (arch.mlp_size, arch.hidden_size),
        "mlp.down": (arch.hidden_size, arch.mlp_size),
        "mlp.up": (arch.mlp_size, arch.hidden_size),
    }
    embedding = (("embedding.weight",), (1, arch.vocabulary, arch.hidden_size))
    head = (("head.weight",), (1, arch.vocabulary, arch.hidden_size))
    norm = (("norm.weight",), (1, arch.hidden_size))
    order = (
        list(shapes) if old else [*[name for name in shapes if "norm" in name], *[n for n in shapes if "norm" not in n]]
    )
    blocks = [
        (tuple(f"blocks.{layer}.{name}.weight" for layer in range(arch.layers)), (arch.layers, *shapes[name]))
        for name in order
    ]
    tables = ((), (2, arch.context, arch.head_size // 2))  # the old format keeps the rotary angles
    if old:
        yield from (embedding, *blocks, norm, tables)
    else:
        yield from (*blocks[:2], norm, embedding, *blocks[2:])
    if not arch.tied:
        yield head


@torch.no_grad()
def _put(model: Decoder, names: tuple[str, ...], values: Tensor, arch: Architecture) -> None:
    for name, value in zip(names, values, strict=False):
        turned = name.endswith(("attention.query.weight", "attention.key.weight"))  # neighbours are turned together
        model.get_parameter(name).copy_(from_pairs(value, arch.head_size) if turned else value)


def _refuse(path: Path, what: str) -> NoReturn:
    raise UserError(what, where=str(path), mend="fetch the file anew, or name another")
