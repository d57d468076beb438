from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingot.data import formats
from ingot.data.document import Document, Dropped
from ingot.data.formats.lines import JsonLines
from ingot.data.formats.tree import JsonTree

SETTINGS = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
texts = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), max_size=6)


@SETTINGS
@given(texts=texts, indent=st.sampled_from([None, 1]), ascii_=st.booleans(), read_bytes=st.integers(1, 60))
def test_a_list_and_a_mapping_give_what_lines_give(tmp_path: Path, read_all, pack, texts, indent, ascii_, read_bytes):
    records = [{"id": number, "text": text, "more": [1.5, {}]} for number, text in enumerate(texts)]
    lines = "\n".join(json.dumps(record, ensure_ascii=ascii_) for record in records)
    wanted = [dropless(record) for record in read_all(pack(tmp_path / "a.jsonl", lines.encode()), "text")]
    trees = [records, {f"key {number}": record for number, record in enumerate(records)}]
    for tree in trees:
        content = json.dumps(tree, indent=indent, ensure_ascii=ascii_).encode()
        for suffix in ("", ".gz"):
            path = pack(tmp_path / f"a.json{suffix}", content)
            found = read_all(path, "text", read_bytes=read_bytes)
            assert [dropless(record) for record in found] == wanted
            assert all(content[record.offset : record.offset + 1] in (b"{", b'"') for record in found)


def dropless(record: Document | Dropped) -> str:
    return record.text if isinstance(record, Document) else record.reason


@pytest.mark.parametrize(
    "content, kind, count",
    [
        (b'{"text": "a"}\n{"text": "b"}\n', JsonLines, 2),
        (b'{"meta": {}, "text": "a"}', JsonLines, 1),
        (b'{"meta": {"n": 1}}\n{"meta": {"n": 2}, "text": "b"}', JsonLines, 2),
        (b'{"text": "' + b"long " * 40_000 + b'"}\n{"text": "b"}', JsonLines, 2),
        (b'bad\n{"text": "b"}', JsonLines, 2),
        (b'{"1": {"text": "' + b"long " * 40_000 + b'"}, "2": {"text": "b"}}', JsonTree, 2),
        (b'\xef\xbb\xbf[{"text": "a"}, {"text": "b"},]', JsonTree, 2),
        (b'{"1": {"text": "a"}}\n', JsonTree, 1),
        (b"[]", JsonTree, 0),
        (b"{}", JsonTree, 0),
        (b" \n", JsonTree, 0),
    ],
)
def test_a_json_file_is_read_as_what_it_holds(tmp_path: Path, content: bytes, kind: type, count: int):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    found = formats.parts(path)
    assert [type(part) for part in found] == [kind]
    assert len(list(formats.read(found[0]))) == count


@pytest.mark.parametrize(
    "content, reason",
    [
        (b'[{"text": "a"}, {"text": "b"', "the file is cut short"),
        (b'[{"text": "a"}, {"text": "b', "the file is cut short"),
        (b'[{"text": "a"}, ', "the file is cut short"),
        (b'[{"text": "a"}', "the file is cut short"),
        (b'[{"text": "a"}, {bad}, {"text": "c"}]', "not JSON"),
        (b'[{"text": "a"} {"text": "c"}]', "not JSON"),
        (b'[{"text": "a"}] more', "not JSON"),
        (b'[{"text": "a"}, ' + b"[" * 5000, "not JSON"),
        (b'[{"text": "a"}, {"n": ' + b"1" * 5000 + b"}]", "not JSON"),
        (b'[{"text": "a"}, {"text": "\xff"}]', "invalid UTF-8"),
        (b'[{"text": "a"}, {"text": "\\ud800"}]', "half a surrogate pair"),
        (b'[{"text": "a"}, {"text": "\xe2\x82', "the file is cut short"),
    ],
)
def test_what_is_whole_before_damage_is_read(tmp_path: Path, read_all, content: bytes, reason: str):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    for read_bytes in (1, 7, 1000):
        good, bad = read_all(path, "text", read_bytes=read_bytes)
        assert good == Document("a", 1)
        assert bad.reason == reason


def test_a_list_is_never_in_memory_as_a_whole(tmp_path: Path):
    import tracemalloc

    path = tmp_path / "a.json"
    record = json.dumps({"text": "x" * 3000})
    path.write_text("[" + ",\n".join([record] * 4000) + "]")  # 12 MB
    tracemalloc.start()
    [part] = formats.parts(path)
    assert sum(len(record.text) for record in formats.read(part)) == 12_000_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 2**20
