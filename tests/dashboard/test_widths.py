"""Every page at every width in a real browser: nothing is cut, nothing lies over anything else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_up_runs import RECIPE, START, add_checkpoint, add_evaluation, finished_records, train_records

from ingot.dashboard.report import write_report
from ingot.dashboard.study import write_study

WriteRun = Callable[..., Path]
WIDTHS = [360, 390, 800, 1280]
CARDS = 1040  # below it the rows of tables are cards
PAGES = ["/", "/run/demo", "/sweep/study", "report", "study"]
LONG = "a_word_that_is_long_without_any_place_where_it_could_be_broken"

TOO_WIDE = """width => [...document.querySelectorAll('body *')].filter(one => {
  const drawn = one.closest('svg') || one.querySelector('svg');
  const cut = !drawn && one.clientWidth && one.scrollWidth > one.clientWidth + 1;
  return cut || one.getBoundingClientRect().right > width + 1;
}).map(one => `${one.tagName} ${one.className} ${one.textContent.slice(0, 60)}`)"""

CELLS = """all => all.map(one => [
  one.offsetHeight > 0, one.cellIndex, one.closest('table').tHead.rows[0].cells[one.cellIndex].textContent,
  getComputedStyle(one, '::before').content])"""

OVERLAPS = """() => [...document.querySelectorAll('.plot svg')].flatMap((svg) => {
  const end = (path) => Math.max(...path.getAttribute('d').match(/[ML][-\\d.]+/g).map(one => Number(one.slice(1))));
  const reached = Math.max(...[...svg.querySelectorAll('path')].map(end));
  const names = [...svg.querySelectorAll('text[class]')].map(one => one.getBBox());
  const others = [...svg.querySelectorAll('text:not([class])')].map(one => one.getBBox());
  const beside = (a, b) => a.x >= b.x + b.width || b.x >= a.x + a.width;
  const below = (a, b) => a.y + 2 >= b.y + b.height || b.y + 2 >= a.y + a.height;
  const meet = (a, b) => !beside(a, b) && !below(a, b);
  return names.flatMap((a, place) => [
    ...(a.x < reached ? ['over a curve'] : []),
    ...[...names.slice(place + 1), ...others].filter(b => meet(a, b)).map(() => 'over a name')]);
})"""


@pytest.fixture
def every_page(write_run: WriteRun, watch: Any, visit: Any) -> Callable[[str], Any]:
    """Opens one of PAGES, over runs that have something of all that a page can show."""
    source = {"name": f"local: /home/{LONG}/{LONG}/*.jsonl", "instead_of": LONG, "fields": [LONG], "share": 1.0}
    data = {"sources": [source], "dropped": {"too short": {"count": 3, "examples": [LONG]}}, "found": 9}
    more = [
        {"kind": "outlook", "step": 9, "seconds": 99, "memory": 2e9},
        {"kind": "system", "step": 9, "memory_gb": 1.5, "cpu": 0.5},
        {"kind": "health", "step": 41, "reason": f"the loss leapt to 9.000, which is {LONG}", "blocks": [64, 72]},
    ]
    told = [START | {"data": data}, *finished_records()[1:], *more]
    for place, name in enumerate(("demo", LONG)):
        recipe = RECIPE | {"seed": place, "start": LONG * place, "note": {LONG: LONG}}
        run = write_run(told, name=name, recipe=recipe)
        for step in (200, 300):
            add_checkpoint(run, step, 3.5)
        for step in (100, 200, 300):
            add_evaluation(run, step, 3.5)
    study = write_run(name="study/layers-2").parent
    ran = {"name": "layers-2", "values": {LONG: 2}, "state": "failed", "why": LONG, "parameters": 1e6, "best_loss": 3.0}
    law = {"text": "a law", "points": [[1e6, 3.0], [2e6, 2.8]], "curve": [[1e6, 3, 2.9, 3.1], [9e6, 2, 1.9, 2.1]]}
    sweep = {"keys": {LONG: [2]}, "runs": [ran, ran | {"parameters": 2e6}], "law": law}
    (study / "sweep.json").write_text(json.dumps(sweep))
    files = {"report": write_report(study.parent / "demo"), "study": write_study(study / "sweep.json")}

    def open_page(path: str) -> Any:
        where = (files[path].resolve().as_uri(), "") if path in files else (watch().address, path)
        page = visit(*where)
        page.evaluate("document.querySelectorAll('details').forEach(one => (one.open = true))")
        return page

    return open_page


@pytest.mark.parametrize("path", PAGES)
def test_nothing_is_cut_and_every_cell_and_control_has_its_name(
    every_page: Any, focusable_names: Any, path: str
) -> None:
    page = every_page(path)
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 844})
        page.wait_for_timeout(50)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        heights = page.locator("button:visible, input:visible").evaluate_all("all => all.map(one => one.offsetHeight)")
        assert min(heights, default=13) >= 13
        if width < CARDS:
            assert page.evaluate(TOO_WIDE, width) == []
            cells = page.locator("tbody td").evaluate_all(CELLS)
            assert len(cells) > 5
            assert all(shown and place and head and json.dumps(head) == label for shown, place, head, label in cells)
    names = focusable_names(page)
    assert names and all(names)


@pytest.mark.parametrize("width", [390, 1280])
def test_the_names_of_curves_lie_over_nothing(write_run: WriteRun, watch: Any, visit: Any, width: int) -> None:
    for steps in (40, 120, 200, 300):
        write_run([START, *train_records(steps), *finished_records()[301:]], name=f"demo-sweep-steps-{steps}")
    for path in ("/", "/run/demo-sweep-steps-120"):
        page = visit(watch().address, path, viewport={"width": width, "height": 844})
        for axis in ("step", "time"):
            page.get_by_role("radio", name=axis).check()
            assert page.locator(".plot text[class]").count() > 4
            assert page.evaluate(OVERLAPS) == []


def test_samples_are_named_where_no_script_runs(write_run: WriteRun, visit: Any) -> None:
    page = visit(write_report(write_run()).resolve().as_uri(), "", java_script_enabled=False)
    assert page.locator(".sample h3:visible").count() == 3


def test_without_a_cursor_a_chart_tells_where_its_longest_curve_ends(
    write_run: WriteRun, watch: Any, visit: Any
) -> None:
    write_run([START, *train_records(300)], name="many-points")
    write_run([START, *train_records(400)[9::10]], name="far")
    readout = visit(watch().address).locator(".readout").first.text_content()
    assert readout.startswith("step 400") and "many-points 3.0" in readout
