"""What models there are, whether they are whole, where they come from, and how they go."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from filelock import FileLock

import ingot
from ingot.checkpoint.manifest import CheckpointDamaged
from ingot.checkpoint.state import save_state
from ingot.checkpoint.store import Checkpoints
from ingot.cli import run
from ingot.errors import UserError
from ingot.model.architecture import Architecture
from ingot.model.decoder import Decoder
from ingot.model.huggingface import save_model
from ingot.tokenizer.tokenizer import Tokenizer
from ingot.tokenizer.training import BPE

ENGINE = {"optimizer": {"step": 3, "momentum": torch.arange(5.0)}}


@pytest.fixture(scope="module")
def words() -> Tokenizer:
    return BPE(vocabulary=280).train(iter(["one two three"] * 9))


@pytest.fixture
def save(tmp_path: Path, words: Tokenizer) -> Callable[..., Path]:
    """Saves a checkpoint of a run; gives back its folder."""

    def write(name: str, step: int, seed: int = 0, **fields: object) -> Path:
        arch = Architecture(family="llama", vocabulary=280, context=16, layers=1, hidden_size=16, heads=2)
        model = Decoder(arch, generator=torch.Generator().manual_seed(seed))

        def part(folder: Path) -> None:
            save_model(model, folder, end=words.end)
            words.save(folder)

        recipe = {"schedule": {"kind": "wsd", "rise": 0.1}, "train": {"settled": "20 steps for 1 minute"}}
        parts = {"model": part, "train": lambda folder: save_state(folder, {"engine": ENGINE, "state": {"step": step}})}
        values = {"tokens": 10 * step, "recipe": recipe, "losses": {"validation": 3.0 - step / 100}} | fields
        return Checkpoints(tmp_path / "runs" / name).save(parts, step=step, **values).path

    return write


@pytest.fixture
def manager(save: Callable[..., Path], tmp_path: Path) -> ingot.ModelManager:
    """`first` with steps 5 and 10, and `second`, which began from it."""
    save("first", 5)
    parent = save("first", 10, seed=1)
    save("second", 20, seed=1, parent=str(parent), losses={})
    return ingot.ModelManager(tmp_path / "runs")


def test_a_list_says_what_there_is(manager, capsys):
    found = manager.list_models()
    assert [one.id for one in found] == ["first@5", "first@10", "second@20"]
    five, ten, second = found
    assert five.version != ten.version == second.version  # by content: the same weights are the same version
    assert (five.parameters, five.loss, second.loss, five.integrity) == (13_104, 2.95, None, "whole")
    assert five.bytes == sum(
        path.stat().st_size for path in five.folder.rglob("*") if path.name != "manifest.json" and path.is_file()
    )
    assert run(["models", "list", "--runs", str(manager.runs)]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["model", "version", "family"]
    assert [row.split()[0] for row in rows] == ["first@5", "first@10", "second@20"]
    assert run(["models", "list", "--json", "--runs", str(manager.runs)]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[0])["tokens"] == 50


def test_the_list_is_what_the_folders_are(manager):
    ten = manager.list_models()[1].folder
    weights = ten / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert "damaged: model/model.safetensors: the file has" in manager.list_models()[1].integrity
    (ten / "manifest.json").write_text("{}")
    assert [one.integrity.partition(":")[0] for one in manager.list_models()] == ["whole", "damaged", "whole"]
    with pytest.raises(UserError, match=r"did you mean 'first'\?"):
        manager.show("frst")


def test_a_model_comes_with_all_that_it_takes_to_go_on(manager):
    loaded = manager.load_model("first@5")
    assert loaded.model.arch.hidden_size == 16
    assert loaded.tokenizer.vocabulary <= 280
    assert loaded.metadata.tokens == 50
    assert torch.equal(loaded.optimizer["optimizer"]["momentum"], torch.arange(5.0))
    assert loaded.scheduler == {"schedule": {"kind": "wsd", "rise": 0.1}, "step": 5, "steps": 20}
    assert manager.load_model("first@best").metadata.step == 10


def test_a_card_goes_back_to_the_first_run(manager):
    card = manager.show("second")
    assert card.index("second@20") < card.index("- first@10, version")
    for said in ("## Data", "## Licence", "## Training", "## Evaluation", "## Limits", "Nothing was measured"):
        assert said in card
    manager.remove("first")
    assert "step-000010 (it is not there any more)" in manager.show("second")


def test_the_way_back_is_found_after_the_runs_were_moved(manager, tmp_path):
    manager.runs.rename(tmp_path / "moved")
    assert "- first@10, version" in ingot.ModelManager(tmp_path / "moved").show("second")


def test_verify_names_the_file_that_differs(manager, capsys):
    assert [one.id for one in manager.verify()] == ["first@5", "first@10", "second@20"]
    config = manager.list_models()[0].folder / "model" / "config.json"
    config.write_text(config.read_text().replace("16", "61", 1))
    with pytest.raises(CheckpointDamaged, match=r"config\.json: the content is not what was saved"):
        manager.verify("first@5")
    assert run(["models", "verify", "--runs", str(manager.runs)]) == 2
    assert "config.json" in capsys.readouterr().err


def test_a_tag_is_a_name(manager, capsys):
    assert run(["models", "tag", "first@5", "good", "--runs", str(manager.runs)]) == 0
    assert capsys.readouterr().out == "good -> first@5\n"
    assert manager.load_model("good").metadata.step == 5


def test_remove_asks_and_removes_what_was_asked_for(manager, capsys, monkeypatch):
    arguments = ["models", "remove", "first@5", "--runs", str(manager.runs)]
    assert run(arguments) == 2
    assert "nobody is there to ask; give --yes" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda question: "n")
    assert run(arguments) == 0
    assert len(manager.list_models()) == 3
    monkeypatch.setattr("builtins.input", lambda question: "y")
    assert run(arguments) == 0
    assert [one.id for one in manager.list_models()] == ["first@10", "second@20"]
    assert run(["models", "remove", "first", "--yes", "--runs", str(manager.runs)]) == 0
    assert [one.id for one in manager.list_models()] == ["second@20"]
    assert not (manager.runs / "first").exists()


def test_what_a_running_run_goes_on_from_stays(manager):
    with FileLock(manager.runs / ".first.lock"):
        for id in ("first", "first@10", "first@latest", "first@best"):
            with pytest.raises(UserError, match="this run is training"):
                manager.remove(id)
        manager.remove("first@5")
    assert [one.id for one in manager.list_models()] == ["first@10", "second@20"]
