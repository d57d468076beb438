from __future__ import annotations

from pathlib import Path

import pytest

from ingot.dashboard.follow import Record
from ingot.dashboard.run import RunRecord, flatten
from ingot.errors import UserError


def test_half_a_line_is_counted_and_the_rest_is_read(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(
        b'{"kind": "train", "step": 1}\n[1]\n\n{"kind": "end"}\n{"kind": "train", "st\xff'
    )
    run = RunRecord.read(tmp_path)
    assert run.latest("step") == 1
    assert run.unreadable == 2


def test_the_state_is_that_of_the_last_start() -> None:
    def state(*records: Record) -> str:
        return RunRecord.told(Path(), list(records)).state

    start, end = {"kind": "start", "step": 0}, {"kind": "end", "complete": True}
    assert state() == "not begun"
    assert state(start, {"kind": "train", "step": 1}) == "under way"
    assert state(start, {"kind": "end", "complete": False}) == "stopped"
    assert state(start, end) == "finished"
    assert state(start, end, start) == "under way"


def test_a_missing_folder_is_a_users_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such run"):
        RunRecord.read(tmp_path / "nothing")


def test_a_checkpoint_counts_once_its_manifest_is_whole(tmp_path: Path) -> None:
    manifests = {"step-000300": '{"step": 300}', "step-000200": '{"step": 200}', "step-000250": '{"step": 2'}
    for name, manifest in (manifests | {".draft-step-000400": '{"step": 400}'}).items():
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
        (tmp_path / "checkpoints" / name / "manifest.json").write_text(manifest)
    (tmp_path / "checkpoints" / "step-000100").mkdir()
    assert [manifest["step"] for manifest in RunRecord.read(tmp_path).checkpoints] == [200, 300]


def test_flatten_names_leaves_as_overrides_do() -> None:
    nested = {"data": {"sources": [{"path": "x.txt"}], "empty": {}}, "prompts": ["a", "b"]}
    assert dict(flatten(nested)) == {"data.sources.0.path": "x.txt", "data.empty": {}, "prompts": ["a", "b"]}
