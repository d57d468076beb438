"""The manifest: any change to a checkpoint shows, and the file that changed is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingot.checkpoint.manifest import MANIFEST, CheckpointDamaged, Manifest, verify

FILES = {"model/config.json": b'{"layers": 2}', "model/model.safetensors": bytes(range(256)), "train/state.json": b"{}"}


def write(folder: Path) -> Manifest:
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    manifest = Manifest.of(folder, step=7, tokens=900, losses={"train": 0.1 + 0.2}, recipe={"name": "demo", "x": [1.5]})
    (folder / MANIFEST).write_text(manifest.to_json())
    return manifest


def test_a_manifest_comes_back_equal_and_names_every_file(tmp_path: Path):
    manifest = write(tmp_path)
    assert verify(tmp_path) == manifest == Manifest.read(tmp_path)
    assert {name: record.bytes for name, record in manifest.files.items()} == {
        name: len(content) for name, content in FILES.items()
    }
    assert manifest.losses["train"] == 0.1 + 0.2


@given(name=st.sampled_from([*FILES, MANIFEST]), place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_any_flipped_bit_is_found_and_its_file_named(tmp_path_factory, name: str, place: float, bit: int):
    folder = tmp_path_factory.mktemp("checkpoint")
    write(folder)
    content = bytearray((folder / name).read_bytes())
    content[int(place * len(content))] ^= 1 << bit
    (folder / name).write_bytes(content)
    with pytest.raises(CheckpointDamaged) as caught:
        verify(folder)
    assert caught.value.path == folder / name
    assert str(caught.value).startswith(f"{folder / name}: ")


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
@pytest.mark.parametrize("contents", [True, False])
def test_missing_truncated_and_grown_files_are_named(tmp_path: Path, name: str, contents: bool):
    write(tmp_path)
    original = (tmp_path / name).read_bytes()
    for content in (original[:-1], b"", original + b" "):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointDamaged) as caught:
            verify(tmp_path, contents=contents)
        assert caught.value.path == tmp_path / name
    (tmp_path / name).unlink()
    with pytest.raises(CheckpointDamaged) as caught:
        verify(tmp_path, contents=contents)
    assert caught.value.path == tmp_path / name


def test_a_part_can_be_verified_alone(tmp_path: Path):
    write(tmp_path)
    (tmp_path / "train/state.json").write_bytes(b"[]")
    assert verify(tmp_path, "model").step == 7
    with pytest.raises(CheckpointDamaged):
        verify(tmp_path, "train")


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "model/../../outside"])
def test_a_manifest_may_not_point_outside(tmp_path: Path, name: str):
    (tmp_path / "outside").write_text("x")
    folder = tmp_path / "checkpoint"
    manifest = write(folder)
    lie = manifest.model_copy(update={"files": {name: next(iter(manifest.files.values()))}})
    (folder / MANIFEST).write_text(lie.to_json())
    with pytest.raises(CheckpointDamaged, match="a file outside the checkpoint"):
        verify(folder)


@pytest.mark.parametrize(
    "content", ["", "null", "[]", "{}", '{"step": 1}', json.dumps({"step": 1, "sha256": ""}), "[" * 9999]
)
def test_what_is_no_manifest_is_damage(tmp_path: Path, content: str):
    (tmp_path / MANIFEST).write_text(content)
    with pytest.raises(CheckpointDamaged, match="manifest"):
        Manifest.read(tmp_path)
