"""The mirrors of metrics.jsonl, read back with the libraries that they are for: the same figures, each once."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import struct
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ingot.errors import UserError
from ingot.extras import pip_install
from ingot.recipe.recipe import Recipe
from ingot.track import tracker as tracker_module
from ingot.track.tracker import METRICS, Tracker
from ingot.track.tracking import Mirror, TensorBoard, WeightsAndBiases, points

BLOCK, HEADER = 32_768, 7  # of a W&B log, in bytes: LevelDB's log format behind a header of W&B's own
LAST_PART = {1, 4}  # types of a part of a record: the whole, or the end of one

Series = dict[str, list[tuple[int, float]]]


def start(step: int = 0) -> dict[str, Any]:
    return {"kind": "start", "step": step, "time": 1_000_000, "parameters": {"total": 7}, "data": {"found": 3}}


def train(step: int, loss: float | None = None) -> dict[str, Any]:
    return {"kind": "train", "step": step, "loss": 1 / step if loss is None else loss, "seconds": step * 0.5}


def steps_from(tracker: Tracker, first: int, last: int) -> None:
    for step in range(first, last + 1):
        tracker.log(train(step))
        if step % 5 == 0:
            tracker.log({"kind": "validation", "step": step, "loss": 2 / step, "whole": step == 10})


def expected(last: int) -> Series:
    steps = range(1, last + 1)
    series = {"train/loss": [(step, 1 / step) for step in steps], "train/seconds": [(step, step / 2) for step in steps]}
    series["validation/loss"] = [(step, 2 / step) for step in steps if step % 5 == 0 and step != 10]
    return series | {"held_out/loss": [(10, 0.2)]}


def silence(line: str) -> None:
    raise AssertionError(line)


def in_a_process(run: Path, lines: str) -> subprocess.CompletedProcess[str]:
    """`lines`, with the `tracker` of the folder `run`, in a process of their own."""
    script = f"""
import os, resource, signal, sys
from pathlib import Path
from ingot.track.tracker import Tracker
from ingot.track.tracking import TensorBoard, WeightsAndBiases
tracker = Tracker(Path(sys.argv[1]))
{textwrap.dedent(lines)}"""
    environment = os.environ | {"PYTHONPATH": str(Path(tracker_module.__file__).parents[2])}
    command = [sys.executable, "-c", script, str(run)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)


# --- TensorBoard ------------------------------------------------------------------------------------------------------


def scalars(run: Path) -> Series:
    """What TensorBoard shows of a run."""
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="pip install 'ingot[track]'"
    )
    events = accumulator.EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def assert_same(found: Series, series: Series) -> None:
    assert found.keys() == series.keys()
    for tag, pairs in series.items():
        assert [step for step, _ in found[tag]] == [step for step, _ in pairs], tag
        assert [value for _, value in found[tag]] == pytest.approx([value for _, value in pairs], rel=1e-6), tag


@pytest.fixture
def board() -> TensorBoard:
    pytest.importorskip("tensorboard", reason="pip install 'ingot[track]'")
    return TensorBoard()


def test_tensorboard_shows_each_figure_once_after_kills_and_when_it_came_late(tmp_path: Path, board: TensorBoard):
    (tmp_path / "recipe.yaml").write_text("name: tiny\n")
    first = Tracker(tmp_path)
    first.log(start())
    steps_from(first, 1, 4)  # nobody had asked for TensorBoard then
    second = Tracker(tmp_path)
    second.follow([board], silence)
    steps_from(second, 5, 12)
    assert_same(scalars(tmp_path), expected(12))  # readable while the run is under way
    (file,) = (tmp_path / "tensorboard").iterdir()
    file.write_bytes(file.read_bytes()[:-5])  # as a kill would leave it
    third = Tracker(tmp_path)
    third.truncate_after(7)
    third.follow([board], silence)
    third.log(start(7))
    steps_from(third, 8, 20)
    third.close()
    assert_same(scalars(tmp_path), expected(20))


def test_tensorboard_forgets_steps_that_a_run_makes_again(tmp_path: Path, board: TensorBoard):
    tracker = Tracker(tmp_path)
    tracker.follow([board], silence)
    tracker.log(start())
    for step in range(1, 9):
        tracker.log(train(step, 5.0 if step > 6 else None))
    tracker.truncate_after(6)
    steps_from(tracker, 7, 12)
    found, series = scalars(tmp_path), expected(12)
    for tag in ("train/loss", "held_out/loss"):
        assert_same({tag: found[tag]}, {tag: series[tag]})


def test_tensorboards_clock_is_that_of_the_training(tmp_path: Path, board: TensorBoard):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for first in (1, 5):  # another day
        tracker = Tracker(tmp_path)
        tracker.follow([board], silence)
        tracker.log(start(first - 1) | {"time": 1_000_000 * first})
        steps_from(tracker, first, first + 3)
        tracker.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    times = [event.wall_time for event in events.Scalars("train/loss")]
    assert times == [1_000_000 + step * 0.5 for step in range(1, 9)]


# --- Weights & Biases -------------------------------------------------------------------------------------------------


def wandb_records(path: Path) -> Iterator[Any]:
    """The records of an offline run, in the format that `wandb sync` reads."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, whole = path.read_bytes(), HEADER, b""
    assert data.startswith(b":W&B")
    while place + HEADER <= len(data):
        if BLOCK - place % BLOCK < HEADER:
            place += BLOCK - place % BLOCK  # the rest of a block that has no room for a header
            continue
        size, kind = struct.unpack_from("<HB", data, place + 4)
        whole += data[place + HEADER : place + HEADER + size]
        place += HEADER + size
        if kind in LAST_PART:
            yield Record.FromString(whole)
            whole = b""


