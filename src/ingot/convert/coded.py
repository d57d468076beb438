"""A model whose matrices are whole numbers, for ingot itself: read back, and compared with the model in floats."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import Tensor, nn

from ingot.convert.comparison import Own, Verdict, check_chat, check_ids, judge, own_reading, rate, say
from ingot.convert.huggingface import describe
from ingot.errors import UserError
from ingot.generate.generator import Generator
from ingot.generate.reader import Piece
from ingot.generate.sampling import Sampling
from ingot.model.coded import CODES, Coded, coded, load_to_read
from ingot.model.codes import Kind
from ingot.model.decoder import Decoder
from ingot.model.huggingface import write_weights
from ingot.tokenizer.tokenizer import Tokenizer

KINDS: tuple[Kind, ...] = ("int8", "int4")
SHAKEN = 4  # times that the bound is measured; the largest counts


def write(folder: Path, model: Decoder, tokenizer: Tokenizer, kind: Kind) -> None:
    """Write what `ingot.load` reads, and what other programs refuse."""
    describe(folder, model.arch, tokenizer, torch.float32, kind)
    write_weights(dict(coded(model, kind).state_dict()), folder / CODES)


@torch.inference_mode()
def check(folder: Path, model: Decoder, tokenizer: Tokenizer, kind: Kind) -> Verdict:
    """Read the folder back as any other, and compare it with its source.

    Raises UserError where a code is not what was stored; where it writes not exactly what the source does by
    `quantize`, once that looks tokens up in the same table; and where it is further from the source in floats than
    rounding explains.
    """
    back, tokens = load_to_read(folder), Tokenizer.load(folder)
    codes = coded(model, kind)
    stored, found = codes.state_dict(), back.state_dict()
    same = back.arch == model.arch and stored.keys() == found.keys()
    if not same or not all(torch.equal(value, found[name]) for name, value in stored.items()):
        raise UserError("a code does not read back as it was written", where=str(folder), mend="tell us about it")
    own = own_reading(model, tokenizer)
    check_ids(own, [tokens.encode(text) for text in own.texts], "the folder")
    if "chat_template" in tokenizer.settings:
        check_chat(tokenizer, say(tokens), "the folder")
    written, logits = _reading(Generator(back, tokens, ends=()), own)
    expected = _reading(Generator(_looked_up(model, codes), tokenizer, ends=(), quantize=kind), own)
    if written != expected[0] or not torch.equal(logits, expected[1]):
        what = f"the folder does not write what its source does by --quantize {kind}"
        raise UserError(what, where="export", mend="nothing was written; tell us about it")
    bound = max(_apart(_shaken(model, codes, seed), own) for seed in range(SHAKEN))
    return judge(own, written, rate(logits, own.path, own.read) - own.rated, bound, f"the {kind} weights")


def _reading(generator: Generator, own: Own) -> tuple[list[int], Tensor]:
    """What a model writes after our prompt by the likeliest token, and its logits (positions, V) along our path."""
    sampling = Sampling(temperature=0, max_new_tokens=len(own.written))
    (made,) = generator.complete([own.path[: own.read]], [sampling])
    reader = generator.layout.reader(1, len(own.path))
    return list(made.ids), reader.read([Piece(0, 0, own.path, len(own.path))])


def _looked_up(model: Decoder, codes: Decoder) -> Decoder:
    """The model with tokens looked up in the table that its codes stand for; the head stays that of the floats."""
    made = copy.deepcopy(model, {id(parameter): parameter for parameter in model.parameters()})
    head = nn.Linear(model.arch.hidden_size, model.arch.vocabulary, bias=False, device="meta")
    head.weight = nn.Parameter(model.head_weight)
    made.embedding, made.head = nn.Embedding.from_pretrained(codes.embedding.weight), head
    return made


def _shaken(model: Decoder, codes: Decoder, seed: int) -> Decoder:
    """The model with every number that became a code off, up or down at random, by the most that rounding it may err.

    Rounding errs evenly between the two ends, whose root mean square is 1 / sqrt(3) of an end: so it moves the logits
    about 0.58 times as far as this does, whatever they amplify, and further only where the codes are wrong.
    """
    made, draw = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    for name, part in codes.named_modules():
        if isinstance(part, Coded):
            weight = made.get_parameter(f"{name}.weight")
            signs = 2 * torch.randint(2, weight.shape, generator=draw) - 1
            weight.add_(signs * part.read().most()[:, : part.columns])
    return made


def _apart(other: Decoder, own: Own) -> float:
    """How far the logits of another model are from ours along our path, as a share of their spread."""
    rated = rate(other(torch.tensor([own.path]))[0].float(), own.path, own.read)
    return float((rated - own.rated).square().mean().sqrt() / own.rated.std())
