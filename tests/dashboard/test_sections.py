"""What a run's page says about how far it is, and about what was measured on which text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from made_up_runs import START, finished_records, train_records, validation_record

from ingot.dashboard import compare, sections
from ingot.dashboard.curves import chart_data
from ingot.dashboard.follow import Record
from ingot.dashboard.kept import plan
from ingot.dashboard.run import RunRecord


def told(records: list[Record], settled: str = "300 steps for 5 minutes", duration: str = "5 minutes") -> RunRecord:
    run = RunRecord.told(Path("runs/demo"), records)
    run.recipe_text = f"train:\n  duration: {duration}\n  settled: {settled}\n"
    return run


def start(step: int) -> Record:
    return START | {"step": step}


def end(step: int, complete: bool = True) -> Record:
    return {"kind": "end", "step": step, "complete": complete}


FIRST = [start(0), *train_records(300), end(300)]


@pytest.mark.parametrize(
    ("said", "records", "settled"),
    [
        ("Not begun: 300 steps planned", [], "300 steps for 5 minutes"),
        ("Not begun", [], "''"),
        ("Under way: 20 steps", [start(0), *train_records(20)], "''"),
        ("Under way: 20 of 300 steps", [start(0), *train_records(20)], "300 steps for 5 minutes"),
        ("Under way: 300 of 300 steps", FIRST[:-1], "300 steps for 5 minutes"),
        ("Stopped: 20 of 300 steps", [start(0), *train_records(20), end(20, False)], "300 steps for 5 minutes"),
        ("Finished: all 300 steps", FIRST, "300 steps for 5 minutes"),
        ("Finished early: 300 of 400 steps", FIRST, "400 steps for 5 minutes"),
        (
            "Under way: 20 of 300 steps, resumed 2 times, last at step 12",
            [start(0), *train_records(9), start(9), *train_records(12, 10), start(12), *train_records(20, 13)],
            "300 steps for 5 minutes",
        ),
        (
            "Under way: 320 of 600 steps, extended at step 300",
            [*FIRST, start(300), *train_records(320, 301)],
            "600 steps for 5 minutes",
        ),
        (
            "Finished: all 600 steps, resumed at step 9, extended at step 300",
            [*FIRST[:10], start(9), *FIRST[10:], start(300), *train_records(600, 301), end(600)],
            "600 steps for 5 minutes",
        ),
    ],
)
def test_how_far_a_run_is(said: str, records: list[Record], settled: str) -> None:
    assert sections.progress(told(records, settled)) == said


def test_steps_settled_for_another_duration_are_no_plan() -> None:
    run = told(FIRST, "300 steps for 5 minutes", "10 minutes")
    assert sections.progress(run) == "Finished: all 300 steps"
    assert sections.progress(told(FIRST, "'300 steps for 5 minutes'", '"5 minutes"')) == "Finished: all 300 steps"
    assert "steps" not in plan(run)


def test_what_has_learned_out_is_not_to_be_trained_longer() -> None:
    assert "Train it longer" in sections.commands(told(FIRST))
    assert "Train it longer" not in sections.commands(told(FIRST, "400 steps for 5 minutes"))


def test_a_plan_of_a_shorter_run_is_not_set_beside_a_longer_one() -> None:
    outlook = {"kind": "outlook", "step": 9, "seconds": 99, "memory": 2e9}
    assert "99 seconds" in plan(told([*FIRST[:20], outlook, *FIRST[20:]]))
    assert "99 seconds" in plan(told([*FIRST[:20], outlook, start(20), *FIRST[20:]]))
    longer = [*FIRST[:20], outlook, *FIRST[20:], start(300), *train_records(305, 301)]
    assert "99 seconds" not in plan(told(longer, "305 steps for 5 minutes"))
    longer.append(outlook | {"step": 302, "seconds": 120})
    assert "2.0 minutes" in plan(told(longer, "305 steps for 5 minutes"))


@pytest.fixture
def scored_twice() -> RunRecord:
    """A run that measured a part of its held-out text in training, and all of it at the end."""
    parts = [validation_record(step, 3.1 - step / 1000) | {"whole": False} for step in (100, 200, 300)]
    whole = validation_record(300, 2.9) | {"scored_tokens": 137_485}
    return told([*finished_records()[:301], *parts, whole, end(300)])


def test_the_list_and_the_page_of_a_run_show_one_held_out_figure(scored_twice: RunRecord) -> None:
    listed = compare.parts([scored_twice], [scored_twice], {})["runs"]
    assert '<td data-label="held-out loss">2.900</td>' in listed
    assert "<dt>held-out loss</dt><dd>2.900</dd>" in sections.figures(scored_twice)
    assert "2.800" not in listed + sections.figures(scored_twice)


def test_what_was_measured_on_which_text_is_told(scored_twice: RunRecord) -> None:
    said = sections.extent(scored_twice)
    assert said.startswith("Measured on all held-out text (137k tokens), none of it trained on.")
    assert said.endswith("The held-out curves are measured in training, on 50k tokens of the held-out text.")
    table = sections.measurements(scored_twice)
    assert table.count("50k tokens of the held-out text") == 3 and table.count("all held-out text (137k tokens)") == 1
    going = told([start(0), validation_record(9) | {"whole": False}])
    assert sections.extent(going).startswith("Measured in training on 50k tokens of the held-out text, none of it")


def held_out_curve(run: RunRecord) -> list[Any]:
    (drawn,) = chart_data([run])["runs"]
    (series,) = [one for one in drawn["series"] if one["label"] == "held-out" and one["line"] == 1]
    return list(series["value"])


def test_a_curve_is_of_one_extent_of_text(scored_twice: RunRecord) -> None:
    assert held_out_curve(scored_twice) == pytest.approx([3.0, 2.9, 2.8])
    assert held_out_curve(told([*FIRST[:301], validation_record(300, 2.9), end(300)])) == pytest.approx([2.9])
