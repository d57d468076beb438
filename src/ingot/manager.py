"""The models below a folder of runs, for programs: `ingot.ModelManager("runs").load_model("demo@best")`."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import Timeout

from ingot.checkpoint.catalogue import Entry, chosen, entries
from ingot.checkpoint.manifest import Manifest, verify
from ingot.checkpoint.registry import run_names, tag
from ingot.checkpoint.store import MODEL, Checkpoints, lock_of
from ingot.errors import UserError
from ingot.files import DRAFT

if TYPE_CHECKING:
    from ingot.model.decoder import Decoder
    from ingot.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True)
class Loaded:
    """A model with all that its checkpoint holds."""

    model: Decoder
    tokenizer: Tokenizer
    metadata: Manifest
    optimizer: dict[Any, Any] | None
    """the optimizer's state as the engine saved it; none: the checkpoint has no training state, as an imported one"""
    scheduler: dict[str, Any]
    """the schedule's settings, and `step` of `steps` updates done: what the rate is follows from these alone"""


class ModelManager:
    """Lists, loads, verifies, tags and removes the checkpoints below `runs`; `id` is a name, name@step or a tag."""

    def __init__(self, runs: Path | str = "runs"):
        self.runs = Path(runs)

    def list_models(self) -> list[Entry]:
        """Every checkpoint of every run, by name and step; presence and size of its files are looked at."""
        return list(entries(self.runs))

    def load_model(self, id: str) -> Loaded:
        """The model of `id`, its files verified, and what it takes to go on. Raises UserError."""
        found = chosen(id, self.runs)
        manifest = verify(found.folder)
        from ingot.checkpoint.state import load_state
        from ingot.model.huggingface import load_model
        from ingot.tokenizer.tokenizer import Tokenizer

        training = load_state(found.folder / "train") if (found.folder / "train").is_dir() else None
        model, tokenizer = load_model(found.folder / MODEL), Tokenizer.load(found.folder / MODEL)
        return Loaded(model, tokenizer, manifest, (training or {}).get("engine"), _schedule(manifest))

    def show(self, id: str) -> str:
        """The card of a model: data, licence, training, lineage, evaluation and limits, as Markdown."""
        from ingot.convert.card import body

        found = chosen(id, self.runs)
        facts = found.facts()
        loss = "not measured" if facts["loss"] is None else f"{facts['loss']:.4f} nats a token"
        return "\n".join(
            [
                f"# {found.id}\n",
                f"version {found.version}, {facts['family']}, {facts['parameters']:,} parameters, "
                f"{facts['bytes']:,} bytes, {facts['integrity']}, held-out loss {loss}\n",
                *body(found),
            ]
        )

    def verify(self, id: str = "") -> list[Entry]:
        """Check the SHA-256 of every file of `id`, or of all models; those that are whole. Raises CheckpointDamaged."""
        found = [chosen(id, self.runs)] if id else self.list_models()
        for one in found:
            verify(one.folder)
        return found

    def tag(self, id: str, name: str) -> Entry:
        """Give a checkpoint a name of its own, which keeps it from being pruned. Raises UserError."""
        tag(id, name, self.runs)
        return chosen(name, self.runs)

    def removes(self, id: str) -> list[Entry]:
        """What `remove` would remove: all checkpoints of a bare run's name, or the one that `id` means."""
        if id in run_names(self.runs):
            return [one for one in self.list_models() if one.run == id]
        return [chosen(id, self.runs)]

    def remove(self, id: str) -> list[Entry]:
        """Remove a checkpoint, or by a bare name the whole run, and give back what is gone.

        Raises UserError for a run that is training now, and for the last checkpoint of one.
        """
        found = self.removes(id)
        whole = id in run_names(self.runs)
        run = self.runs / (id if whole else found[0].run)
        with self._alone(run) as alone:
            checkpoints = Checkpoints(run)
            last = max((one.step for one in checkpoints.all()), default=None)
            manifest = found[0].manifest if found else None
            if not alone and (whole or manifest is None or manifest.step == last):
                what = "this run is training, and goes on from its last checkpoint"
                raise UserError(what, where=str(run), mend="stop it first, or remove another of its checkpoints")
            if whole:
                rubbish = run.with_name(f"{DRAFT}{run.name}")
                run.rename(rubbish)  # at once for every reader; what a kill leaves is no run
                shutil.rmtree(rubbish, ignore_errors=True)
            elif manifest is not None:
                checkpoints.remove(manifest.step)
        return found

    @contextlib.contextmanager
    def _alone(self, run: Path) -> Iterator[bool]:
        """Hold the run as training holds it; whether that was to be had."""
        lock = lock_of(run)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()


def _schedule(manifest: Manifest) -> dict[str, Any]:
    recipe: Mapping[str, Any] = manifest.recipe
    steps = str((recipe.get("train") or {}).get("settled") or "").partition(" steps for ")[0]
    return {
        "schedule": recipe.get("schedule"),
        "step": manifest.step,
        "steps": int(steps) if steps.isdigit() else None,
    }
