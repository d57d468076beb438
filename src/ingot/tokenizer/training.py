"""How a run comes by its tokenizer: the kinds that a recipe can name."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterator
from typing import Literal

from pydantic import Field, model_validator

from ingot.config import Choice
from ingot.errors import UserError
from ingot.tokenizer.tokenizer import END, Tokenizer

# How text is cut before pairs are merged: no token crosses a cut. Each is a pattern of a well-known model, so that
# fast encoders and llama.cpp know it; they differ in how they treat digits, contractions and white space.
SPLITS = {
    "gpt2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "llama3": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
    "qwen2": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
}


class TokenizerConfig(Choice):
    """A way to come by a tokenizer."""

    @property
    def text_bytes(self) -> int:
        """How much text `train` wants, in bytes; 0: none."""
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
        from tokenizers import decoders, models, pre_tokenizers, trainers

        encoder = tokenizers.Tokenizer(models.BPE())
        encoder.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(tokenizers.Regex(SPLITS[self.split]), behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        encoder.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocabulary,
            min_frequency=self.min_frequency,
            special_tokens=list(self.special_tokens),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        first = next(texts, None)
        if first is None:
            raise UserError("there is no text to train a tokenizer on", where="tokenizer", mend="look at data.sources")
        encoder.train_from_iterator(_from(first, texts), trainer=trainer)
        end = self.special_tokens[0]
        settings = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            "bos_token": end,
            "eos_token": end,
            "pad_token": end,
        }
        content = json.dumps(json.loads(encoder.to_str()), indent=1, ensure_ascii=False) + "\n"
        return Tokenizer(content, settings)


def _from(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest
