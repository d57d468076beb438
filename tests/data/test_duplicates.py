from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from fractions import Fraction
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ingot.data import duplicates
from ingot.data.duplicates import EXACT, HELD, KEPT, NEAR, RECALL, bands, fates, find
from ingot.data.signatures import SLOTS, signature, signatures
from ingot.errors import UserError


def words(count: int, seed: int) -> str:
    """Random words."""
    return " ".join(f"w{word}" for word in np.random.default_rng(seed).integers(3000, size=count))


@pytest.fixture(scope="session")
def decide(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[int]]:
    """The fates of signatures that lie in files of the given numbers of documents."""

    def make(records: NDArray, sizes: list[int], similarity: float | None, memory_bytes: int = 2**20) -> list[int]:
        folder = tmp_path_factory.mktemp("duplicates")
        (folder / "scratch" / "digests").mkdir(parents=True)  # of a process that was killed
        files = []
        for number, own in enumerate(np.split(records, np.cumsum(sizes))):
            files.append(folder / f"{number}.signatures")
            own.tofile(files[-1])
        found = find(files, folder, similarity, memory_bytes)
        decided = [fates(folder, number) for number in range(len(files))]
        assert [len(own) for own in decided] == [*sizes, len(records) - sum(sizes)]
        fate = np.concatenate(decided)
        assert found.documents == len(records)
        assert found.counts == tuple(np.bincount(fate, minlength=4).tolist())
        left = {path.suffix for path in folder.iterdir()}
        assert left == {".signatures", ".fates"}
        return fate.tolist()

    return make


def one_by_one(records: NDArray, similarity: float | None) -> list[int]:
    """The same decision as plainly as can be: every pair of a bucket, one after another."""
    held = records["held"].tolist()
    order = sorted(range(len(records)), key=lambda i: (not held[i], i))
    fate, first = [KEPT] * len(records), {}
    for i in order:
        leader = first.setdefault(records["digest"][i].tobytes(), i)
        if leader != i:
            fate[i] = HELD if held[leader] and not held[i] else EXACT
    for band in bands(Fraction(similarity).limit_denominator(1000)) if similarity else ():
        leaders: dict[bytes, list[int]] = {}
        for i in order:
            if fate[i] == KEPT:
                bucket = leaders.setdefault(records["minhash"][i][band].tobytes(), [])
                like = [j for j in bucket if (records["minhash"][i] == records["minhash"][j]).mean() >= similarity]
                if like and not held[i]:
                    fate[i] = HELD if held[like[0]] else NEAR
                else:
                    bucket.append(i)
    return [KEPT if held[i] else fate[i] for i in range(len(records))]


def made_up(documents: int, kinds: int, noise: float, seed: int) -> NDArray:
    """Signatures that lie around a few kinds, at distances around what is decisive."""
    generator = np.random.default_rng(seed)
    records = np.zeros(documents, signature(near=True))
    kind = generator.integers(kinds, size=documents)
    around = generator.integers(5, size=(kinds, SLOTS))
    changed = generator.random((documents, SLOTS)) < noise * generator.random((documents, 1))
    records["minhash"] = np.where(changed, generator.integers(9, size=(documents, SLOTS)), around[kind])
    records["held"] = (generator.random(documents) < 0.3) & (kind % 2 == 0)
    digests = generator.integers(2**63, size=(kinds, 2), dtype=np.uint64)
    digests[:, 0] &= np.uint64(2**62)  # equal halves: only both together tell
    exact = generator.random(documents) < 0.3
    records["digest"] = np.where(exact[:, None], digests[kind], generator.integers(2**63, size=(documents, 2)))
    records["minhash"][exact] = around[kind[exact]]
    return records


