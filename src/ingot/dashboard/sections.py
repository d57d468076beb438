"""The parts of the page that are text: each a run's facts as escaped HTML, readable without a script."""

from __future__ import annotations

import math
import re
import shlex
from typing import Any

from ingot.dashboard.follow import Record
from ingot.dashboard.markup import NONE_YET, Row, count, entries, mapping, table, tokens
from ingot.dashboard.run import RunRecord, flatten
from ingot.dashboard.series import number, spread
from ingot.dashboard.text import DASH, compact, duration, escape, plain, setting
from ingot.rhythm import Duration

SAMPLE_STEPS = 60  # of all at which samples were written
PRINTED_SAMPLE_STEPS = 5  # of those, on paper
SAMPLES_CHARACTERS = 500_000  # of all samples together
LAST_CHARACTERS = 1_000  # of each of a run's last ones, beside those of other runs
TABLE_ROWS = 40


def verdict(run: RunRecord) -> str:
    """The run in one line of plain text, not escaped."""
    measured = run.measured
    effort = f"after {compact(run.latest('tokens'))} tokens in {' '.join(duration(run.latest('seconds')))}"
    if measured:
        return (
            f"{plain(number(measured.get('bits_per_byte')))} bits per byte on held-out text "
            f"(loss {plain(number(measured.get('loss')))}, perplexity {plain(number(measured.get('perplexity')), 1)}) "
            f"{effort}"
        )
    if math.isfinite(run.latest("loss")):
        return f"training loss {plain(run.latest('loss'))} {effort}; no held-out figure yet"
    return "nothing was recorded yet"


def headline(run: RunRecord) -> str:
    """One sentence about what this is, and one about how far it is."""
    layers, hidden_size = run.setting("model.layers"), run.setting("model.hidden_size")
    shape = f", {setting(layers)} layers of {setting(hidden_size)}" if layers and hidden_size else ""
    size = f" of {compact(run.parameters)} parameters" if math.isfinite(run.parameters) else ""
    family = escape(run.setting("model.family") or "model")
    return f'A {family}{size}{escape(shape)}. <span class="state">{progress(run)}.</span>'


def progress(run: RunRecord) -> str:
    """How far the run is, and what it went on from, such as `Finished: all 636 steps, extended at step 318`."""
    steps, planned, state = run.latest("step"), planned_steps(run), run.state
    if not math.isfinite(steps):
        return f"{state.capitalize()}: {planned:,.0f} steps planned" if math.isfinite(planned) else state.capitalize()
    if finished_early(run):
        told = f"Finished early: {steps:,.0f} of {planned:,.0f} steps"
    elif state == "finished":
        told = f"Finished: all {steps:,.0f} steps"
    else:
        of_all = f" of {planned:,.0f}" if math.isfinite(planned) else ""
        told = f"{state.capitalize()}: {steps:,.0f}{of_all} steps"
    ways = dict.fromkeys(how for how, _ in run.gone_on)
    return ", ".join([told, *(_gone_on(how, [step for one, step in run.gone_on if one == how]) for how in ways)])


def finished_early(run: RunRecord) -> bool:
    """Whether it is finished before its last planned step, having learned out."""
    return run.state == "finished" and run.latest("step") < planned_steps(run)


def _gone_on(how: str, steps: list[float]) -> str:
    times = f" {len(steps)} times, last" if len(steps) > 1 else ""
    return f"{how}{times} at step {steps[-1]:,.0f}"


def figures(run: RunRecord) -> str:
    """The verdict's figures, as far as there are any; the page shows the first as the largest."""
    measured = run.measured
    time, unit = duration(run.latest("seconds"))
    rows = [
        ("bits per byte", plain(number(measured.get("bits_per_byte")))),
        ("held-out loss", plain(number(measured.get("loss")))),
        ("perplexity", plain(number(measured.get("perplexity")), 1)),
        ("training loss", DASH if measured else plain(run.latest("loss"))),
        ("tokens seen", compact(run.latest("tokens"))),
        (unit, time),
    ]
    return entries((name, figure) for name, figure in rows if figure != DASH)


def extent(run: RunRecord) -> str:
    """What the held-out figures were measured on, and what the curves are where that is another extent."""
    measured = run.measured
    if not measured:
        return "No held-out text was scored yet."
    in_training = next((record for record in reversed(run.of("validation")) if record.get("whole") is False), {})
    when = "Measured in training on" if measured.get("whole") is False else "Measured on"
    said = f"{when} {_scored(measured)}, none of it trained on. Raw text has 8 bits per byte."
    if measured.get("whole") and in_training:
        said += f" The held-out curves are measured in training, on {_scored(in_training)}."
    return said


