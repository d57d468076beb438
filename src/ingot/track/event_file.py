"""A run's records as an event file that TensorBoard reads."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

from ingot.files import make_folder
from ingot.track.tracking import Mirror, Record, points

FOLDER = "tensorboard"  # inside a run's folder
START, STRING = "START", "DT_STRING"  # of the enumerations SessionLog.SessionStatus and DataType
PREFIX = "events.out.tfevents."  # by which TensorBoard knows an event file


class EventFile(Mirror):
    """The run's one event file, written anew at each start: a kill can have left half an event, or steps too many.

    Its clock is that of the training: when the run began, plus its seconds of training so far. So a run that rested
    for a night has no gap.
    """

    def __init__(self, run: Path):
        from tensorboard.summary.writer.record_writer import RecordWriter

        folder = run / FOLDER
        make_folder(folder)
        for old in folder.glob(f"{PREFIX}*"):
            old.unlink()
        self._file = (folder / f"{PREFIX}{time.time():010.0f}.{socket.gethostname()}.ingot").open("wb")
        self._writer = RecordWriter(self._file)
        self._began, self._seconds = 0.0, 0.0
        self._add(file_version="brain.Event:2")
        self.rewind(-1)  # a TensorBoard that has read the old file forgets it
        self._write_recipe(run / "recipe.yaml")

    def log(self, record: Record) -> None:
        """Add the figures of one record, readable at once."""
        if record.get("kind") == "start":
            self._began = self._began or record.get("time", time.time())
        self._seconds = record.get("seconds") or self._seconds
        if values := points(record):
            value = [{"tag": tag, "simple_value": value} for tag, value in values.items()]
            self._add(step=record["step"], summary={"value": value})

    def rewind(self, step: int) -> None:
        """Have readers drop what came after `step`: the mark with which TensorFlow says that it goes on from there."""
        self._add(step=step + 1, session_log={"status": START})

    def keep(self, step: int, model: Path) -> None:
        """Weights are nothing that TensorBoard shows."""

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write_recipe(self, path: Path) -> None:
        if path.exists():
            text = f"```yaml\n{path.read_text('utf-8')}\n```"
            tensor = {"dtype": STRING, "string_val": [text.encode()]}
            value = {"tag": "recipe", "tensor": tensor, "metadata": {"plugin_data": {"plugin_name": "text"}}}
            self._add(step=0, summary={"value": [value]})

    def _add(self, **fields: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        wall_time = (self._began or time.time()) + self._seconds
        self._writer.write(Event(wall_time=wall_time, **fields).SerializeToString())
        self._file.flush()
