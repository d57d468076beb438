"""A run's records at Weights & Biases: on its server, or in the run's folder for `wandb sync`."""

from __future__ import annotations

import secrets
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingot.config.text import parse_yaml
from ingot.files import write_atomically
from ingot.track.tracking import Mirror, Record, Say, WeightsAndBiases, points

if TYPE_CHECKING:
    import wandb

FOLDER = "wandb"  # inside a run's folder; the library's own name
IDENTITY = "identity.txt"  # inside that
STARTED = ("machine", "precision", "processes", "parallel", "parameters", "code")  # of a start, that no recipe says
UPLOAD_SECONDS = 1800.0  # for what is left to send at the end; what is not sent then stays for `wandb sync`


class WandbRun(Mirror):
    """The run, under one identity for as long as its records go on.

    The server is told no step twice: it knows how far it is. What lies in the folder offline is written anew at each
    start, so that there is one such folder and `wandb sync` sends each step once.
    """

    def __init__(self, config: WeightsAndBiases, run: Path, *, goes_on: bool, say: Say):
        self._config, self._name, self._say = config, run.name, say
        self._last: tuple[int, Path] | None = None  # checkpoint
        identity = run / FOLDER / IDENTITY
        if not goes_on or not identity.exists():
            write_atomically(identity, secrets.token_hex(4))
        for old in (run / FOLDER).glob("offline-run-*"):
            shutil.rmtree(old, ignore_errors=True)
        self._run = self._open(run, identity.read_text())
        self._begin = self._run.step  # of what the server does not know yet

    def log(self, record: Record) -> None:
        """Add the figures of one record to those of its step, and what a start says to the run's configuration."""
        if record.get("kind") == "start":
            known = {key: record[key] for key in STARTED if key in record}
            self._run.config.update({"started": known}, allow_val_change=True)
        elif (values := points(record)) and record["step"] >= self._begin:
            self._run.log(values, step=record["step"])

    def rewind(self, step: int) -> None:
        """Nothing: the library refuses steps that it has, so the first account of them stays."""

    def keep(self, step: int, model: Path) -> None:
        """Keep the model, now or at the end, as the recipe says."""
        if self._last and self._last[0] == step:
            return  # the end of a run saves what may be saved already
        self._last = (step, model)
        if self._config.checkpoints == "all":
            self._send(step, model)

    def close(self) -> None:
        """Send what is left to send."""
        if self._last and self._config.checkpoints == "last":
            self._send(*self._last)
        self._run.finish()

    def _send(self, step: int, model: Path) -> None:
        import wandb

        artifact = wandb.Artifact(self._name, type="model", metadata={"step": step})
        for file in sorted(path for path in model.rglob("*") if path.is_file()):
            artifact.add_file(str(file), file.relative_to(model).as_posix())  # a copy: the checkpoint may be gone soon
        self._run.log_artifact(artifact, aliases=["latest", f"step-{step}"])

    def _open(self, run: Path, identity: str) -> wandb.Run:
        """The run on the server or, where that does not know us or is out of reach, offline."""
        reason = "as the recipe says" if self._config.offline else _what_keeps_us_off()
        if not reason:
            opened = self._init(run, identity, resume="allow")
            self._say(f"Weights & Biases: {opened.url}")
            return opened
        opened = self._init(run, identity, mode="offline")
        self._say(f"Weights & Biases: offline ({reason}); to send it: wandb sync {Path(opened.dir).parent}")
        return opened

    def _init(self, run: Path, identity: str, **how: Any) -> wandb.Run:
        import wandb

        recipe = run / "recipe.yaml"
        return wandb.init(
            id=identity,
            name=self._name,
            project=self._config.project,
            entity=self._config.entity or None,
            dir=run,
            config=parse_yaml(recipe.read_text("utf-8")) if recipe.exists() else None,
            reinit="create_new",  # whatever else runs in this process has a run of its own
            settings=wandb.Settings(
                console="off",  # log.txt has it
                silent=True,
                x_disable_stats=True,  # the run's own records of kind `system` are sent
                finish_timeout=UPLOAD_SECONDS,
            ),
            **how,
        )


def _what_keeps_us_off() -> str:
    """Why the server can't be written to; empty where it can. Nobody is asked anything: a run is not to wait for it."""
    import wandb

    try:
        return "" if wandb.login(prompt=False, verify=True) else "nobody is logged in"
    except Exception as error:
        return " ".join(str(error).split())[:200]
