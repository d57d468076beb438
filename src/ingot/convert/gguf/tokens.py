"""A tokenizer as GGUF's metadata, both ways: byte-level byte pairs ("gpt2" there) and SentencePiece's ("llama")."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, get_args

from ingot.convert.gguf.container import Container
from ingot.convert.pieces import Kind, Piece, describe_pieces, has_prefix, is_pieces, scores
from ingot.errors import UserError
from ingot.tokenizer.byte_pairs import SPLITS, byte_level, describe, pattern, pre_tokenizer
from ingot.tokenizer.chat import ChatTemplate
from ingot.tokenizer.tokenizer import Tokenizer

TYPES: dict[Kind, int] = {kind: number for number, kind in enumerate(get_args(Kind), 1)}
KINDS = {number: kind for kind, number in TYPES.items()}
KEY = "tokenizer.ggml."
WHOLE = "tokenizer.huggingface.json"  # the specification's place for a whole tokenizer.json
TEMPLATE = "tokenizer.chat_template"
ROLES = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
DIGITS_APART = "digits"  # GPT-2's cuts with every digit on its own, as SmolLM and StarCoder cut

# How text is cut, and whether a word that is a token is taken whole -> llama.cpp's names for just that, ours first.
NAMES: dict[tuple[str, bool], tuple[str, ...]] = {
    ("gpt2", False): ("gpt-2", "phi-2", "mpt", "olmo", "jais", "gigachat", "roberta-bpe"),
    ("qwen2", False): ("qwen2", "deepseek-r1-qwen", "stablelm2", "megrez"),
    ("llama3", False): ("dbrx", "smaug-bpe"),
    ("llama3", True): ("llama-bpe", "llama3", "llama-v3", "falcon3"),
    (DIGITS_APART, False): ("smollm", "starcoder", "refact", "command-r", "codeshell"),
}


def to_metadata(tokenizer: Tokenizer, vocabulary: int) -> dict[str, Any]:
    """The keys that describe `tokenizer` in a model of `vocabulary` tokens; those it lacks are filled up.

    Raises UserError that names the split pattern, or the kind of tokenizer, that llama.cpp has no name for.
    """
    description = json.loads(tokenizer.content)
    model = description["model"]
    names, types = _entries(description, tokenizer, vocabulary)
    found: dict[str, Any] = {f"{KEY}tokens": names, f"{KEY}token_type": types}
    if is_pieces(description):
        found |= {f"{KEY}model": "llama", f"{KEY}pre": "default", f"{KEY}scores": scores(description, vocabulary)}
        found[f"{KEY}add_space_prefix"] = bool(has_prefix(description))
    else:
        found |= {f"{KEY}model": "gpt2", f"{KEY}pre": pre_name(description)}
        found[f"{KEY}merges"] = [one if isinstance(one, str) else " ".join(one) for one in model["merges"]]
    return found | _special(tokenizer, description) | {WHOLE: tokenizer.content}


def pre_name(description: Mapping[str, Any]) -> str:
    """llama.cpp's name for the way a `tokenizer.json` cuts text. Raises UserError where it has none."""
    if description["model"]["type"] != "BPE" or description["decoder"] != _decoder(description):
        _refuse(f"a tokenizer of the kind {description['model']['type']}")
    normalizer = description.get("normalizer")
    if normalizer and normalizer != {"type": "NFC"}:  # llama.cpp leaves text as it is, and nearly all is in NFC
        _refuse(f"a tokenizer that changes text by {normalizer['type']}")
    cuts = description.get("pre_tokenizer")
    split = DIGITS_APART if cuts == _digits_apart(cuts) else None
    if split is None:
        known = {regex: name for name, regex in SPLITS.items()}
        split = known.get(pattern(cuts) or "")
    key = (split or "", bool(description["model"].get("ignore_merges")))
    if key not in NAMES:
        _refuse(f"a tokenizer that cuts text by {pattern(cuts) or cuts!r:.80}")
    return NAMES[key][0]


def from_metadata(file: Container) -> Tokenizer:
    """The tokenizer that a file describes. Raises UserError for one that is not whole, or of another kind."""
    given = file.metadata
    kind, tokens = given.get(f"{KEY}model"), given.get(f"{KEY}tokens")
    if kind not in ("gpt2", "llama") or not isinstance(tokens, list):
        file.refuse(f"its tokenizer is of the kind {kind!r:.40}, and gpt2 and llama are known here")
    numbers = given.get(f"{KEY}token_type")
    types = [TYPES["normal"]] * len(tokens) if numbers is None else list(map(int, numbers))
    if len(types) != len(tokens):
        file.refuse(f"{len(tokens):,} tokens have {len(types):,} types")
    kinds: list[Kind] = [KINDS.get(number, "normal") for number in types]
    while kinds and kinds[-1] == "unused":  # what only fills up the embedding
        kinds.pop()
    entries = list(zip(tokens, kinds, strict=False))
    settings = _settings(given, tokens)
    content = given.get(WHOLE)
    if isinstance(content, str) and _agrees(content, entries):
        return Tokenizer(content, settings, where=str(file.path))
    described = _from_pieces(file, entries) if kind == "llama" else _from_merges(file, entries)
    return Tokenizer(described, settings, where=str(file.path))