@settings(max_examples=20)
@given(
    documents=st.integers(0, 100),
    kinds=st.integers(1, 8),
    noise=st.sampled_from([0.0, 0.3, 0.6]),
    similarity=st.sampled_from([None, 0.8, 0.85, 1.0]),
    cuts=st.lists(st.integers(0, 40), max_size=3),
    memory_bytes=st.sampled_from([4000, 10_000, 2**20]),
    seed=st.integers(0, 2**32),
)
def test_the_decision_equals_one_by_one(decide, documents, kinds, noise, similarity, cuts, memory_bytes, seed):
    records = made_up(documents, kinds, noise, seed)
    expected = one_by_one(records, similarity)
    if similarity is None:
        plain = np.zeros(len(records), signature(near=False))
        plain["digest"], plain["held"] = records["digest"], records["held"]
        records = plain
    sizes = [size for number, size in enumerate(cuts) if sum(cuts[: number + 1]) <= documents]
    sizes = sizes if sum(sizes) <= documents else []
    assert decide(records, sizes, similarity, memory_bytes) == expected


def test_nothing_that_stays_is_a_near_duplicate_and_all_that_goes_has_a_reason(decide):
    records = made_up(90, 3, 0.4, seed=1)
    fate = np.array(decide(records, [50, 7, 20], 0.8))
    assert set(fate.tolist()) == {KEPT, EXACT, NEAR, HELD}
    assert not fate[records["held"]].any()
    alike = (records["minhash"][:, None] == records["minhash"]).mean(axis=2) >= 0.8
    for one, other in combinations(np.flatnonzero((fate == KEPT) & ~records["held"]), 2):
        shared = any(
            (records["minhash"][one, band] == records["minhash"][other, band]).all() for band in bands(Fraction(4, 5))
        )
        assert not (alike[one, other] and shared)
    for one in np.flatnonzero(fate == NEAR):
        assert alike[one, :one][~records["held"][:one]].any()
    for one in np.flatnonzero(fate == HELD):
        assert alike[one, records["held"]].any()