def _scored(record: Record) -> str:
    scored = number(record.get("scored_tokens"))
    if record.get("whole") is False and math.isfinite(scored):
        return f"{compact(scored)} tokens of the held-out text"
    tokens = f" ({compact(scored)} tokens)" if math.isfinite(scored) else ""
    return f"{'all ' if record.get('whole') else ''}held-out text{tokens}"


def measurements(run: RunRecord) -> str:
    """The validation records as a table: the charts' numbers for those who can't see them."""
    records = run.of("validation")
    chosen = [records[place] for place in spread(len(records), TABLE_ROWS)]
    rows: list[Row] = [
        (
            count(record.get("step")),
            [
                compact(number(record.get("tokens"))),
                " ".join(duration(number(record.get("seconds")))),
                _scored(record),
                plain(number(record.get("loss"))),
                plain(number(record.get("perplexity")), 1),
                plain(number(record.get("bits_per_byte"))),
            ],
        )
        for record in chosen
    ]
    heads = ["step", "tokens", "time", "measured on", "loss", "perplexity", "bits per byte"]
    return table(heads, rows) if rows else NONE_YET


def health(run: RunRecord) -> str:
    """The updates that were left out and the ways back, as a table; nothing where there were none."""
    rows: list[Row] = []
    for record in run.journal.events:
        if record.get("kind") not in ("health", "rollback"):
            continue
        back = record["kind"] == "rollback"
        what = f"went back from step {count(record.get('from'))}" if back else "update left out"
        why, skipped = str(record.get("reason", DASH)), _span(record.get("blocks"))
        rows.append((count(record.get("step")), [what, why, skipped]))
    chosen = [rows[place] for place in spread(len(rows), TABLE_ROWS)]
    heads = ["step", "what", "why", "rows skipped"]
    return f"<h3>What it got over</h3>\n{table(heads, chosen, 'words')}" if rows else ""


def _span(blocks: Any) -> str:
    """The blocks [first, end) of the order as text."""
    first, end = map(number, blocks) if isinstance(blocks, list) and len(blocks) == 2 else (math.nan, math.nan)
    return f"{count(first)} to {count(end - 1)}" if end > first else DASH


