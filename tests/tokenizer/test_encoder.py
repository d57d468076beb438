"""Every encoder gives the tokenizer's own ids, whatever the text; which one is used is a matter of speed alone."""

from __future__ import annotations

import json
import random
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot.errors import UserError
from ingot.tokenizer import encoder as encoders
from ingot.tokenizer import fast
from ingot.tokenizer.byte_pairs import SPLITS, byte_level, describe, pattern, pre_tokenizer
from ingot.tokenizer.encoder import ENCODERS, Encoder, encoder, fastest, split_probe
from ingot.tokenizer.fast import Gigatoken, Tiktoken, Unsuited, is_doubtful
from ingot.tokenizer.spelling import byte_alphabet
from ingot.tokenizer.tokenizer import END, Tokenizer
from ingot.tokenizer.training import BPE, Words

FAST = [name for name in ENCODERS if name != "tokenizers"]
TEXTS = [
    "The quick brown fox jumps over the lazy dog; the dog doesn't mind. He'LL say: I'm 1,234 years old!\n\n  Then.",
    "Größe, naïveté, 東京の天気, Привет мир, 1999 \t tabs \r\n and 😀 family 👩‍👩‍👧 <|endoftext|>",
]
# What patterns look at, a letter that is an apostrophe's `s` in another case, and letters that only Unicode 17 knows.
characters = st.sampled_from(
    "ab 'sSſK<|endoftx>\r\n\t\u0085\u00a0\u180e\u200b\u3000é1٣²ⅷ.,\u0301\u200d😀\u088f\U00010940\x00"
)
texts = st.text(st.characters(exclude_categories=["Cs"])) | st.text(characters)


def built(tokenizer: Tokenizer, name: str) -> Encoder:
    pytest.importorskip(name)
    return encoder(tokenizer, name)


def parts(found: tuple[np.ndarray, np.ndarray]) -> list[list[int]]:
    ids, lengths = found
    return [piece.tolist() for piece in np.split(ids, np.cumsum(lengths)[:-1])] if len(lengths) else []


@pytest.fixture(scope="module", params=SPLITS)
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return BPE(vocabulary=400, split=request.param).train(iter(TEXTS * 3))


@pytest.fixture(scope="module")
def probe(tokenizer: Tokenizer) -> Tokenizer:
    return split_probe(json.loads(tokenizer.content))


@pytest.mark.parametrize("name", ENCODERS)
def test_many_texts_are_encoded_as_each_alone(tokenizer: Tokenizer, name: str):
    made = built(tokenizer, name)
    many = ["", TEXTS[0], "", *TEXTS, "x", f"a{END}b", "\u088f is a letter of Unicode 17"]
    found = made.encode(many)
    assert parts(found) == [tokenizer.encode(text) for text in many]
    assert found[0].dtype == tokenizer.dtype and found[1].dtype == np.int64
    assert made.name == name
    assert [len(side) for side in made.encode([])] == [0, 0]


@pytest.mark.parametrize("name", FAST)
def test_any_text_has_the_ids_of_the_library(tokenizer: Tokenizer, probe: Tokenizer, name: str):
    made = [(one, built(one, name)) for one in (tokenizer, probe)]

    @settings(max_examples=200)
    @given(st.lists(texts, max_size=4))
    def check(some: list[str]):
        for own, fast_one in made:
            assert parts(fast_one.encode(some)) == [own.encode(text) for text in some]

    check()


@pytest.mark.parametrize("name", ENCODERS)
def test_text_can_not_forge_special_tokens(tokenizer: Tokenizer, name: str):
    special = list(tokenizer.special)
    ids, _ = built(tokenizer, name).encode([*special, f"a{special[0]} {special[-1]}", "".join(special)])
    assert not set(ids.tolist()) & set(tokenizer.special.values())


@pytest.mark.parametrize("name", ENCODERS)
def test_half_a_surrogate_pair_is_refused_in_one_line(tokenizer: Tokenizer, name: str):
    with pytest.raises(UserError, match=r"character 2 .* surrogate"):
        built(tokenizer, name).encode(["é", "ab\ud800"])


@pytest.mark.slow
@pytest.mark.parametrize("name", FAST)
def test_every_character_is_cut_off_as_the_library_does(tokenizer: Tokenizer, probe: Tokenizer, name: str):
    made = built(probe, name)
    every = [chr(point) for point in range(0x110000) if not (0xD800 <= point < 0xE000 or is_doubtful(point))]
    for place in range(0, len(every), 512):
        some = [encoders._surrounded(one) for one in every[place : place + 512]]
        assert parts(made.encode(some)) == [ids.tolist() for ids in probe.encode_batch(some)]