def test_a_bucket_that_is_never_done_ends(decide, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(duplicates, "LEADERS", 3)
    records = np.zeros(60, signature(near=True))
    generator = np.random.default_rng(0)
    records["digest"] = generator.integers(2**63, size=(60, 2))
    records["minhash"] = generator.integers(2**16, size=(60, SLOTS))
    records["minhash"][:, :20] = 1  # one bucket for all, and none like another
    records["minhash"][50] = records["minhash"][1]
    records["minhash"][51] = records["minhash"][20]  # a leader too late
    records["minhash"][51, 20:][::4] += 1
    outcomes = [decide(records, [], 0.8, memory) for memory in (4000, 2**20)]
    assert outcomes[0] == outcomes[1]
    assert outcomes[0][50] == NEAR


def variant(text: str, generator: np.random.Generator, share: float) -> str:
    """`text` with a share of its words exchanged."""
    found = text.split(" ")
    for place in np.flatnonzero(generator.random(len(found)) < share):
        found[place] = f"new{generator.integers(10**6)}"
    return " ".join(found)


@pytest.mark.parametrize("similarity", [0.6, 0.8, 0.9])
def test_recall_and_precision_on_texts(decide, similarity: float):
    """Copies with words exchanged, against the true Jaccard similarity of all pairs."""
    generator, texts, true = np.random.default_rng(3), [], []
    for seed in range(50):
        original = words(300, seed)
        family = [original, *(variant(original, generator, share) for share in (0.002, 0.01, 0.02, 0.04, 0.08))]
        sets = [{tuple(text.split(" ")[i : i + 5]) for i in range(296)} for text in family]
        true += [
            max([len(one & other) / len(one | other) for other in sets[:i]], default=0) for i, one in enumerate(sets)
        ]
        texts += family
    gone = np.array(decide(signatures(texts, [False] * len(texts), near=True), [100], similarity)) > 0
    alike = np.array(true) >= similarity
    clear = np.abs(np.array(true) - similarity) > 0.08
    assert clear.sum() > 150 and (alike & clear).sum() > 20
    assert (gone[alike & clear].mean(), gone[~alike & clear].mean()) == (1, 0)
    assert (gone == alike).mean() > 0.93


def test_no_spaces_no_problem(decide):
    text = "人人生而自由,在尊严和权利上一律平等。他们赋有理性和良心,并应以兄弟关系的精神相对待。" * 3
    longer = "".join(chr(0x4E00 + i * 37 % 3000) for i in range(300))
    texts = [text, longer, longer[:150] + "字" + longer[150:], longer[::-1], text.replace("。", "!")]
    assert decide(signatures(texts, [False] * 5, near=True), [], 0.8) == [KEPT, KEPT, NEAR, KEPT, NEAR]


def test_nothing_of_what_is_held_out_stays_wherever_it_stands(decide):
    long = [words(300, seed) for seed in range(3)]
    texts = [long[0], long[1], f"{long[1]} more", long[0], long[2], long[1]]
    held = [False, False, False, True, True, True]
    assert decide(signatures(texts, held, near=True), [2, 2], 0.8) == [HELD, HELD, HELD, KEPT, KEPT, KEPT]
    assert decide(signatures(texts, held, near=False), [2, 2], None) == [HELD, HELD, KEPT, KEPT, KEPT, KEPT]


def test_bands_meet_the_recall():
    for similarity in (Fraction(1, 2), Fraction(4, 5), Fraction(9, 10), Fraction(1)):
        found = bands(similarity)
        width = found[0].stop
        assert all(band.stop - band.start == width and band.stop <= SLOTS for band in found)
        assert 1 - (1 - similarity**width) ** len(found) >= RECALL
    assert len(bands(Fraction(4, 5))) == 21


def test_a_file_that_is_not_whole_is_named(tmp_path: Path):
    (tmp_path / "a.signatures").write_bytes(b"123")
    with pytest.raises(UserError, match=r"a\.signatures.*not whole"):
        find([tmp_path / "a.signatures"], tmp_path, None)


def peak(action: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def many(documents: int, folder: Path, alike: int) -> list[Path]:
    """Files of signatures: a fifth are one and the same page, which is held out nowhere; a tenth are much alike."""
    generator = np.random.default_rng(1)
    files = []
    pool = generator.integers(2**16, size=(alike, SLOTS), dtype=np.uint16)
    for begin in range(0, documents, 50_000):
        records = np.zeros(min(50_000, documents - begin), signature(near=True))
        count = len(records)
        records["minhash"] = generator.integers(2**16, size=(count, SLOTS), dtype=np.uint16)
        records["digest"] = generator.integers(2**63, size=(count, 2))
        records["held"] = generator.random(count) < 0.01
        everywhere = generator.random(count) < 0.2
        records["digest"][everywhere], records["minhash"][everywhere] = 7, 7
        records["held"][everywhere] = False
        near = np.flatnonzero(~everywhere & (generator.random(count) < 0.1))
        records["minhash"][near] = pool[generator.integers(alike, size=len(near))]
        records["minhash"][near, generator.integers(SLOTS, size=len(near))] = 1
        files.append(folder / f"{begin}.signatures")
        records.tofile(files[-1])
    return files


def check_memory(documents: int, memory_bytes: int, folder: Path) -> None:
    files = many(documents, folder, alike=10)
    found = []
    # The least of three: what else lives in the process of the tests adds to a peak now and then, and never takes away.
    used = min(peak(lambda: found.append(find(files, folder, 0.8, memory_bytes))) for _ in range(3))
    assert used < 1.5 * memory_bytes
    kept, exact, near, held = found[0].counts
    assert abs(exact - documents * 0.2) < documents * 0.02
    assert abs(near + held - documents * 0.08) < documents * 0.01
    assert kept == documents - exact - near - held


def test_memory_is_bounded_by_what_is_given(tmp_path: Path):
    check_memory(15_000, 2 * 2**20, tmp_path)


@pytest.mark.slow
def test_a_million_documents_in_bounded_memory(tmp_path: Path):
    check_memory(1_000_000, 32 * 2**20, tmp_path)
