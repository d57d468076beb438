"""A GGUF file beside the model that it was made from: read back by ingot, and read by llama.cpp."""

from __future__ import annotations

from pathlib import Path

import torch

from ingot.convert.comparison import TALK, Verdict, check_chat, check_ids, judge, own_reading
from ingot.convert.gguf.llama_cpp import read_with_llama_cpp
from ingot.convert.gguf.reader import read
from ingot.errors import UserError
from ingot.model.decoder import Decoder
from ingot.tokenizer.tokenizer import Tokenizer

LIKELIEST = 100  # tokens whose probabilities are compared at each place

# Of the difference, as a share of the logits' spread. llama.cpp narrows the activations to what a matrix is stored in,
# and takes GELU from a table of 16-bit numbers.
BOUNDS = {"f32": 5e-3, "f16": 2e-2, "bf16": 5e-2, "q8_0": 0.1, "q4_0": 0.15}


def check(path: Path, model: Decoder, tokenizer: Tokenizer, kind: str) -> Verdict:
    """Read the file back, then let llama.cpp read it and compare it with what was read back.

    Raises UserError where a weight is not what was stored, or llama.cpp differs by more than its arithmetic explains.
    """
    back, tokens = read(path)
    same = back.arch == model.arch.model_copy(update={"dropout": 0.0}) and tokens.fingerprint == tokenizer.fingerprint
    if kind == "f32":
        pairs = zip(model.parameters(), back.parameters(), strict=True)
        same = same and all(torch.equal(ours.float(), theirs.float()) for ours, theirs in pairs)
    if not same:
        what = "what was written does not read back as the same model"
        raise UserError(what, where=str(path), mend="nothing was kept; tell us about it")
    own = own_reading(back.float(), tokenizer)
    talk = [message._asdict() for message in TALK] if "chat_template" in tokenizer.settings else []
    theirs = read_with_llama_cpp(path, own.texts, own.path, own.read, LIKELIEST, talk)
    check_ids(own, theirs.tokens, "llama.cpp")
    if theirs.chat is not None:
        check_chat(tokenizer, theirs.chat, "llama.cpp")
    rated = [(place, token, value) for place, one in enumerate(theirs.likeliest) for token, value in one.items()]
    places, tokens_there, values = (torch.tensor(column) for column in zip(*rated, strict=True))
    return judge(own, theirs.written, own.rated[places, tokens_there] - values, BOUNDS[kind], "llama.cpp")
