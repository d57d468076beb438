"""Byte-level byte-pair encoding as a `tokenizer.json` describes it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

# How text is cut before pairs are merged: no token crosses a cut. Each is a pattern of a well-known model, so that fast
# encoders and llama.cpp know it; they differ in how they treat digits, contractions and white space.
SPLITS = {
    "gpt2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "llama3": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
    "qwen2": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
}


def byte_level(use_regex: bool) -> dict[str, Any]:
    """The step that spells bytes as visible characters, as `tokenizer.json` describes it; with GPT-2's cuts or none."""
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


def pre_tokenizer(split: str) -> dict[str, Any]:
    """What `tokenizer.json` says of byte-level text that is cut by one of `SPLITS`; GPT-2's as GPT-2 says it."""
    if split == "gpt2":
        return byte_level(use_regex=True)
    pattern = {"type": "Split", "pattern": {"Regex": SPLITS[split]}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [pattern, byte_level(use_regex=False)]}


def pattern(described: Mapping[str, Any] | None) -> str | None:
    """The pattern by which a pre-tokenizer cuts byte-level text; None: it does something else, or more."""
    if described == byte_level(use_regex=True):
        return SPLITS["gpt2"]
    steps = (described or {}).get("pretokenizers", [])
    if len(steps) != 2 or steps[1] | {"trim_offsets": True} != byte_level(use_regex=False):
        return None
    isolates = steps[0].get("behavior") == "Isolated" and not steps[0].get("invert")
    return steps[0]["pattern"].get("Regex") if steps[0]["type"] == "Split" and isolates else None


def describe(
    vocabulary: Mapping[str, int],
    merges: Sequence[Sequence[str]],
    pre_tokenizer: Mapping[str, Any],
    special_tokens: Mapping[str, int],
    normalizer: Mapping[str, Any] | None = None,
) -> str:
    """The content of a `tokenizer.json` of byte pairs."""
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False) | {"special": True}
    added = [{"id": token, "content": name} | flags for name, token in special_tokens.items()]
    unused = dict.fromkeys(("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"))
    switches = dict.fromkeys(("fuse_unk", "byte_fallback", "ignore_merges"), False)
    described = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": None,
        "decoder": byte_level(use_regex=True),
        "model": {"type": "BPE", **unused, **switches, "vocab": vocabulary, "merges": merges},
    }
    return json.dumps(described, indent=1, ensure_ascii=False) + "\n"