def test_merges_in_any_order_are_followed_or_refused():
    shown = {byte: character for character, byte in byte_alphabet().items()}
    chance = random.Random(5)
    built_by = dict.fromkeys(FAST, 0)
    for _ in range(60):
        vocabulary, merges, tokens = {shown[byte]: byte for byte in range(256)}, [], list("abcd")
        for _ in range(chance.randrange(3, 20)):
            pair = (chance.choice(tokens), chance.choice(tokens))
            if pair not in merges:
                merges.append(pair)
                if "".join(pair) not in vocabulary:
                    vocabulary["".join(pair)] = len(vocabulary)
                    tokens.append("".join(pair))
        own = Tokenizer(describe(vocabulary, merges, byte_level(True), {END: len(vocabulary)}))
        words = ["".join(chance.choices("abcd", k=chance.randrange(1, 12))) for _ in range(100)]
        for name in FAST:
            pytest.importorskip(name)
            try:
                found = encoder(own, name).encode(words)
            except Unsuited:
                continue
            assert parts(found) == [own.encode(word) for word in words]
            built_by[name] += 1
    assert built_by["gigatoken"] == 60 and 0 < built_by["tiktoken"] < 60


def test_what_gigatoken_remembers_stays_bounded(monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("gigatoken")
    monkeypatch.setattr(fast, "LOOK_BYTES", 10_000)
    resident = iter(range(0, 10**12, fast.CACHE_BYTES // 2))
    monkeypatch.setattr(fast, "_resident", lambda: next(resident))
    tokenizer = BPE(vocabulary=400).train(iter(TEXTS * 3))
    begun: list[int] = []
    monkeypatch.setattr(Gigatoken, "_begin", lambda self, begin=Gigatoken._begin: (begun.append(1), begin(self)))
    made = Gigatoken(tokenizer)
    expected = tokenizer.encode(TEXTS[0] * 40)
    for _ in range(30):
        assert made.encode([TEXTS[0] * 40])[0].tolist() == expected
    assert len(begun) > 3


def test_the_fastest_encoder_that_agrees_is_chosen_and_the_reason_said(tokenizer: Tokenizer):
    pytest.importorskip("gigatoken")
    chosen = fastest(tokenizer, TEXTS * 200)
    assert chosen.name == "gigatoken"
    assert chosen.reason.startswith("encoder: gigatoken, ") and "MB/s a core (tokenizers: " in chosen.reason


def test_one_that_gives_other_ids_is_left_out_and_named(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch):
    class Wrong(encoders.Library):
        name = "wrong"

        def encode(self, texts):
            ids, lengths = super().encode(texts)
            return ids + (ids == ids.max(initial=0)), lengths

    class Missing(encoders.Library):
        def __init__(self, tokenizer: Tokenizer):
            raise ImportError

    class Late(encoders.Library):
        """Right on the corpus, wrong on what is rare in it."""

        def encode(self, texts):
            ids, lengths = super().encode(texts)
            return ids + (len(texts) > 1), lengths

    library = encoders.Library
    monkeypatch.setattr(encoders, "ENCODERS", {"tokenizers": library, "wrong": Wrong, "missing": Missing, "late": Late})
    chosen = fastest(tokenizer, TEXTS)
    assert chosen.name == "tokenizers"
    assert "wrong gives other ids and is not used" in chosen.reason
    assert "late gives other ids and is not used" in chosen.reason
    assert "missing" not in chosen.reason


def test_without_any_text_there_is_a_choice_all_the_same(tokenizer: Tokenizer):
    assert fastest(tokenizer, []).name in ENCODERS
    assert fastest(tokenizer, [""]).name in ENCODERS


def test_words_are_left_to_the_library():
    words = Words(vocabulary=50).train(iter(TEXTS * 3))
    assert fastest(words, TEXTS).name == "tokenizers"
    assert parts(encoder(words).encode(TEXTS)) == [words.encode(text) for text in TEXTS]


def test_the_pattern_of_a_pre_tokenizer_is_found_where_there_is_one():
    assert {split: pattern(pre_tokenizer(split)) for split in SPLITS} == SPLITS
    assert pattern(None) is None
    assert pattern({"type": "Whitespace"}) is None
    assert pattern(byte_level(True) | {"add_prefix_space": True}) is None


def test_tiktoken_is_not_built_where_text_is_changed_before_it_is_cut():
    pytest.importorskip("tiktoken")
    own = json.loads(BPE(vocabulary=300).train(iter(TEXTS)).content)
    with pytest.raises(Unsuited):
        Tiktoken(Tokenizer(json.dumps(own | {"normalizer": {"type": "NFC"}})))


def test_an_encoder_is_built_without_the_slow_import_of_awkward(tokenizer: Tokenizer):
    pytest.importorskip("gigatoken")
    encoder(tokenizer, "gigatoken").encode(TEXTS)
    assert "awkward" not in sys.modules
