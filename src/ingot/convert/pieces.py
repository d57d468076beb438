"""SentencePiece's byte pairs, as Llama 2, Mistral and llama2.c keep them: pieces with scores."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ingot.errors import UserError

SPACE = "\N{LOWER ONE EIGHTH BLOCK}"  # how SentencePiece shows a space
LONGEST_PIECE = 512  # characters; the longest of Llama's has 48
Kind = Literal["normal", "unknown", "control", "user", "unused", "byte"]


@dataclass(frozen=True)
class Piece:
    """One entry of a vocabulary; of two pairs the one that makes the piece with the higher score is merged first."""

    text: str
    score: float
    kind: Kind


def byte_name(byte: int) -> str:
    """How SentencePiece spells a byte that no piece covers."""
    return f"<0x{byte:02X}>"


def describe_pieces(pieces: Sequence[Piece], *, prefix: bool, where: str) -> str:
    """The content of a `tokenizer.json` that encodes as SentencePiece does; `prefix`: a space before every text.

    Raises UserError for pieces that spell nothing twice, are absurdly long, or lack a byte or the unknown one.
    """
    vocabulary = {piece.text: token for token, piece in enumerate(pieces)}
    mend = "fetch the file anew"
    if len(vocabulary) < len(pieces):
        raise UserError("a piece stands twice in the vocabulary", where=where, mend=mend)
    if any(len(piece.text) > LONGEST_PIECE for piece in pieces):
        raise UserError(f"a piece of more than {LONGEST_PIECE} characters", where=where, mend=mend)
    if missing := [name for name in map(byte_name, range(256)) if name not in vocabulary]:
        raise UserError(f"the vocabulary lacks the byte {missing[0]}", where=where, mend=mend)
    unknown = next((piece.text for piece in pieces if piece.kind == "unknown"), None)
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    added = [
        {"id": token, "content": piece.text, "special": piece.kind != "user"} | flags
        for token, piece in enumerate(pieces)
        if piece.kind in ("control", "unknown", "user")
    ]
    shown = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    normalizers = [{"type": "Prepend", "prepend": SPACE}, shown] if prefix else [shown]
    decoders = [
        {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
        *([{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefix else []),
    ]
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": unknown,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": True,
        "byte_fallback": True,
        "ignore_merges": False,
        "vocab": vocabulary,
        "merges": _merges(pieces, vocabulary),
    }
    described = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": model,
    }
    return json.dumps(described, indent=1, ensure_ascii=False) + "\n"


def _merges(pieces: Sequence[Piece], vocabulary: Mapping[str, int]) -> list[list[str]]:
    """Every pair of pieces that makes a third, in the order of that one's score, highest first."""
    found: list[tuple[float, int, int, str, str]] = []
    for piece in pieces:
        if piece.kind != "normal":
            continue
        halves = ((piece.text[:cut], piece.text[cut:]) for cut in range(1, len(piece.text)))
        pairs = [(left, right) for left, right in halves if left in vocabulary and right in vocabulary]
        found += [(-piece.score, vocabulary[left], vocabulary[right], left, right) for left, right in pairs]
    return [[left, right] for _, _, _, left, right in sorted(found, key=lambda pair: pair[:3])]


def is_pieces(description: Mapping[str, Any]) -> bool:
    """Whether a `tokenizer.json` describes what `describe_pieces` writes: byte pairs with bytes for unknown letters."""
    model = description["model"]
    return model["type"] == "BPE" and bool(model.get("byte_fallback")) and has_prefix(description) is not None


def has_prefix(description: Mapping[str, Any]) -> bool | None:
    """Whether a space is put before every text; None: what is done to a text is not SentencePiece's."""
    normalizer, split = description.get("normalizer"), description.get("pre_tokenizer")
    if split and split["type"] == "Metaspace" and not normalizer:
        return split.get("prepend_scheme", "always") != "never"
    steps = (normalizer or {}).get("normalizers", [normalizer] if normalizer else [])
    kinds = [step["type"] for step in steps]
    return {("Prepend", "Replace"): True, ("Replace",): False}.get(tuple(kinds)) if not split else None


def scores(description: Mapping[str, Any], size: int) -> list[float]:
    """A score for each of `size` ids such that SentencePiece merges in the order of a `tokenizer.json`'s merges."""
    found = [-float(size)] * size
    vocabulary, merges = description["model"]["vocab"], description["model"]["merges"]
    pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in merges)
    for rank, merged in enumerate(dict.fromkeys("".join(pair) for pair in pairs)):
        found[vocabulary[merged]] = -float(rank)
    return found
