"""A model from one GGUF file."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from ingot.convert.gguf.container import Container
from ingot.convert.gguf.scheme import EMBEDDING, HEAD, from_metadata, from_pairs, is_paired, tensors
from ingot.convert.gguf.tokens import from_metadata as tokens_from_metadata
from ingot.model.decoder import Decoder
from ingot.model.foreign import check_held
from ingot.tokenizer.tokenizer import Tokenizer


def read(path: Path) -> tuple[Decoder, Tokenizer]:
    """The model and the tokenizer in a GGUF file, the weights as wide as the widest stored float needs, or float32.

    Raises UserError, which names the first part that is missing, does not fit or is of no use.
    """
    file = Container(path)
    arch = from_metadata(file)
    check_held(arch, sum(math.prod(one.shape) for one in file.tensors.values()), str(path))
    tokenizer = tokens_from_metadata(file)
    if tokenizer.vocabulary > arch.vocabulary:
        file.refuse(f"the tokenizer has {tokenizer.vocabulary:,} tokens and the model {arch.vocabulary:,}")
    with torch.device("meta"):
        model = Decoder(arch)
    found = _loaded(file, model)
    dtype = _narrowest(list(found.values()))
    model = model.to(dtype).to_empty(device="cpu")
    with torch.no_grad():
        for name, value in found.items():
            model.get_parameter(name).copy_(value)
    return model, tokenizer


def _loaded(file: Container, model: Decoder) -> dict[str, Tensor]:
    """All of our parameters, each in the type that the file has it in."""
    arch, found = model.arch, {}
    known = dict(tensors(model))
    for theirs, ours in known.items():
        if theirs not in file.tensors:
            file.refuse(f"the tensor {theirs} is missing")
        sizes = [len(model.get_parameter(name)) for name in ours]
        shape = (sum(sizes), *model.get_parameter(ours[0]).shape[1:])
        if file.tensors[theirs].shape != shape:
            file.refuse(f"{theirs} has the shape {file.tensors[theirs].shape}, and {shape} is expected")
        value = file.tensor(theirs)
        if not torch.isfinite(value).all():
            file.refuse(f"{theirs} holds what is no number")
        for name, part in zip(ours, value.split(sizes), strict=True):
            found[name] = from_pairs(part, arch.head_size) if is_paired(name, arch) else part
    left = file.tensors.keys() - known.keys() - ({HEAD} if arch.tied else set())
    if left:
        file.refuse(f"the tensor {min(left)!r:.80} has no place in the model")
    assert EMBEDDING in known
    return found


def _narrowest(values: list[Tensor]) -> torch.dtype:
    """The narrowest type in which every one of `values` is what it is."""
    for dtype in (torch.bfloat16, torch.float16):
        if all(value.dtype == dtype or torch.equal(value.to(dtype).to(value.dtype), value) for value in values):
            return dtype
    return torch.float32