def _entries(description: Mapping[str, Any], tokenizer: Tokenizer, vocabulary: int) -> tuple[list[str], list[int]]:
    added = {token["id"]: token for token in description["added_tokens"]}
    names = {token: name for name, token in description["model"]["vocab"].items()}
    names |= {token: one["content"] for token, one in added.items()}
    bytes_apart, unknown = is_pieces(description), description["model"].get("unk_token")
    types = []
    for token in range(vocabulary):
        kind: Kind = "normal"
        if token not in names:
            kind, names[token] = "unused", f"[PAD{token}]"
        elif names[token] == unknown:
            kind = "unknown"
        elif token in added:
            kind = "control" if added[token]["special"] else "user"
        elif bytes_apart and re.fullmatch(r"<0x[0-9A-F]{2}>", names[token]):
            kind = "byte"
        types.append(TYPES[kind])
    return [names[token] for token in range(vocabulary)], types


def _special(tokenizer: Tokenizer, description: Mapping[str, Any]) -> dict[str, Any]:
    named = {key: value for key, value in tokenizer.settings.items() if key.endswith("_token")}
    contents = {key: one["content"] if isinstance(one, Mapping) else one for key, one in named.items()}
    ids = {key: tokenizer.special[one] for key, one in contents.items() if one in tokenizer.special}
    ids["eos_token"] = tokenizer.end
    found: dict[str, Any] = {f"{KEY}{theirs}_token_id": ids[ours] for ours, theirs in ROLES.items() if ours in ids}
    found[f"{KEY}add_bos_token"] = bool(tokenizer.settings.get("add_bos_token", "bos_token" in ids))
    found[f"{KEY}add_eos_token"] = False
    template = tokenizer.settings.get("chat_template")
    if isinstance(template, str):
        found[TEMPLATE] = _without_generation(template)
        ends = [stop for stop in ChatTemplate.of(tokenizer).stops if stop != tokenizer.end]
        found |= {f"{KEY}eot_token_id": ends[0]} if ends else {}
    return found


def _without_generation(template: str) -> str:
    """The template without the marks around what is learned, which other programs may not know."""
    return re.sub(r"\{%([-+]?)\s*(?:end)?generation\s*([-+]?)%\}", r"{#\1 \2#}", template)


def _settings(given: Mapping[str, Any], tokens: Sequence[str]) -> dict[str, Any]:
    """tokenizer_config.json by the special tokens that a file names."""
    settings: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    for ours, theirs in ROLES.items():
        token = given.get(f"{KEY}{theirs}_token_id")
        if isinstance(token, int) and 0 <= token < len(tokens):
            settings[ours] = tokens[token]
    for key, theirs, kind in (("add_bos_token", f"{KEY}add_bos_token", bool), ("chat_template", TEMPLATE, str)):
        if isinstance(given.get(theirs), kind):
            settings[key] = given[theirs]
    return settings


def _agrees(content: str, entries: Sequence[tuple[str, Kind]]) -> bool:
    """Whether a whole tokenizer.json in a file has the tokens that the file lists."""
    try:
        description = json.loads(content)
        names = {token: name for name, token in description["model"]["vocab"].items()}
        names |= {token["id"]: token["content"] for token in description["added_tokens"]}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False
    return names == {token: name for token, (name, kind) in enumerate(entries) if kind != "unused"}


def _from_pieces(file: Container, entries: Sequence[tuple[str, Kind]]) -> str:
    values = file.metadata.get(f"{KEY}scores")
    if values is None or len(values) < len(entries):
        file.refuse("the tokenizer's pieces have no scores")
    pieces = [Piece(name, float(score), kind) for (name, kind), score in zip(entries, values, strict=False)]
    prefix = file.metadata.get(f"{KEY}add_space_prefix", True)
    return describe_pieces(pieces, prefix=bool(prefix), where=str(file.path))


def _from_merges(file: Container, entries: Sequence[tuple[str, Kind]]) -> str:
    pre, merges = file.metadata.get(f"{KEY}pre"), file.metadata.get(f"{KEY}merges")
    key = next((key for key, names in NAMES.items() if pre in names), None)
    if key is None or not isinstance(merges, list):
        file.refuse(f"its tokenizer cuts text as {pre!r:.40} does, which is not known here")
    split, whole_words = key
    cuts = pre_tokenizer(split) if split in SPLITS else _digits_apart({})
    vocabulary = {name: token for token, (name, kind) in enumerate(entries) if kind == "normal"}
    special = {name: token for token, (name, kind) in enumerate(entries) if kind in ("control", "unknown", "user")}
    pairs = [merge.split(" ") for merge in merges]
    if any(len(pair) != 2 or not {*pair, "".join(pair)} <= vocabulary.keys() for pair in pairs):
        file.refuse("a merge of the tokenizer makes no token")
    described = json.loads(describe(vocabulary, pairs, cuts, special))
    described["model"]["ignore_merges"] = whole_words
    user = {name for name, kind in entries if kind == "user"}
    for token in described["added_tokens"]:
        token["special"] = token["content"] not in user
    return json.dumps(described, indent=1, ensure_ascii=False) + "\n"


def _digits_apart(cuts: Any) -> dict[str, Any]:
    """The pre-tokenizer of SmolLM; as `cuts` says where white space counts in offsets, which changes no token."""
    steps = cuts.get("pretokenizers", []) if isinstance(cuts, Mapping) else []
    trim = steps[-1].get("trim_offsets", True) if steps else True
    return {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Digits", "individual_digits": True},
            byte_level(use_regex=True) | {"trim_offsets": trim},
        ],
    }


def _decoder(description: Mapping[str, Any]) -> Any:
    """The decoder as it stands, where it is that of bytes."""
    decoder = description.get("decoder") or {}
    return decoder if decoder.get("type") == "ByteLevel" else None


def _refuse(what: str) -> NoReturn:
    mend = "export it to huggingface or onnx"
    raise UserError(f"llama.cpp has no name for {what}", where="export to gguf", mend=mend)
