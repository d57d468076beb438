"""What a run says and records when it begins and when it ends."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import cast

import ingot
from ingot.dashboard.report import write_report
from ingot.engine.device import copy_rate
from ingot.estimate.devices import Device, kind_of
from ingot.model.architecture import parameter_counts
from ingot.model.memory import Precision
from ingot.recipe.recipe import Recipe
from ingot.rhythm import Duration, in_words
from ingot.train.forecast import Outlook, most_memory
from ingot.train.loop import State
from ingot.train.parts import Parts
from ingot.train.timetable import Timetable


def announce(parts: Parts) -> None:
    """Say what trains, on what, from where."""
    parameters, machine, view = parameter_counts(parts.arch)["total"], parts.machine, parts.cache.train
    world, say = parts.world, parts.meter.say
    together = f", {world.size} processes ({parts.recipe.parallel.kind})" if world.size > 1 else ""
    say(
        f"{parts.recipe.name}: {parts.arch.family}, {parameters:,} parameters, "
        f"on {machine.device} ({machine.cores} threads, {parts.precision}){together}"
    )
    text = "text streamed live" if parts.live else f"{view.tokens:,} tokens in {view.documents:,} documents"
    say(f"{text}; {parts.cache.held_out.tokens:,} held out")


def begin_records(parts: Parts, rows: list[str]) -> bool:
    """Take back what was recorded after the checkpoint that the run goes on from, and record the start on `rows`.

    Whether there was nothing to take back, because that checkpoint was the end of a whole run.
    """
    whole = parts.found is not None and "held_out" in parts.found.manifest.losses
    if not whole:
        take_back(parts)
    parts.tracker.follow(parts.recipe.track, parts.meter.say)
    parts.tracker.log(
        {
            "kind": "start",
            "step": parts.state.step,
            "time": round(time.time()),
            "machine": parts.machine.to_dict(),
            "precision": parts.precision,
            "processes": parts.world.size,
            "parallel": parts.recipe.parallel.kind,
            "parameters": parameter_counts(parts.arch),
            "code": ingot.__version__,
            "train_tokens": parts.cache.train.tokens,
            "held_out_tokens": parts.cache.held_out.tokens,
            "data": parts.cache.report,
            "rows": rows,
        }
    )
    return whole


def take_back(parts: Parts) -> None:
    """Forget what was recorded after the step at which the run stands."""
    parts.tracker.truncate_after(parts.state.step)
    if parts.samples:
        parts.samples.truncate_after(parts.state.step)


def record_rollback(parts: Parts) -> None:
    """Take back what was recorded after the checkpoint that the run has gone back to, and record and say that it has.

    That takes back earlier rollbacks to the same checkpoint, too, so they are recorded again.
    """
    take_back(parts)
    state = parts.state
    for rollback in state.rollbacks:
        if rollback["to"] >= state.step:
            parts.tracker.log({"kind": "rollback", "step": state.step, **rollback})
    last = state.rollbacks[-1]
    (first, end), slower = last["blocks"], f", at ×{state.rate:g} of the rate" if state.rate != 1 else ""
    time = f"{len(state.rollbacks)} of {parts.recipe.health.rollbacks} times"
    parts.meter.say(
        f"went back from step {last['from']:,} to the checkpoint of step {state.step:,} ({time}); what was read since, "
        f"blocks {first:,} to {end - 1:,}, is skipped{slower}"
    )


def close(parts: Parts, complete: bool, timetable: Timetable | None) -> None:
    """Say how it ended and how to go on; without a timetable it ended before it began."""
    state, patience, say = parts.state, parts.recipe.early_stopping, parts.meter.say
    if timetable:
        parts.tracker.log({"kind": "end", "step": state.step, "complete": complete})
    if parts.samples:
        parts.samples.close()
        write_report(parts.recipe.folder)
    if complete:
        say(f"done: {state.step:,} steps, {state.tokens:,} tokens in {in_words(state.seconds)} of training")
        if planned := parts.meter.outlook:
            say(planned.beside(state.seconds, most_memory(parts.world.device)))
        if state.learned_out(patience):
            say(
                f"stopped early: {state.waited} evaluations without a gain on step {state.lowest_at:,}, "
                f"whose loss was {state.lowest:.4f}; the best checkpoint is {parts.recipe.name}@best"
            )
    elif timetable and (state.step >= timetable.steps or state.learned_out(patience)):
        say(f"stopped with all {state.step:,} steps made and saved; the same command measures the end, which is left")
    elif state.step:
        of_all = f" of {timetable.steps:,}" if timetable else ""
        say(f"stopped and saved at step {state.step:,}{of_all}; the same command goes on")
    else:
        say("stopped before the first step; the same command begins again")
    say_what_next(parts, complete=complete)
    parts.tracker.close()  # last: a tracker may take its time to send what is left


def say_complete(parts: Parts) -> None:
    """Say of a run that was asked for again that nothing of it is left to do."""
    learned_out = parts.state.learned_out(parts.recipe.early_stopping)
    more = "; a larger early_stopping.patience goes on with it" if learned_out else ""
    parts.meter.say(f"this run is complete, with {parts.state.step:,} steps{more}")
    say_what_next(parts, complete=True)


def say_what_next(parts: Parts, *, complete: bool) -> None:
    """What to try, how a `complete` run is trained longer, and where to look."""
    if parts.state.step:
        prompt = next(iter(parts.recipe.samples.prompts), "The")
        talk, write = f"ingot chat {parts.recipe.name}", f'ingot generate {parts.recipe.name} "{prompt}"'
        where = "" if parts.recipe.runs == Path("runs") else f" --runs {shlex.quote(str(parts.recipe.runs))}"
        parts.meter.say(f"try it:    {talk if parts.chat else write}{where}")
    if complete and (command := longer(parts.recipe, parts.state)):
        parts.meter.say(f"longer:    {command}")
    parts.meter.say(f"report:    {parts.recipe.folder / 'report.html'}")


def longer(recipe: Recipe, state: State) -> str:
    """The command that trains a complete run on; empty where it learns no more, or can't become longer.

    It names the recipe that the run keeps, which has in it all that the run was begun with.
    """
    if state.learned_out(recipe.early_stopping) or recipe.mixture_changes:
        return ""
    duration = Duration.parse(recipe.train.duration).longer(state.seconds)
    file = shlex.quote(str(recipe.folder / "recipe.yaml"))
    return f'ingot train {file} train.duration="{duration}"'


def outlook(parts: Parts, steps: int) -> Outlook:
    """What tells how long the run of so many steps will take; the matmul peak is measured for it."""
    world, machine = parts.world, parts.machine
    kind = kind_of(world.device)
    peaks = {cast(Precision, parts.precision): parts.peak / world.size}
    bandwidth = copy_rate() if kind == "cpu" else 0.0
    device = Device(machine.device, kind, machine.memory_gb * 1e9, peaks, bandwidth, measured=True)
    return Outlook(parts.recipe, parts.arch, device, steps, world.size)
