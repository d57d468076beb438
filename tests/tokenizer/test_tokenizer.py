from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot.config.check import validate
from ingot.errors import UserError
from ingot.tokenizer.byte_pairs import SPLITS
from ingot.tokenizer.tokenizer import Tokenizer
from ingot.tokenizer.training import BPE, TokenizerConfig

TEXTS = [
    "The quick brown fox jumps over the lazy dog; the dog doesn't mind.\n\n  Then the fox sleeps.",
    "Größe, naïveté, 東京の天気, Привет мир, 1,234.56 and 1999 and \t tabs \r\n and 😀 family 👩‍👩‍👧.",
    "def f(x):\n    return x ** 2  # squares\n" * 5,
]
characters = st.characters(exclude_categories=["Cs"])
texts = st.text(characters) | st.text(
    st.sampled_from("ab 'sS<|endoftx>\r\n\t\u00a0\u3000é1٣²ⅷ\u0301\u200d😀\ud7ff\uffff\x00")
)


@pytest.fixture(scope="module", params=SPLITS)
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return BPE(vocabulary=400, split=request.param).train(iter(TEXTS * 3))


@settings(max_examples=300)
@given(text=texts)
def test_any_text_comes_back_exactly(tokenizer: Tokenizer, text: str):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode_bytes(ids) == text.encode()
    assert tokenizer.token_bytes()[ids].sum() == len(text.encode())
    assert tokenizer.encode_batch([text, "b", text])[2].tolist() == ids


@settings(max_examples=100)
@given(ids=st.lists(st.integers(0, 399)))
def test_any_ids_decode_as_in_the_library(tokenizer: Tokenizer, ids: list[int]):
    reference = tokenizer._encoder
    assert tokenizer.decode(ids, skip_special=True) == reference.decode(ids, skip_special_tokens=True)


def test_text_can_not_forge_special_tokens(tokenizer: Tokenizer):
    for name, special in tokenizer.special.items():
        text = f"a{name}b {name}{name}"
        for ids in (tokenizer.encode(text), tokenizer.encode_batch([text])[0].tolist()):
            assert special not in ids
            assert tokenizer.decode(ids) == text


def test_special_tokens_are_shown_or_skipped(tokenizer: Tokenizer):
    ids = [tokenizer.end, *tokenizer.encode("the fox"), tokenizer.special["<|user|>"]]
    assert tokenizer.decode(ids) == "<|endoftext|>the fox<|user|>"
    assert tokenizer.decode(ids, skip_special=True) == "the fox"
    assert tokenizer.token_bytes()[list(tokenizer.special.values())].tolist() == [0] * 5


def test_transformers_gives_the_same_ids(tokenizer: Tokenizer, tmp_path: Path):
    transformers = pytest.importorskip("transformers")
    tokenizer.save(tmp_path)
    for loaded in (
        transformers.AutoTokenizer.from_pretrained(tmp_path),
        transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path),
    ):
        for text in [*TEXTS, "  two  spaces ", "it'S 2024!\n\n\n", "e\u0301 \u00a0x"]:
            ids = tokenizer.encode(text)
            assert loaded(text)["input_ids"] == ids
            assert loaded.decode(ids) == text
        assert loaded.eos_token_id == loaded.bos_token_id == tokenizer.end
        assert len(loaded) == tokenizer.vocabulary
        assert loaded.convert_tokens_to_ids("<|assistant|>") == tokenizer.special["<|assistant|>"]


def test_saved_loaded_and_pickled_it_is_the_same(tokenizer: Tokenizer, tmp_path: Path):
    tokenizer.save(tmp_path / "folder")
    for other in (
        Tokenizer.load(tmp_path / "folder"),
        Tokenizer.load(tmp_path / "folder" / "tokenizer.json"),
        pickle.loads(pickle.dumps(tokenizer)),
    ):
        assert other.fingerprint == tokenizer.fingerprint
        assert (other.vocabulary, other.end, other.special) == (tokenizer.vocabulary, tokenizer.end, tokenizer.special)
        assert other.settings == tokenizer.settings
        assert other.encode(TEXTS[1]) == tokenizer.encode(TEXTS[1])


def test_training_is_deterministic_and_the_vocabulary_is_as_asked():
    first, second = (BPE(vocabulary=320).train(iter(TEXTS * 3)) for _ in range(2))
    assert first.content == second.content
    assert first.vocabulary == 320
    assert first.special == {"<|endoftext|>": 0, "<|system|>": 1, "<|user|>": 2, "<|assistant|>": 3, "<|end|>": 4}
    assert first.dtype == np.uint16


def test_min_frequency_bounds_the_vocabulary():
    rare = BPE(vocabulary=1000, min_frequency=1).train(iter(["abcd efgh"]))
    common = BPE(vocabulary=1000, min_frequency=2).train(iter(["abcd efgh"]))
    assert rare.vocabulary > common.vocabulary == 256 + 5


def test_half_a_surrogate_pair_is_refused_in_one_line(tokenizer: Tokenizer):
    for call in (lambda: tokenizer.encode("ab\ud800"), lambda: tokenizer.encode_batch(["a", "ab\udc00"])):
        with pytest.raises(UserError, match=r"character 2 .* surrogate"):
            call()


@pytest.mark.parametrize(
    "values, message",
    [
        ({"vocabulary": 200}, "can't hold 256 bytes"),
        ({"special_tokens": []}, "name each once"),
        ({"special_tokens": ["a", "a"]}, "name each once"),
        ({"split": "gpt5"}, "split"),
        ({"kind": "bpx"}, "did you mean 'bpe'"),
        ({"vocabulari": 1000}, "did you mean 'vocabulary'"),
    ],
)
def test_bad_settings_are_refused_at_birth(values: dict, message: str):
    with pytest.raises(UserError, match=message):
        validate(TokenizerConfig, values, "tokenizer")


def test_what_is_no_tokenizer_is_refused_with_its_place(tmp_path: Path):
    with pytest.raises(UserError, match="no tokenizer can be read"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match=r"tokenizer\.json: not a tokenizer"):
        Tokenizer.load(tmp_path)


def test_a_tokenizer_whose_ids_spell_nothing_known_is_refused(tokenizer: Tokenizer):
    content = json.loads(tokenizer.content)
    content["decoder"] = {"type": "CTC", "pad_token": "<pad>", "word_delimiter_token": "|", "cleanup": True}
    with pytest.raises(UserError, match="spell nothing that is known"):
        Tokenizer(json.dumps(content))


def test_a_tokenizer_without_its_end_token_is_refused(tokenizer: Tokenizer):
    with pytest.raises(UserError, match="parts documents"):
        Tokenizer(tokenizer.content, {"eos_token": "</s>"})
    named = Tokenizer(tokenizer.content, {"eos_token": {"content": "<|end|>"}})
    assert named.end == tokenizer.special["<|end|>"]
