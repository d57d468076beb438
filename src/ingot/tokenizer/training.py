"""How a run comes by its tokenizer: the kinds that a recipe can name."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from ingot.config.config import Choice
from ingot.errors import UserError
from ingot.tokenizer.byte_pairs import describe, pre_tokenizer
from ingot.tokenizer.foreign import GPT2_TOKENS, find, gpt2
from ingot.tokenizer.spelling import probe
from ingot.tokenizer.template import ROLE_TOKENS, TEMPLATE
from ingot.tokenizer.tokenizer import END, Tokenizer

if TYPE_CHECKING:
    import tokenizers


DISTINCT = 12_000_000  # characters; trainers take about 100 bytes of memory for each of a word they had not met


class Bounded:
    """Texts up to where their distinct words would outgrow a trainer's memory: 1.3 GB, and so for any language.

    `bytes` and `full` tell, once they are read, how much text it was and whether some was left out.
    """

    def __init__(self, texts: Iterable[str], distinct: int = DISTINCT):
        self._texts, self._left = texts, distinct
        self.bytes, self.full = 0, False

    def __iter__(self) -> Iterator[str]:
        met: set[int] = set()
        for text in self._texts:
            if self.full:
                return
            new = {key: len(word) for word in set(text.split()) if (key := hash(word)) not in met}
            met |= new.keys()
            if sum(new.values()) > self._left:
                text, self.full = text[: self._left], True
            self._left -= sum(new.values())
            self.bytes += len(text.encode())
            yield text


class TokenizerConfig(Choice):
    """A way to come by a tokenizer."""

    @property
    def text_bytes(self) -> int:
        """How much text `train` wants, in bytes; 0: none, the tokenizer is there already."""
        return 0

    @abstractmethod
    def train(self, texts: Iterator[str]) -> Tokenizer:
        """A tokenizer from `texts`, which are read once; the same texts give the same tokenizer."""


class BPE(TokenizerConfig, name="bpe"):
    """Byte-level byte-pair encoding (Sennrich et al., 2016, arXiv:1508.07909; on bytes as in GPT-2)."""

    vocabulary: int = 8192
    """Number of tokens, the 256 bytes and the special tokens among them; fewer when the text has no more to merge."""
    min_frequency: int = Field(default=2, ge=1)
    """How often a pair must occur to become a token."""
    split: Literal["gpt2", "llama3", "qwen2"] = "qwen2"
    """The model whose pattern cuts text into words before merging."""
    special_tokens: tuple[str, ...] = (END, "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
    """Tokens that no text can contain. The first one leads every document; the others are kept for chat."""
    train_bytes: int = Field(default=100_000_000, ge=1)
    """Bytes of text to train on, taken evenly over the sources."""

    @model_validator(mode="after")
    def _check(self) -> BPE:
        if not self.special_tokens or len(set(self.special_tokens)) < len(self.special_tokens):
            raise ValueError("special_tokens must be one or more different words; name each once")
        if "" in self.special_tokens:
            raise ValueError("a special token must not be empty; give it a name")
        least = 256 + len(self.special_tokens)
        if self.vocabulary < least:
            raise ValueError(
                f"a vocabulary of {self.vocabulary} can't hold 256 bytes and the special tokens; try {least}"
            )
        return self

    @property
    def text_bytes(self) -> int:
        """As the recipe says."""
        return self.train_bytes

    def train(self, texts: Iterator[str]) -> Tokenizer:
        """Merge the most frequent pairs of `texts`. Raises UserError where there is no text at all."""
        import tokenizers
        from tokenizers import pre_tokenizers, trainers

        encoder = tokenizers.Tokenizer.from_str(describe({}, [], pre_tokenizer(self.split), {}))
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocabulary,
            min_frequency=self.min_frequency,
            special_tokens=list(self.special_tokens),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        encoder.train_from_iterator(_some(texts), trainer=trainer)
        end = self.special_tokens[0]
        return _assembled(encoder, bos_token=end, eos_token=end, pad_token=end)


class Words(TokenizerConfig, name="word"):
    """Whole words and marks, split at white space; what is rare or spaced is lost, so there are no bits per byte."""

    vocabulary: int = Field(default=30_000, ge=5)
    """Number of tokens, the four special ones among them; fewer when the text has no more."""
    min_frequency: int = Field(default=2, ge=1)
    """How often a word must occur to become a token; any other is read as [UNK]."""
    normalize: Literal["none", "nfc", "nfkc"] = "nfc"
    """Unicode form that text is brought into first."""
    lowercase: bool = True
    """Whether upper and lower case are one."""
    train_bytes: int = Field(default=100_000_000, ge=1)
    """Bytes of text to find words in, taken evenly over the sources."""

    @property
    def text_bytes(self) -> int:
        """As the recipe says."""
        return self.train_bytes

    def train(self, texts: Iterator[str]) -> Tokenizer:
        """The most frequent words of `texts`. Raises UserError where there is no text at all."""
        import tokenizers
        from tokenizers import models, normalizers, pre_tokenizers, trainers

        encoder = tokenizers.Tokenizer(models.WordLevel({}, unk_token="[UNK]"))
        forms = {"none": None, "nfc": normalizers.NFC(), "nfkc": normalizers.NFKC()}
        steps = [forms[self.normalize], normalizers.Lowercase() if self.lowercase else None]
        encoder.normalizer = normalizers.Sequence([step for step in steps if step])
        encoder.pre_tokenizer = pre_tokenizers.Whitespace()
        trainer = trainers.WordLevelTrainer(
            vocab_size=self.vocabulary,
            min_frequency=self.min_frequency,
            special_tokens=["[PAD]", "[UNK]", "[BOS]", "[EOS]"],
            show_progress=False,
        )
        encoder.train_from_iterator(_some(texts), trainer=trainer)
        return _assembled(encoder, pad_token="[PAD]", unk_token="[UNK]", bos_token="[BOS]", eos_token="[EOS]")


class GPT2(TokenizerConfig, name="gpt2"):
    """GPT-2's own 50,257 tokens (Radford et al., 2019), from the hub or from `encoder.json` and `vocab.bpe`."""

    vocabulary: ClassVar[int] = GPT2_TOKENS

    folder: Path | None = None
    """Folder that holds encoder.json and vocab.bpe, or the same as vocab.json and merges.txt; none: the hub."""

    def train(self, texts: Iterator[str]) -> Tokenizer:
        """It is there already. Raises UserError where it can't be read, or is not GPT-2's."""
        return gpt2(self.folder)


class TokenizerFile(TokenizerConfig, name="file"):
    """The tokenizer of another model: a `tokenizer.json`, a folder that holds one, or a model's name on the hub."""

    path: str
    """The file, the folder, or owner/name on the hub."""
    revision: str = ""
    """Branch, tag or commit on the hub; none: the newest."""
    end: str = ""
    """The special token that leads every document; none: the one that tokenizer_config.json names as eos_token."""

    def train(self, texts: Iterator[str]) -> Tokenizer:
        """It is there already. Raises UserError where it can't be read."""
        return Tokenizer.load(find(self.path, self.revision), self.end)


def inherited(folder: Path, asked: TokenizerConfig) -> TokenizerFile:
    """The tokenizer of the model in `folder`, for a run that starts from that model; one yet to be trained gives way.

    Raises UserError where `asked` is another one, which is there already.
    """
    if not asked.text_bytes and not _alike(asked.train(iter(())), Tokenizer.load(folder)):
        what = "the recipe names another tokenizer than that of the model to start from"
        raise UserError(what, where="tokenizer", mend="leave it out: the model's own is taken")
    return TokenizerFile(path=str(folder))


def _alike(one: Tokenizer, other: Tokenizer) -> bool:
    """Whether two tokenizers give the same ids, and the same text for them, however their files are written."""
    if one.fingerprint == other.fingerprint:
        return True
    if (one.vocabulary, one.end) != (other.vocabulary, other.end) or one.encode(probe()) != other.encode(probe()):
        return False
    return all(one.decode_bytes([token]) == other.decode_bytes([token]) for token in range(one.vocabulary))


def _assembled(encoder: tokenizers.Tokenizer, **named: str) -> Tokenizer:
    settings: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    if ROLE_TOKENS.issubset(encoder.get_vocab()):
        settings["chat_template"] = TEMPLATE
    content = json.dumps(json.loads(encoder.to_str()), indent=1, ensure_ascii=False) + "\n"
    return Tokenizer(content, settings | named)


def _some(texts: Iterator[str]) -> Iterator[str]:
    first = next(texts, None)
    if first is None:
        raise UserError("there is no text to train a tokenizer on", where="tokenizer", mend="look at data.sources")
    yield first
    yield from texts