def offline(run: Path) -> Path:
    """The one offline run of the run's folder."""
    (folder,) = (run / "wandb").glob("offline-run-*")
    (file,) = folder.glob("*.wandb")
    return file


def history(run: Path) -> tuple[Series, list[Any]]:
    """The series that were logged, and all records, once the process that writes them has written the last one."""
    series: Series = {}
    end = time.monotonic() + 60
    while not (records := list(wandb_records(offline(run)))) or not records[-1].HasField("exit"):
        assert time.monotonic() < end, [record.WhichOneof("record_type") for record in records]
        time.sleep(0.05)
    for record in records:
        if record.HasField("history"):
            row = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
            for key, value in row.items():
                if not key.startswith("_"):
                    series.setdefault(key, []).append((row["_step"], value))
    return series, records


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> WeightsAndBiases:
    pytest.importorskip("wandb", reason="pip install 'ingot[track]'")
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "wandb-data"))  # copies of artifacts go there
    return WeightsAndBiases(offline=True)


def test_wandb_offline_has_each_figure_once_after_a_kill_under_one_identity(tmp_path: Path, wandb: WeightsAndBiases):
    said: list[str] = []
    (tmp_path / "recipe.yaml").write_text("name: tiny\nmodel: {layers: 2}\n")
    killed = in_a_process(
        tmp_path,
        """
        tracker.follow([WeightsAndBiases(offline=True)], print)
        for step in range(1, 10):
            tracker.log({"kind": "train", "step": step, "loss": 1 / step, "seconds": step / 2})
            if step == 5: tracker.log({"kind": "validation", "step": 5, "loss": 0.4, "whole": False})
        os.kill(os.getpid(), signal.SIGKILL)
    """,
    )
    assert killed.returncode == -signal.SIGKILL
    said.append(killed.stdout)
    identity = (tmp_path / "wandb" / "identity.txt").read_text()
    second = Tracker(tmp_path)
    second.truncate_after(7)
    second.follow([wandb], said.append)
    second.log(start(7))
    steps_from(second, 8, 20)
    second.close()
    series, records = history(tmp_path)
    assert_same(series, expected(20))
    runs = [record.run for record in records if record.HasField("run")]
    assert {run.run_id for run in runs} == {identity} and runs[0].project == "ingot"
    settings = {item.key: json.loads(item.value_json) for item in runs[0].config.update}
    assert settings["model"] == {"layers": 2}
    updates = [item for record in records if record.HasField("config") for item in record.config.update]
    assert {item.key for item in updates} == {"started"}
    assert json.loads(updates[0].value_json) == {"parameters": {"total": 7}}  # no file names of the data
    assert len(said) == 2 and all(f"wandb sync {tmp_path}" in line for line in said)
    third = Tracker(tmp_path)
    third.truncate_after(0)  # begun again: another run, which may have another recipe
    third.follow([wandb], said.append)
    third.close()
    assert (tmp_path / "wandb" / "identity.txt").read_text() != identity


@pytest.mark.parametrize(("checkpoints", "kept"), [("none", []), ("last", [10]), ("all", [5, 10])])
def test_wandb_keeps_checkpoints_as_artifacts_when_asked(
    tmp_path: Path, wandb: WeightsAndBiases, checkpoints: Any, kept: list[int]
):
    tracker = Tracker(tmp_path)
    tracker.follow([wandb.model_copy(update={"checkpoints": checkpoints})], lambda line: None)
    model = tmp_path / "model"
    (model / "inner").mkdir(parents=True)
    for step in (5, 10, 10):  # the end of a run saves what may be saved already
        (model / "inner" / "weights").write_text(f"weights of {step}")
        tracker.keep(step, model)
    tracker.close()
    _, records = history(tmp_path)
    artifacts = [
        record.request.log_artifact.artifact if record.HasField("request") else record.artifact
        for record in records
        if record.HasField("artifact") or (record.HasField("request") and record.request.HasField("log_artifact"))
    ]
    assert [json.loads(artifact.metadata)["step"] for artifact in artifacts] == kept
    for step, artifact in zip(kept, artifacts, strict=True):
        (entry,) = artifact.manifest.contents
        assert (artifact.type, set(artifact.aliases)) == ("model", {"latest", f"step-{step}"})  # in no order
        assert entry.path == "inner/weights"
        if step == kept[-1] or checkpoints == "all":
            assert Path(entry.local_path).read_text() == f"weights of {step}"


