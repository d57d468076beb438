"""One type over every byte-level tokenizer: text to ids and back, exact for any Unicode string."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from numpy.typing import NDArray

from ingot.errors import UserError
from ingot.files import write_atomically

END = "<|endoftext|>"  # GPT-2's name for the token that parts documents


class Tokenizer:
    """A `tokenizer.json` and the `tokenizer_config.json` beside it, kept as they were read.

    Text can't forge special tokens: `encode` reads the characters of `<|endoftext|>` as plain text. Whoever needs a
    special token takes its id from `special`.
    """

    def __init__(self, content: str, settings: Mapping[str, Any] | None = None, where: str = "tokenizer.json"):
        """`content` is that of tokenizer.json. Raises UserError for what is no tokenizer, or not a byte-level one."""
        self.content = content
        self.settings = dict(settings or {})
        try:
            self._encoder = tokenizers.Tokenizer.from_str(content)
        except Exception as error:  # the library raises bare Exception
            raise UserError(f"not a tokenizer ({error})", where=where, mend="point at a whole tokenizer.json") from None
        self._encoder.encode_special_tokens = True
        self._encoder.no_padding()
        self._encoder.no_truncation()
        description = json.loads(content)
        added = description["added_tokens"]
        self.special: dict[str, int] = {token["content"]: token["id"] for token in added if token["special"]}
        self._pieces = _pieces(description, self._encoder.get_vocab(with_added_tokens=False), where)
        self.vocabulary: int = len(self._pieces)  # the highest id + 1: the size that an embedding needs
        self.end: int = self._end(where)  # leads every document, and so also ends the one before
        self.dtype: np.dtype[Any] = np.dtype("<u2" if self.vocabulary <= 2**16 else "<u4")
        self.fingerprint: str = hashlib.sha256(content.encode()).hexdigest()

    @classmethod
    def load(cls, path: Path | str) -> Tokenizer:
        """The tokenizer in a folder that holds `tokenizer.json`, or in such a file."""
        path = Path(path)
        file = path / "tokenizer.json" if path.is_dir() else path
        try:
            content = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8"
            mend = "point at a folder that holds one"
            raise UserError(f"no tokenizer can be read here ({reason})", where=str(file), mend=mend) from None
        beside = file.with_name("tokenizer_config.json")
        try:
            settings = json.loads(beside.read_bytes()) if beside.exists() else {}
        except ValueError as error:
            raise UserError(f"not valid JSON: {error}", where=str(beside), mend="mend or remove the file") from None
        return cls(content, settings, where=str(file))

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json`, as transformers loads them."""
        write_atomically(folder / "tokenizer.json", self.content)
        settings = json.dumps(self.settings, indent=2, ensure_ascii=False, sort_keys=True)
        write_atomically(folder / "tokenizer_config.json", settings + "\n")

    def encode(self, text: str) -> list[int]:
        """The ids of `text`. Raises UserError for half a surrogate pair, which is not a character."""
        _refuse_surrogates([text])
        return self._encoder.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[NDArray[Any]]:
        """The ids of each text as an array of `dtype`; on all cores."""
        _refuse_surrogates(texts)
        found = self._encoder.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(encoding.ids, dtype=self.dtype) for encoding in found]

    def decode(self, ids: Iterable[int], skip_special: bool = False) -> str:
        """The text of `ids`; bytes that are no whole character become U+FFFD. Special tokens are shown or skipped."""
        return self.decode_bytes(ids, skip_special).decode("utf-8", errors="replace")

    def decode_bytes(self, ids: Iterable[int], skip_special: bool = False) -> bytes:
        """The UTF-8 bytes of `ids`, which may end within a character."""
        if skip_special:
            special = set(self.special.values())
            ids = (token for token in ids if token not in special)
        return b"".join(map(self._pieces.__getitem__, ids))

    def token_bytes(self) -> NDArray[np.int64]:
        """How many bytes of text each id stands for, (vocabulary,); special tokens stand for none."""
        sizes = np.array([len(piece) for piece in self._pieces], dtype=np.int64)
        sizes[list(self.special.values())] = 0
        return sizes

    def _end(self, where: str) -> int:
        named = self.settings.get("eos_token") or END
        name = named["content"] if isinstance(named, Mapping) else named
        if name not in self.special:
            what = f"the token {name!r}, which parts documents, is no special token here"
            raise UserError(what, where=where, mend="name one as eos_token in tokenizer_config.json")
        return self.special[name]

    def __reduce__(self) -> tuple[Any, ...]:
        return Tokenizer, (self.content, self.settings)


def _refuse_surrogates(texts: Sequence[str]) -> None:
    for text in texts:
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            what = f"character {error.start:,} of the text is half a surrogate pair, which UTF-8 can't hold"
            raise UserError(what, where="text to encode", mend="remove it, or decode the text anew") from None


def _pieces(description: Mapping[str, Any], vocabulary: Mapping[str, int], where: str) -> list[bytes]:
    """The bytes of each id. The decoder that the tokenizer names says how its vocabulary spells them."""
    decoder = (description.get("decoder") or {}).get("type")
    if decoder not in SPELLINGS:
        what = f"a tokenizer with the decoder {decoder!r}; ids of such a one have no exact bytes"
        raise UserError(what, where=where, mend=f"use a tokenizer with one of: {', '.join(SPELLINGS)}")
    spell = SPELLINGS[decoder]
    pieces = {token: spell(name) for name, token in vocabulary.items()}
    pieces |= {token["id"]: token["content"].encode() for token in description["added_tokens"]}
    return [pieces.get(token, b"") for token in range(max(pieces) + 1)]


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's visible character for each byte: printable Latin-1 stands for itself, the rest follows from U+0100."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in set(visible)]
    return {chr(byte): byte for byte in visible} | {chr(256 + place): byte for place, byte in enumerate(hidden)}


_BYTES = _byte_alphabet()


def _byte_level(name: str) -> bytes:
    return bytes(map(_BYTES.__getitem__, name))


SPELLINGS: dict[str, Callable[[str], bytes]] = {"ByteLevel": _byte_level}  # one row adds a kind of vocabulary
