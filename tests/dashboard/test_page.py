"""The page's colours, and its two forms in a real browser: live, and as a file."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from colours import contrast, palettes
from made_up_runs import (
    PAYLOAD,
    RECIPE,
    START,
    add_checkpoint,
    add_evaluation,
    lines,
    train_records,
    validation_record,
)

from ingot.dashboard.report import write_report

WriteRun = Callable[..., Path]
PALETTES = palettes("ingot.dashboard")


@pytest.mark.parametrize("palette", PALETTES, ids=["light", "dark"])
@pytest.mark.parametrize("ink", ["ink", "quiet", "train", "held-out", *(f"run-{place}" for place in range(8))])
@pytest.mark.parametrize("ground", ["ground", "raised"])
def test_text_has_enough_contrast(palette: dict[str, str], ink: str, ground: str) -> None:
    assert contrast(palette[ink], palette[ground]) >= 4.5


def expect(*of: Any) -> Any:
    return pytest.importorskip("playwright.sync_api").expect(*of)


def heard(page: Any) -> None:
    """Wait until the page has asked once more what is new."""
    with page.expect_response(re.compile("/live/")):
        page.evaluate("ask()")


def test_several_runs_are_compared_and_chosen(write_run: WriteRun, watch: Any, visit: Any) -> None:
    for place, name in enumerate(("one", "two", "three")):
        recipe = RECIPE | {"seed": place, "model": RECIPE["model"] | {"layers": place + 1}}
        add_evaluation(write_run(name=name, recipe=recipe), 300, 3.5 + place)
    page = visit(watch().address)
    charts = page.locator(".chart h3").all_text_contents()
    assert [title.split(" · ")[0] for title in charts[:3]] == [
        "Loss",
        "Loss",
        "Bits per bytesof held-out text"[:13] + "of held-out text",
    ]
    assert page.locator(".chart").first.locator("path.run:not(.raw)").count() == 3
    differs = page.locator("[data-part=differences] tbody th").all_text_contents()
    assert differs == ["model.layers", "seed"]
    assert page.locator("[data-part=evaluations] thead th").count() == 4
    with page.expect_response(re.compile("/live/")):
        page.get_by_role("checkbox", name="Show two").uncheck()
    expect(page.locator(".chart").first.locator("path.run:not(.raw)")).to_have_count(2)
    assert "run=one" in page.url and "run=two" not in page.url
    page.reload()
    expect(page.get_by_role("checkbox", name="Show two")).not_to_be_checked()
    with page.expect_response(re.compile("/live/")):
        page.get_by_role("button", name="All").click()
    expect(page.locator(".chart").first.locator("path.run:not(.raw)")).to_have_count(3)
    page.get_by_label("Find").fill("thr")
    expect(page.locator("#runs tbody tr:visible")).to_have_count(1)


def test_axes_scales_and_smoothing_draw_anew(write_run: WriteRun, watch: Any, visit: Any) -> None:
    write_run()
    page = visit(watch().address, "/run/demo")
    readout = page.locator(".chart").first.locator(".readout")
    seen = {page.locator(".chart path.train:not(.raw)").first.get_attribute("d")}
    for axis, said in (("tokens", "1.23M tokens"), ("time", "1.9 min"), ("FLOPs", "300T FLOPs")):
        page.get_by_role("radio", name=axis).check()
        expect(readout).to_contain_text(said)
    for box in ("x", "y"):
        page.get_by_role("checkbox", name=box, exact=True).check()
        seen.add(page.locator(".chart path.train:not(.raw)").first.get_attribute("d"))
    page.get_by_label("Smoothing").fill("0")
    assert page.locator(".chart").first.locator("path.raw").count() == 0
    page.get_by_label("Smoothing").fill("100")
    assert page.locator(".chart").first.locator("path.raw").count() == 1
    seen.add(page.locator(".chart path.train:not(.raw)").first.get_attribute("d"))
    assert len(seen) == 4


def test_smoothing_is_a_mean_that_does_not_lag_at_the_beginning(write_run: WriteRun, watch: Any, visit: Any) -> None:
    write_run()
    page = visit(watch().address, "/run/demo")
    assert page.evaluate("smooth([1, 2, null, 6, 9], 1)") == [1, 1.5, 4, 7.5, 7.5]
    line = page.evaluate("smooth(Array.from({length: 100}, (_, place) => 9 - place / 50), 20).slice(0, 80)")
    assert line == pytest.approx([9 - place / 50 for place in range(80)])
    assert page.evaluate("smooth([null, null], 3)") == [None, None]


def test_what_a_run_says_appears_by_itself(write_run: WriteRun, watch: Any, visit: Any) -> None:
    folder = write_run([START, *train_records(20)], [])
    page = visit(watch().address, "/run/demo")
    expect(page.locator(".headline")).to_contain_text("Under way: 20 of 300 steps.")
    with (folder / "metrics.jsonl").open("a") as file:
        event = {"kind": "health", "step": 41, "reason": PAYLOAD, "blocks": [64, 72]}
        file.write(lines([*train_records(40, first=21), event, validation_record(40)]))
    with (folder / "samples.jsonl").open("a") as file:
        file.write(lines([{"step": step, "prompt": PAYLOAD, "text": PAYLOAD} for step in (20, 40)]))
    add_checkpoint(folder, 40, 3.2)
    expect(page.locator(".headline")).to_contain_text("40 of 300 steps", timeout=15_000)
    assert page.locator("[data-part=health] td").nth(1).text_content() == PAYLOAD
    assert page.locator("blockquote").last.text_content() == PAYLOAD * 2
    assert (page.title(), page.locator("img").count()) == ("demo · ingot", 0)
    expect(page.locator("#moment-name")).to_have_text("Step 40")
    assert page.locator("[data-part=checkpoints] tbody tr").count() == 1
    (folder / "metrics.jsonl").write_text(lines([START, *train_records(7)]))
    expect(page.locator(".headline")).to_contain_text("7 of 300 steps", timeout=15_000)


def test_a_checkpoint_is_verified_on_demand(write_run: WriteRun, watch: Any, visit: Any) -> None:
    folder = write_run()
    whole, rotten = add_checkpoint(folder, 200, 3.4), add_checkpoint(folder, 300, 3.5)
    (rotten / "model" / "model.safetensors").write_bytes(b"x" * 297_000)
    page = visit(watch().address, "/run/demo")
    state = page.locator("[data-part=checkpoints] .files > span")
    assert state.all_text_contents() == ["all there", "all there"]
    for folder in (whole, rotten):
        page.get_by_role("button", name=f"Verify {folder.name}").click()
    expect(state.first).to_have_text("verified")
    expect(state.last).to_contain_text("damaged: the content is not what was saved")


def test_keys_alone_move_the_cursor_in_all_charts(write_run: WriteRun, watch: Any, visit: Any) -> None:
    write_run()
    page = visit(watch().address, "/run/demo")
    plot = page.get_by_role("slider", name="Loss: cursor along training")
    plot.focus()
    page.keyboard.press("Home")
    expect(plot).to_have_attribute("aria-valuetext", re.compile("^step 1, train 8.8"))
    page.keyboard.press("PageDown")
    page.keyboard.press("ArrowRight")
    expect(page.locator(".readout").nth(2)).to_contain_text("step 2")
    page.keyboard.press("Escape")
    expect(plot).to_have_attribute("aria-valuetext", re.compile("^step 300"))


def test_the_report_is_the_same_page_in_one_file(write_run: WriteRun, watch: Any, visit: Any) -> None:
    samples = [{"step": step, "prompt": PAYLOAD, "text": PAYLOAD} for step in (100, 300)]
    folder = write_run(samples=samples)
    add_checkpoint(folder, 300, 3.5)
    add_evaluation(folder, 300, 3.5)
    path = write_report(folder)
    report, live = visit(path.resolve().as_uri(), ""), visit(watch().address, "/run/demo")
    for part in (
        "headline",
        "figures",
        "measurements",
        "plan",
        "evaluations",
        "corpus",
        "commands",
        "facts",
        "samples",
    ):
        assert report.locator(f"[data-part={part}]").inner_text() == live.locator(f"[data-part={part}]").inner_text(), (
            part
        )
    drawn = [
        page.locator("#charts path").evaluate_all("all => all.map(one => one.getAttribute('d'))")
        for page in (report, live)
    ]
    assert drawn[0] == drawn[1] and len(drawn[0]) > 8
    assert report.locator("[data-verify]").count() == 0
    assert [moment.get_attribute("data-step") for moment in report.locator(".sample[hidden]").all()] == ["100"]


def test_fifty_long_runs_are_drawn_from_samples_first_and_then_from_all(
    write_run: WriteRun, watch: Any, visit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingot.dashboard.run.AT_ONCE", 10_000)
    records = [START, *train_records(3000), {"kind": "end", "step": 3000, "complete": True}]
    records[1777]["loss"] = 29.5
    for place in range(50):
        write_run(records, [], name=f"run-{place:02}")
    server = watch()
    page = visit(server.address, "/?all=1")
    assert page.locator(".chart").first.locator("path.run").count() == 50
    expect(page.locator("#live")).to_have_text("Follows the runs as they go on.", timeout=60_000)
    heard(page)
    run = server.library.run("run-07")
    assert run and not run.journal.sampled and run.journal.count == 3002
    tallest = page.evaluate("Math.max(...data.runs[7].series.find(one => one.line === 0).high)")
    assert tallest == 29.5 and math.isfinite(tallest)
