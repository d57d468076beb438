"""Model references: each form means one checkpoint, and a wrong one says what was near."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from ingot.checkpoint.manifest import CheckpointDamaged
from ingot.checkpoint.registry import resolve, tag
from ingot.checkpoint.store import Checkpoints
from ingot.errors import UserError


def write(folder: Path) -> None:
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """`demo` with steps 100 (the best), 200 and 1200; `other` with step 50 and no validation loss; `empty`."""
    folder = tmp_path / "runs"
    for step, loss in ((100, 1.0), (200, 2.0), (1200, 3.0)):
        Checkpoints(folder / "demo").save(
            {"model": write, "train": write}, step=step, tokens=0, losses={"validation": loss}
        )
    Checkpoints(folder / "other").save({"model": write}, step=50, tokens=0)
    (folder / "empty" / "checkpoints").mkdir(parents=True)
    (folder / "not-a-run").mkdir()
    return folder


def model(runs: Path, name: str, step: int) -> Path:
    return runs / name / "checkpoints" / f"step-{step:06d}" / "model"


@pytest.mark.parametrize(
    ("reference", "name", "step"),
    [
        *(("demo", "demo", 1200), ("demo@latest", "demo", 1200), ("demo@best", "demo", 100)),
        *(("demo@1200", "demo", 1200), ("demo@200", "demo", 200), ("demo@0200", "demo", 200)),
        *(("other", "other", 50), ("good", "demo", 200), ("demo@good", "demo", 200)),
    ],
)
def test_a_reference_means_one_model(runs: Path, reference: str, name: str, step: int):
    tag("demo@200", "good", runs)
    assert resolve(reference, runs) == model(runs, name, step)


def test_folders_are_references_too(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path / "foreign")
    expected = model(runs, "demo", 1200)
    assert resolve(str(tmp_path / "foreign"), runs) == tmp_path / "foreign"
    for folder in (expected, expected.parent, runs / "demo"):
        assert resolve(str(folder), runs) == expected
    monkeypatch.chdir(expected)
    assert resolve(".", runs) == expected


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("dmeo", "there is no model 'dmeo'; did you mean 'demo'?"),
        ("dmeo@best", "there is no model 'dmeo@best'; did you mean 'demo'?"),
        ("goood", "there is no model 'goood'; did you mean 'good'?"),
        ("zzz", "there is no model 'zzz'; known: demo, empty, other, good"),
        ("not-a-run", "there is no model 'not-a-run'; known: demo, empty, other, good"),
        ("demo@1100", "'demo' has no checkpoint of step 1100; the nearest is demo@1200"),
        ("demo@lates", "'demo' has no checkpoint 'lates'; did you mean 'latest'?"),
        ("demo@goood", "'demo' has no checkpoint 'goood'; did you mean 'good'?"),
        ("other@best", "no checkpoint of 'other' has a validation loss; use other@latest"),
    ],
)
def test_a_wrong_reference_says_what_is_near(runs: Path, reference: str, message: str):
    tag("demo@200", "good", runs)
    with pytest.raises(UserError) as caught:
        resolve(reference, runs)
    assert str(caught.value) == message


def test_without_any_model_the_mend_is_to_train_one(tmp_path: Path, runs: Path):
    with pytest.raises(UserError, match=r"no model 'demo', and no run in .* has a checkpoint; train one"):
        resolve("demo", tmp_path / "nowhere")
    for reference in ("empty", "empty@best", "empty@latest"):
        with pytest.raises(UserError, match="'empty' has no whole checkpoint; train it first"):
            resolve(reference, runs)
    with pytest.raises(UserError, match=r"this folder holds no model \(no config.json\)"):
        resolve(str(tmp_path), runs)


def test_a_begun_run_without_a_checkpoint_says_to_wait(runs: Path):
    (runs / "tales").mkdir()
    (runs / "tales" / "recipe.yaml").touch()
    with pytest.raises(UserError, match=r"'tales' has no checkpoint yet.*wait for one"):
        resolve("tales", runs)


def test_a_folder_that_holds_a_recipe_too_is_the_model_in_it(runs: Path, tmp_path: Path):
    for folder in (runs / "demo", tmp_path / "foreign"):
        folder.mkdir(exist_ok=True)
        (folder / "recipe.yaml").touch()
    (tmp_path / "foreign" / "config.json").touch()
    assert resolve(str(runs / "demo"), runs) == model(runs, "demo", 1200)
    assert resolve(str(tmp_path / "foreign"), runs) == tmp_path / "foreign"


def test_a_damaged_model_is_passed_over_with_a_warning_or_refused_by_name(runs: Path, caplog: pytest.LogCaptureFixture):
    weights = model(runs, "demo", 1200) / "model.safetensors"
    weights.write_bytes(b"wrights")
    with caplog.at_level(logging.WARNING):
        assert resolve("demo", runs) == model(runs, "demo", 200)
    assert [str(weights) in message for message in caplog.messages] == [True]
    tag("demo@200", "good", runs)
    for folder in (weights.parent, weights.parent.parent):
        with pytest.raises(CheckpointDamaged) as caught:
            resolve(str(folder), runs)
        assert caught.value.path == weights
    with pytest.raises(CheckpointDamaged) as caught:
        resolve("demo@1200", runs)
    assert caught.value.path == weights


def test_damage_in_the_training_state_does_not_keep_a_model_from_use(runs: Path, caplog: pytest.LogCaptureFixture):
    (model(runs, "demo", 1200).parent / "train/config.json").write_text("[]")
    assert resolve("demo", runs) == model(runs, "demo", 1200)
    assert caplog.messages == []


def test_a_tag_is_one_checkpoint_at_a_time(runs: Path):
    tag("demo@200", "first", runs)
    tag("demo@200", "good", runs)
    tag("other", "good", runs)
    assert resolve("good", runs) == model(runs, "other", 50)
    assert Checkpoints(runs / "demo").all()[1].manifest.tags == ["first"]
    assert Checkpoints(runs / "other").all()[0].manifest.tags == ["good"]


@pytest.mark.parametrize("name", ["demo", "best", "latest", "120", "a@b", "../x", "", " x", "a/b"])
def test_a_tag_that_could_mean_something_else_is_refused(runs: Path, name: str):
    with pytest.raises(UserError, match="can't be a tag"):
        tag("demo@200", name, runs)


def test_only_checkpoints_of_runs_are_tagged(runs: Path, tmp_path: Path):
    write(tmp_path / "foreign")
    with pytest.raises(UserError, match="is no checkpoint of a run"):
        tag(str(tmp_path / "foreign"), "good", runs)


@pytest.mark.parametrize("reference", ["word " * 60, "a/" * 3000, "null\0", "demo@" + "9" * 5000, "demo@" + "x" * 300])
def test_a_text_that_is_no_reference_is_one_line(runs: Path, reference: str):
    with pytest.raises(UserError, match=r"there is no model|has no checkpoint"):
        resolve(reference, runs)


def test_a_long_text_is_repeated_in_part_only(runs: Path):
    with pytest.raises(UserError) as caught:
        resolve("word " * 60, runs)
    assert len(str(caught.value)) < 200
