"""What each id of a vocabulary spells: the bytes that it puts into a text."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ingot.errors import UserError

MOST = 2**24  # tokens of any tokenizer


def utf8_size(text: str) -> int:
    """Bytes of a text; what is ASCII alone need not be encoded for it."""
    return len(text) if text.isascii() else len(text.encode())


def pieces(description: Mapping[str, Any], vocabulary: Mapping[str, int], where: str) -> list[bytes]:
    """The bytes of each id, by the decoder that a `tokenizer.json` names. Raises UserError for an unknown one."""
    steps = list(_steps(description.get("decoder")))
    kinds = [step["type"] for step in steps]
    known = next((kind for kind in SPELLINGS if kind in kinds), "" if not kinds else None)
    if known is None:
        what = f"a tokenizer with the decoder {'+'.join(kinds)}, whose ids spell nothing that is known here"
        raise UserError(what, where=where, mend=f"use a tokenizer with one of: {', '.join(filter(None, SPELLINGS))}")
    spell = SPELLINGS[known](steps)
    found = {token: spell(name) for name, token in vocabulary.items()}
    unknown = description["model"].get("unk_token")  # stands for a word, and is spelled as one
    added = (token for token in description["added_tokens"] if token["content"] != unknown)
    found |= {token["id"]: token["content"].encode() for token in added}
    size = max(found, default=-1) + 1
    if size > MOST:
        raise UserError(f"a token has the number {size - 1:,}", where=where, mend="point at a whole tokenizer.json")
    return [found.get(token, b"") for token in range(size)]


def _steps(decoder: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    """The decoders that a description names, those in a sequence one by one."""
    if decoder and decoder["type"] == "Sequence":
        for step in decoder["decoders"]:
            yield from _steps(step)
    elif decoder:
        yield decoder


Spell = Callable[[str], bytes]
Steps = list[Mapping[str, Any]]


def byte_alphabet() -> dict[str, int]:
    """GPT-2's visible character for each byte: printable Latin-1 stands for itself, the rest follows from U+0100."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in set(visible)]
    return {chr(byte): byte for byte in visible} | {chr(256 + place): byte for place, byte in enumerate(hidden)}


def _byte_level(steps: Steps) -> Spell:
    alphabet = byte_alphabet()

    def spell(name: str) -> bytes:
        try:
            return bytes(map(alphabet.__getitem__, name))
        except KeyError:
            return name.encode()

    return spell


def _byte_fallback(steps: Steps) -> Spell:
    """SentencePiece's: `<0x0A>` is a byte, and one character stands for the space."""
    plain = _spaced(steps)
    codes = {f"<0x{byte:02X}>": bytes([byte]) for byte in range(256)}
    return lambda name: codes.get(name) or plain(name)


def _spaced(steps: Steps) -> Spell:
    shown = [(step["pattern"]["String"], step["content"]) for step in steps if step["type"] == "Replace"]
    shown += [(step["replacement"], " ") for step in steps if step["type"] == "Metaspace"]

    def spell(name: str) -> bytes:
        for seen, meant in shown:
            name = name.replace(seen, meant)
        return name.encode()

    return spell


def _word_pieces(steps: Steps) -> Spell:
    (prefix,) = (step["prefix"] for step in steps if step["type"] == "WordPiece")
    return lambda name: (name.removeprefix(prefix) if name.startswith(prefix) else f" {name}").encode()


def _suffixed(steps: Steps) -> Spell:
    (suffix,) = (step["suffix"] for step in steps if step["type"] == "BPEDecoder")
    return lambda name: (f"{name.removesuffix(suffix)} " if name.endswith(suffix) else name).encode()


def _words(steps: Steps) -> Spell:
    return lambda name: f" {name}".encode()


# One row adds a kind of vocabulary. The first whose decoder a tokenizer names is its own; none: words.
SPELLINGS: dict[str, Callable[[Steps], Spell]] = {
    "ByteLevel": _byte_level,
    "ByteFallback": _byte_fallback,
    "Metaspace": _spaced,
    "WordPiece": _word_pieces,
    "BPEDecoder": _suffixed,
    "": _words,
}


def probe() -> str:
    """A text that comes back only from a tokenizer that loses nothing: neither case nor width, no space, no byte.

    It is in Unicode's form NFC, so that a tokenizer which brings text into that form counts as one that loses nothing.
    """
    heads = [*range(0x80, 0x100), *range(0x100, 0x800, 0x40), *range(0x800, 0x10000, 0x400)]  # each byte there is
    heads += range(0x10000, 0x110000, 0x10000)
    letters = [next(filter(_stable, map(chr, range(head, head + 0x40))), "") for head in heads]
    return "Ab  cD\n\n\t x\x00.\r\n ﬁ①Ａé½ " + "a".join(letters) + " ...  "


def _stable(character: str) -> bool:
    return unicodedata.is_normalized("NFC", f"a{character}a") and unicodedata.category(character) != "Cs"
