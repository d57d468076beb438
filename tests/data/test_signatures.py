from __future__ import annotations

import re
import sys

import numpy as np
import pytest

from ingot.data.document import Conversation, Document, Message
from ingot.data.signatures import SLOTS, comparable, signature, signatures
from ingot.data.words import runs
from ingot.errors import UserError
from ingot.extras import pip_install


def words(count: int, seed: int) -> str:
    """Random words."""
    return " ".join(f"w{word}" for word in np.random.default_rng(seed).integers(3000, size=count))


def similarity(one: str, other: str) -> float:
    sets = [set(runs([text], 5)[0].tolist()) for text in (one, other)]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def test_a_signature_depends_on_its_text_alone():
    texts = [words(40, 1), "日本語のテキストです。", "", "…", "x" * 300_000, words(40, 1), "!" * 300_000]
    together = signatures(texts, [False, True] * 3 + [False], near=True)
    assert together.dtype == signature(near=True) and together.dtype.itemsize == 17 + 2 * SLOTS
    alone = np.concatenate([signatures([text], [i % 2 == 1], near=True) for i, text in enumerate(texts)])
    assert together.tobytes() == alone.tobytes()
    assert signatures([], [], near=True).tobytes() == b""
    exact = signatures(texts, [False] * 7, near=False)
    assert np.array_equal(exact["digest"], together["digest"])
    assert len(np.unique(exact["digest"], axis=0)) == len({*texts})
    wordless = together["minhash"][[2, 3, 6]]  # no words, and yet not alike
    assert [(one == other).mean() < 0.1 for one, other in zip(wordless, wordless[[1, 2, 0]], strict=True)] == [True] * 3


def test_signatures_are_the_same_on_every_machine():
    found = signatures(["The quick brown fox jumps over the lazy dog.", words(2000, 5)], [False, True], near=True)
    assert [[f"{half:x}" for half in digest] for digest in found["digest"].tolist()] == [
        ["156a3e3195826ad0", "3cc729b82de0f83f"],
        ["5b6e9cca6f6963b3", "54914f8fa0cbf9bd"],
    ]
    assert found["minhash"][:, ::16].tolist() == [
        [63862, 43022, 6456, 62343, 9910, 39624, 17320, 46332],
        [48267, 24123, 8442, 23190, 13435, 61031, 4424, 32981],
    ]


@pytest.mark.parametrize("length", [8, 40, 300, 3000])
def test_shared_slots_estimate_the_similarity(length: int):
    generator = np.random.default_rng(length)
    errors = []
    for share in (0.02, 0.1, 0.3):
        for _ in range(30):
            vocabulary = [f"w{number}" for number in range(5000)]
            one = generator.choice(vocabulary, length)
            other = np.where(generator.random(length) < share / 2, generator.choice(vocabulary, length), one)
            texts = [" ".join(one), " ".join(other)]
            slots = signatures(texts, [False, False], near=True)["minhash"]
            errors.append((slots[0] == slots[1]).mean() - similarity(*texts))
    assert abs(np.mean(errors)) < 0.01
    assert np.std(errors) < 0.035


def test_what_is_compared_of_a_conversation():
    messages = (Message("user", "Hello"), Message("assistant", "Hi"))
    assert comparable(Document("text", 0)) == "text"
    assert comparable(Conversation(messages, 0)) == "user: Hello\nassistant: Hi"


def test_without_its_library_a_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "rensa", None)
    assert len(signatures(["text"], [False], near=False)) == 1
    with pytest.raises(UserError, match=rf"rensa is not installed.*{re.escape(pip_install('data'))}"):
        signatures(["text"], [False], near=True)


def test_another_version_of_the_library_is_refused(monkeypatch: pytest.MonkeyPatch):
    import rensa

    monkeypatch.setattr(rensa, "RMinHash", type("RMinHash", (), {"ALGORITHM_VERSION": 3}))
    with pytest.raises(UserError, match="version 3, not 2"):
        signatures(["text"], [False], near=True)
