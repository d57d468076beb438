"""A model as a Hugging Face folder in any float type, its weights in files of a given size, beside transformers."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch

from ingot.convert.comparison import TALK, Verdict, check_chat, check_ids, judge, own_reading, rate
from ingot.convert.libraries import library
from ingot.errors import UserError
from ingot.model.architecture import Architecture
from ingot.model.codes import Kind
from ingot.model.decoder import Decoder
from ingot.model.huggingface import load_model, stored, weights_file, write_config, write_index, write_weights
from ingot.tokenizer.chat import ChatTemplate
from ingot.tokenizer.tokenizer import Tokenizer

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
FILE_BYTES = 5 * 10**9  # of weights in a file, as the hub recommends
BOUND = 1e-4  # of the difference, as a share of the logits' spread: both compute in float32
WHO = "transformers"


def write(folder: Path, model: Decoder, tokenizer: Tokenizer, kind: str, *, file_bytes: int = FILE_BYTES) -> None:
    """Write what AutoModelForCausalLM and AutoTokenizer load, at most `file_bytes` of weights a file where they split.

    Raises UserError for weights that are too large for fp16.
    """
    narrow = _narrowed(model, kind)
    files: list[list[str]] = [[]]
    room, size = file_bytes, 0
    for name, value in stored(narrow, narrow.get_parameter):
        if files[-1] and value.nbytes > room:
            files.append([])
            room = file_bytes
        files[-1].append(name)
        room, size = room - value.nbytes, size + value.nbytes
    describe(folder, narrow.arch, tokenizer, DTYPES[kind])
    if len(files) > 1:
        write_index(folder, files, size)
    place = {name: number for number, names in enumerate(files) for name in names}
    held: dict[str, torch.Tensor] = {}
    for name, value in stored(narrow, narrow.get_parameter):  # as many in memory as a file holds
        held[name] = value
        if len(held) == len(files[place[name]]):
            write_weights(held, folder / weights_file(place[name], len(files)))
            held = {}


def describe(
    folder: Path, arch: Architecture, tokenizer: Tokenizer, dtype: torch.dtype, kind: Kind | None = None
) -> None:
    """Write all of a model's folder but its weights, which are of type `dtype`, or matrices as codes of `kind`."""
    stops = ChatTemplate.of(tokenizer).stops if "chat_template" in tokenizer.settings else ()
    write_config(arch, folder, dtype=dtype, end=tokenizer.end, stops=stops, kind=kind)
    tokenizer.save(folder)


def _narrowed(model: Decoder, kind: str) -> Decoder:
    """A copy of the weights in another type; the same model where they have it already."""
    dtype = DTYPES[kind]
    if next(model.parameters()).dtype == dtype:
        return model
    narrow = copy.deepcopy(model).to(dtype)
    if not all(torch.isfinite(parameter).all() for parameter in narrow.parameters()):
        raise UserError(f"a weight is too large for {kind}", where="export to huggingface", mend="export it as bf16")
    return narrow


def check(folder: Path, model: Decoder, tokenizer: Tokenizer, kind: str) -> Verdict:
    """Read the folder back, then let transformers load it and compare it with what was read back.

    Raises UserError where a weight is not what was stored, or transformers differs.
    """
    transformers = library("transformers", "comparing with transformers")
    transformers.utils.logging.disable_progress_bar()
    back = load_model(folder, dtype=DTYPES[kind])
    pairs = zip(_narrowed(model, kind).parameters(), back.parameters(), strict=True)
    if not all(torch.equal(ours, theirs) for ours, theirs in pairs):
        raise UserError("a weight does not read back as it was written", where=str(folder), mend="tell us about it")
    own = own_reading(back.float(), tokenizer)
    reader = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    ids = [reader.encode(text, add_special_tokens=False, split_special_tokens=True) for text in own.texts]
    check_ids(own, ids, WHO)
    if "chat_template" in tokenizer.settings:
        said: list[dict[str, Any]] = [message._asdict() for message in TALK]
        check_chat(tokenizer, reader.apply_chat_template(said, tokenize=False, add_generation_prompt=True), WHO)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, trust_remote_code=False)
    with torch.inference_mode():
        logits = theirs.eval()(torch.tensor([own.path])).logits[0].float()
        asked = torch.tensor([own.path[: own.read]])
        settings = {"do_sample": False, "eos_token_id": None, "pad_token_id": 0}
        made = theirs.generate(
            asked, attention_mask=torch.ones_like(asked), max_new_tokens=len(own.written), **settings
        )
    return judge(own, made[0, own.read :].tolist(), rate(logits, own.path, own.read) - own.rated, BOUND, WHO)