@pytest.mark.parametrize(("key", "reason"), [("", "nobody is logged in"), ("0" * 40, "127.0.0.1")])
def test_wandb_goes_offline_where_the_server_is_out_of_reach(tmp_path: Path, wandb, monkeypatch, key: str, reason: str):
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # the port that discards
    monkeypatch.setenv("WANDB_API_KEY", key)
    monkeypatch.setenv("WANDB_HTTP_TIMEOUT", "1")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    done = in_a_process(
        tmp_path,
        """
        tracker.follow([WeightsAndBiases()], print)
        for step in range(1, 4):
            tracker.log({"kind": "train", "step": step, "loss": 1 / step})
        tracker.close()
        """,
    )
    assert (done.returncode, done.stderr) == (0, "")
    (said,) = done.stdout.splitlines()
    assert "offline (" in said and reason in said
    assert_same(history(tmp_path)[0], {"train/loss": expected(3)["train/loss"]})


# --- whatever goes wrong ----------------------------------------------------------------------------------------------


class Broken(Mirror):
    """Works until step 3, and then never again."""

    def log(self, record: Any) -> None:
        if record.get("step") == 3:
            raise OSError(28, "No space\nleft on device")

    def rewind(self, step: int) -> None:
        raise AssertionError("it was left out")

    def keep(self, step: int, model: Path) -> None:
        raise AssertionError("it was left out")

    def close(self) -> None:
        raise AssertionError("it was left out")


def test_a_mirror_that_fails_costs_one_line_and_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(TensorBoard, "open", lambda self, folder, **_: Broken())
    said: list[str] = []
    tracker = Tracker(tmp_path)
    tracker.follow([TensorBoard()], said.append)
    steps_from(tracker, 1, 6)
    tracker.keep(6, tmp_path)
    tracker.truncate_after(5)
    tracker.close()
    assert len(said) == 1 and "tensorboard" in said[0] and "No space left" in said[0] and "\n" not in said[0]
    steps = [record["step"] for record in map(json.loads, (tmp_path / METRICS).open()) if record["kind"] == "train"]
    assert steps == [1, 2, 3, 4, 5]


def test_a_full_disk_costs_tensorboard_only(tmp_path: Path, board: TensorBoard):
    done = in_a_process(
        tmp_path,
        """
        tracker.follow([TensorBoard()], print)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        for step in range(1, 76):
            tracker.log({"kind": "train", "step": step, "a": 1.0, "b": 2.0})
        tracker.close()
    """,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1 and done.stdout.startswith("tensorboard failed")
    assert len((tmp_path / METRICS).read_text().splitlines()) == 75


def test_a_tracker_whose_library_is_missing_is_refused_with_the_mend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(TensorBoard, "library", "no_such_library")
    with pytest.raises(UserError, match=re.escape(f"no_such_library is not installed; {pip_install('track')}")):
        TensorBoard().check()
    (tmp_path / "no_such_library").mkdir()  # a folder beside the recipe is no library
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match="not installed"):
        TensorBoard().check()


def test_a_recipe_names_trackers_by_word_and_each_once():
    source = {"sources": [{"kind": "local", "path": "x"}]}
    model = {"family": "gpt2", "context": 8, "layers": 1, "hidden_size": 8, "heads": 1}
    values = {"name": "x", "data": source, "model": model}
    recipe = Recipe.model_validate({**values, "track": ["tensorboard", {"kind": "wandb", "project": "p"}]})
    assert recipe.track == [TensorBoard(), WeightsAndBiases(project="p")]
    assert Recipe.model_validate(recipe.to_dict()) == recipe
    for wrong, message in ((["tensorbord"], "did you mean 'tensorboard'"), (["wandb", "wandb"], "twice")):
        with pytest.raises(ValueError, match=message):
            Recipe.model_validate({**values, "track": wrong})


def test_points_are_the_finite_figures_of_a_record():
    record = {"kind": "train", "step": 3, "loss": math.nan, "rate": None, "whole": True, "name": "x", "tokens": 5}
    assert points(record) == {"train/tokens": 5}
    assert points({"kind": "validation", "step": 3, "loss": 1.5, "whole": True}) == {"held_out/loss": 1.5}
    assert points(start()) == points({"kind": "end", "step": 3}) == points({"kind": "odd", "loss": 1.0}) == {}