def samples(run: RunRecord) -> str:
    """What the model wrote, step by step, the prompts in the same order at each."""
    by_step: dict[float, dict[str, Record]] = {}
    for sample in run.samples:
        step = number(sample.get("step"))
        if math.isfinite(step):
            by_step.setdefault(step, {})[str(sample.get("prompt", ""))] = sample
    steps = sorted(by_step)
    shown = [steps[place] for place in spread(len(steps), SAMPLE_STEPS)]
    printed = {shown[place] for place in spread(len(shown), PRINTED_SAMPLE_STEPS)}
    room = max(200, SAMPLES_CHARACTERS // max(1, sum(len(by_step[step]) for step in shown)))
    moments = [_samples_at(step, list(by_step[step].values()), room, on_paper=step in printed) for step in shown]
    return "\n".join(moments) or '<li class="quiet">Nothing yet.</li>'


def last_samples(run: RunRecord) -> str:
    """What the model wrote at the last step at which it wrote."""
    last = max((number(sample.get("step")) for sample in run.samples), default=math.nan)
    return _quotes([sample for sample in run.samples if number(sample.get("step")) == last], LAST_CHARACTERS)


def _samples_at(step: float, written: list[Record], room: int, *, on_paper: bool) -> str:
    tokens = number(written[0].get("tokens"))
    after = f" · {compact(tokens)} tokens" if math.isfinite(tokens) else ""
    quotes = _quotes(written, room)
    mark = " on-paper" if on_paper else ""
    return f'<li class="sample{mark}" data-step="{step:.0f}">\n<h3>Step {step:,.0f}{after}</h3>\n{quotes}\n</li>'


def _quotes(written: list[Record], room: int) -> str:
    texts = [
        (
            escape(sample.get("prompt", "")),
            "<br>" if sample.get("answers") else "",
            escape(_cut(sample.get("text"), room)),
        )
        for sample in written
    ]
    return "\n".join(f'<blockquote dir="auto"><b>{prompt}</b>{gap}{text}</blockquote>' for prompt, gap, text in texts)


def facts(run: RunRecord) -> str:
    """Machine, parameters and recipe in groups: of the recipe one for each part, and one for what stands at its top."""
    return "\n".join([_group("machine", machine(run)), _group("parameters", parameters(run)), recipe(run)])


def recipe(run: RunRecord) -> str:
    """The recipe in groups."""
    top = {key: value for key, value in run.recipe.items() if not isinstance(value, dict)}
    groups = {"run": top} | {key: value for key, value in run.recipe.items() if isinstance(value, dict)}
    return "\n".join(_group(str(name), entries(flatten(values))) for name, values in groups.items() if values)


def _group(name: str, text: str) -> str:
    heading = name.replace("_", " ").capitalize()
    return f'<section class="group"><h3>{escape(heading)}</h3>\n<dl>{text}</dl></section>'


def machine(run: RunRecord) -> str:
    """What the run was measured on, how fast it went, and what it was fed."""
    start, described = run.start, mapping(run.start, "machine")
    memory, peak = number(described.get("memory_gb")), number(run.last("peak").get("matmul_peak"))
    seconds, seen = run.latest("seconds"), run.latest("tokens")
    facts = {key: value for key, value in described.items() if key != "memory_gb"}
    facts |= {
        "memory": f"{memory:g} GB" if math.isfinite(memory) else None,
        "processes": start.get("processes"),
        "precision": start.get("precision"),
        "matmul peak": f"{peak / 1e9:,.0f} GFLOP/s" if math.isfinite(peak) else None,
        "mean speed": f"{compact(seen / seconds)} tokens/s" if seconds > 0 else None,
        "training text": tokens(start.get("train_tokens")),
        "held-out text": tokens(start.get("held_out_tokens")),
        "ingot": start.get("code"),
    }
    known = [(key.replace("_", " "), value) for key, value in flatten(facts) if value is not None]
    return entries(known) or '<p class="quiet">The run has not said yet.</p>'


def parameters(run: RunRecord) -> str:
    """Where the parameters are."""
    counts = mapping(run.start, "parameters") or {"total": run.start.get("parameters", DASH)}
    return entries(counts.items())


def commands(run: RunRecord) -> str:
    """How to go on, as the entries of a list."""
    pairs = [(escape(purpose), escape(command)) for purpose, command in _commands(run)]
    return "\n".join(f"<div><dt>{purpose}</dt><dd><code>{command}</code></dd></div>" for purpose, command in pairs)


def _commands(run: RunRecord) -> list[tuple[str, str]]:
    name, runs = shlex.quote(run.folder.name), run.folder.parent
    where = "" if str(runs) == "runs" else f" --runs {shlex.quote(str(runs))}"
    recipe_file = shlex.quote(str(run.folder / "recipe.yaml")) if run.recipe_text else "RECIPE"
    found: list[tuple[str, str]] = []
    if run.checkpoints:
        prompts = run.setting("samples.prompts")
        prompt = str(prompts[0]) if isinstance(prompts, list) and prompts else "The"
        if any(sample.get("answers") for sample in run.samples):
            found.append(("Talk with it", f"ingot chat {name}{where}"))
        else:
            found.append(("Let it write", f"ingot generate {name} {shlex.quote(prompt)}{where}"))
    if run.state != "finished":
        return [*found, ("Go on where it stands", f"ingot train {recipe_file}")]
    if finished_early(run):
        return found
    try:
        given = Duration.parse(str(run.setting("train.duration")))
    except ValueError:  # a recipe that was edited, or is gone
        return found
    longer = given.longer(max(0.0, number(run.latest("seconds"))))
    return [*found, ("Train it longer", f'ingot train {recipe_file} train.duration="{longer}"')]


def planned_steps(run: RunRecord) -> float:
    """The steps that the run's duration came to: its recipe says `290 steps for 5 minutes`; NaN until it does.

    Found in the text, because reading all of a recipe takes longer than all else about a run.
    """
    said = re.search(r"^ +settled: ['\"]?(\d+) steps for (.+?)['\"]?$", run.recipe_text, re.MULTILINE)
    wanted = re.search(r"^ +duration: ['\"]?(.+?)['\"]?$", run.recipe_text, re.MULTILINE)
    if not said or (wanted and wanted[1] != said[2]):  # a run to be extended knows only what it was before
        return math.nan
    return float(said[1])


def _cut(text: Any, room: int) -> str:
    text = "" if text is None else str(text)
    return text if len(text) <= room else f"{text[:room]}…"
