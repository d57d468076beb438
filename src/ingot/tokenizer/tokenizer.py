"""One type over every tokenizer that a `tokenizer.json` describes: text to ids and back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from numpy.typing import NDArray

from ingot.errors import UserError
from ingot.files import write_atomically
from ingot.tokenizer.spelling import pieces, probe

END = "<|endoftext|>"  # GPT-2's name for the token that parts documents


class Tokenizer:
    """A `tokenizer.json` and the `tokenizer_config.json` beside it, kept as they were read.

    Text can't forge special tokens: `encode` reads the characters of `<|endoftext|>` as plain text. Whoever needs a
    special token takes its id from `special`. A tokenizer that is `exact` gives any text back as it was, such as every
    byte-level one; others, of words say, lose case, spaces or rare characters.
    """

    def __init__(self, content: str, settings: Mapping[str, Any] | None = None, where: str = "tokenizer.json"):
        """`content` is that of tokenizer.json. Raises UserError for what is no tokenizer, or not one to train with."""
        self.content = content
        self.settings = dict(settings or {})
        try:
            self._read(content, where)
        except (UserError, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # the library raises bare Exception, and panics by what is not even that
            what = f"not a tokenizer ({type(error).__name__}: {error!s:.200})"
            raise UserError(what, where=where, mend="point at a whole tokenizer.json") from None

    def _read(self, content: str, where: str) -> None:
        description = json.loads(content)
        added = description["added_tokens"]
        self.special: dict[str, int] = {token["content"]: token["id"] for token in added if token["special"]}
        self._pieces = pieces(description, self._encoder.get_vocab(with_added_tokens=False), where)
        self.vocabulary: int = len(self._pieces)  # the highest id + 1: the size that an embedding needs
        self.end: int = self._end(where)  # leads every document, and so also ends the one before
        self.dtype: np.dtype[Any] = np.dtype("<u2" if self.vocabulary <= 2**16 else "<u4")
        self.fingerprint: str = hashlib.sha256(content.encode()).hexdigest()
        self._prefix = self.decode_bytes(self.encode("a")).startswith(b" ")  # some put a space before every text
        self.exact: bool = self.decode(self.encode(probe())) == probe()

    @classmethod
    def load(cls, path: Path | str, end: str = "") -> Tokenizer:
        """The tokenizer in a folder that holds `tokenizer.json`, or in such a file; `end` names its end token anew."""
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
        template = file.with_name("chat_template.jinja")  # where newer folders keep it
        if "chat_template" not in settings and template.exists():
            settings["chat_template"] = template.read_text(encoding="utf-8")
        if end:
            settings["eos_token"] = end
        return cls(content, settings, where=str(file))

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json`, as transformers loads them."""
        write_atomically(folder / "tokenizer.json", self.content)
        settings = json.dumps(self.settings, indent=2, ensure_ascii=False, sort_keys=True)
        write_atomically(folder / "tokenizer_config.json", settings + "\n")

    def encode(self, text: str) -> list[int]:
        """The ids of `text`. Raises UserError for half a surrogate pair, which is not a character."""
        refuse_surrogates([text])
        return self._encoder.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[NDArray[Any]]:
        """The ids of each text as an array of `dtype`; on all cores."""
        refuse_surrogates(texts)
        found = self._encoder.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(encoding.ids, dtype=self.dtype) for encoding in found]

    def decode(self, ids: Iterable[int], skip_special: bool = False) -> str:
        """The text of `ids`; bytes that are no whole character become U+FFFD. Special tokens are shown or skipped.

        The space that some tokenizers put before every text is taken away again.
        """
        text = self.decode_bytes(ids, skip_special).decode("utf-8", errors="replace")
        return text.removeprefix(" ") if self._prefix else text

    def decode_bytes(self, ids: Iterable[int], skip_special: bool = False) -> bytes:
        """The UTF-8 bytes of `ids`, which may end within a character."""
        if skip_special:
            special = set(self.special.values())
            ids = (token for token in ids if token not in special)
        return b"".join(map(self._pieces.__getitem__, ids))

    def token_bytes(self) -> NDArray[np.int64]:
        """How many bytes of text each id stands for, (vocabulary,); special tokens stand for none.

        A document's ids and the end token that leads it add up to the bytes of its text: where every text is given a
        space at its front, the end token counts -1. What is not `exact` stands for no bytes at all: a loss in bits per
        byte would flatter it.
        """
        if not self.exact:
            return np.zeros(self.vocabulary, np.int64)
        sizes = np.array([len(piece) for piece in self._pieces], dtype=np.int64)
        sizes[list(self.special.values())] = 0
        sizes[self.end] = -self._prefix
        return sizes

    def _end(self, where: str) -> int:
        named = self.settings.get("document_token") or self.settings.get("eos_token") or END
        name = named["content"] if isinstance(named, Mapping) else named
        if name not in self.special:
            what = f"the token {name!r}, which parts documents, is no special token here"
            some = ", ".join(list(self.special)[:5]) or "none"
            mend = f"name one as eos_token in tokenizer_config.json; special here: {some}"
            raise UserError(what, where=where, mend=mend)
        return self.special[name]

    @cached_property
    def _encoder(self) -> tokenizers.Tokenizer:
        made = tokenizers.Tokenizer.from_str(self.content)
        made.encode_special_tokens = True
        made.no_padding()
        made.no_truncation()
        return made

    def __getstate__(self) -> dict[str, Any]:
        """All but the library's own: another process builds it when it first needs it."""
        return {name: value for name, value in vars(self).items() if name != "_encoder"}


def refuse_surrogates(texts: Sequence[str]) -> None:
    """Raises UserError for a text with half a surrogate pair."""
    for text in texts:
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            what = f"character {error.start:,} of the text is half a surrogate pair, which UTF-8 can't hold"
            raise UserError(what, where="text to encode", mend="remove it, or decode the text anew") from None
