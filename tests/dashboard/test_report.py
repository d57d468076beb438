from __future__ import annotations

import base64
import hashlib
import html
import json
import math
import re
import shlex
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from made_up_runs import PAYLOAD, RECIPE, START, Record, add_checkpoint, train_records, validation_record

from ingot.config.changes import override
from ingot.dashboard.curves import LINES, POINTS
from ingot.dashboard.report import write_report
from ingot.rhythm import Duration

WriteRun = Callable[..., Path]


class Page(HTMLParser):
    """What a browser sees: elements, attributes, the text of each, and the chart data."""

    def __init__(self, path: Path):
        super().__init__()
        self.source = path.read_text("utf-8")
        self.elements: Counter[str] = Counter()
        self.attributes: list[tuple[str, str]] = []
        self.texts: list[tuple[str, str]] = []
        self._open = [""]
        self.feed(self.source)
        self.data = json.loads(next(text for element, text in self.texts if element == "application/json"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements[tag] += 1
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in ("meta", "link", "input", "img"):
            self._open.append(dict(attrs).get("type") or tag)

    def handle_endtag(self, tag: str) -> None:
        self._open.pop()

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self._open[-1], data))

    def all(self, element: str) -> list[str]:
        return [text for name, text in self.texts if name == element]


def reported(folder: Path) -> Page:
    return Page(write_report(folder))


def commands(page: Page) -> list[str]:
    return re.findall("<dd><code>(.*?)</code></dd>", page.source)


def test_the_page_is_one_file_that_asks_for_nothing(write_run: WriteRun) -> None:
    page = reported(write_run())
    assert "http:" not in page.source and "https:" not in page.source and "@import" not in page.source
    links = [value for name, value in page.attributes if name in ("src", "href", "action", "srcset", "poster")]
    assert links == ["data:,"]
    assert page.elements["h1"] == 1 and page.elements["script"] == 2


def test_the_verdict_is_the_last_measurement(write_run: WriteRun) -> None:
    page = reported(write_run())
    loss = 4.5 - 300 / 300
    expected = {
        "bits per byte": f"{loss / 2.86:.3f}",
        "held-out loss": f"{loss:.3f}",
        "perplexity": f"{math.exp(loss):.1f}",
        "tokens seen": "1.23M",
        "seconds": f"{300 * 0.37:.0f}",
    }
    shown = dict(re.findall(r"<div><dt>([^<]*)</dt><dd>([^<]*)</dd></div>", page.source.partition("</header>")[0]))
    assert shown == expected
    described = next(value for name, value in page.attributes if name == "content" and "bits per byte" in value)
    assert all(figure in described for figure in expected.values())


def test_what_the_run_got_over_stands_there_escaped_and_only_where_there_was_any(write_run: WriteRun) -> None:
    folder = write_run()
    assert "What it got over" not in reported(folder).source
    events: list[Record] = [
        {"kind": "health", "step": 9, "reason": PAYLOAD, "blocks": [64, 72]},
        {"kind": "rollback", "step": 6, "from": 12, "to": 6, "reason": "the loss leapt to 9.000", "blocks": [48, 96]},
        {"kind": "health", "blocks": "none"},
    ]
    with (folder / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps(event) + "\n" for event in events)
    page = reported(folder)
    assert "What it got over" in page.all("h3") and PAYLOAD not in page.source
    for cell in ("update left out", "64 to 71", "went back from step 12", "the loss leapt to 9.000", "48 to 95"):
        assert cell in page.all("td")


def curves(page: Page) -> dict[str, Record]:
    """The curves of the page's one run by kind and key."""
    (run,) = page.data["runs"]
    return {f"{LINES[series['line']].kind}.{LINES[series['line']].key}": series for series in run["series"]}


def test_the_charts_hold_the_records(write_run: WriteRun) -> None:
    drawn = curves(reported(write_run()))
    assert {"train.loss", "train.rate", "validation.loss", "validation.bits_per_byte"} < set(drawn)
    held_out = {key: drawn["validation.loss"][key] for key in ("label", "step", "tokens", "seconds", "flops", "value")}
    assert held_out == {
        "label": "held-out",
        "step": [100, 200, 300],
        "tokens": [409_600, 819_200, 1_228_800],
        "seconds": [37, 74, 111],
        "flops": [100e12, 200e12, 300e12],
        "value": [pytest.approx(4.5 - step / 300, abs=1e-5) for step in (100, 200, 300)],
    }


def test_what_the_run_says_cannot_become_markup(write_run: WriteRun) -> None:
    samples = [{"step": 1, "prompt": PAYLOAD, "text": f"{PAYLOAD}\ud800\x00"}]
    recipe = {"name": PAYLOAD, "model": {"family": PAYLOAD}, PAYLOAD: {PAYLOAD: PAYLOAD}}
    records = [
        {"kind": "start", "step": 0, "machine": {PAYLOAD: PAYLOAD}, "parameters": {PAYLOAD: PAYLOAD}, "code": PAYLOAD},
        {"kind": "train", "step": 1, "loss": PAYLOAD, "tokens": PAYLOAD},
    ]
    page = reported(write_run(records, samples, recipe))
    assert page.elements["img"] == 0 and page.elements["script"] == 2 and page.elements["style"] == 1
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert PAYLOAD not in page.source
    assert page.all("blockquote") == [f"{PAYLOAD}\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}"]


def test_only_the_pages_own_script_and_style_are_allowed(write_run: WriteRun) -> None:
    page = reported(write_run())
    policy = next(value for name, value in page.attributes if name == "content" and "default-src" in value)
    for element in ("script", "style"):
        content = re.findall(f"<{element}>(.*?)</{element}>", page.source, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content[0].encode()).digest()).decode()
        assert len(content) == 1 and f"{element}-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy and "unsafe" not in policy


def test_the_text_stands_in_the_page_itself(write_run: WriteRun) -> None:
    folder = write_run()
    add_checkpoint(folder, 200, 3.4)
    add_checkpoint(folder, 300, 3.5)
    page = reported(folder)
    body = page.source.partition("<script")[0]
    for text in (
        "a fine processor",
        "1,030 GFLOP/s",
        "7,408,384",
        "hidden_size",
        " is strong",
        "demo@300",
        "0.3 MB",
        "all there",
    ):
        assert text in body
    remarks = re.findall(r"demo@(\d+)</code> <span class=\"quiet\">([^<]*)", body)
    assert remarks == [("200", "best"), ("300", "latest")]
    assert page.all("b") == ["The state of our union"] * 3


def test_the_commands_are_ones_that_the_shell_and_the_recipe_understand(write_run: WriteRun) -> None:
    folder = write_run(recipe=RECIPE | {"samples": {"prompts": ["it's $HOME"]}})
    add_checkpoint(folder, 300, 3.5)
    generate, train = (shlex.split(html.unescape(text)) for text in commands(reported(folder)))
    assert generate == ["ingot", "generate", "demo", "it's $HOME", "--runs", str(folder.parent)]
    assert train[:3] == ["ingot", "train", str(folder / "recipe.yaml")]
    run_on = override(RECIPE, train[3:])["train"]
    assert run_on == RECIPE["train"] | {"duration": str(Duration.parse(RECIPE["train"]["duration"]).longer(0))}


def test_a_run_that_was_stopped_goes_on_by_its_own_recipe(write_run: WriteRun) -> None:
    folder = write_run([START, *train_records(20), {"kind": "end", "step": 20, "complete": False}])
    page = reported(folder)
    assert commands(page) == [f"ingot train {folder / 'recipe.yaml'}"]
    assert "Stopped: 20 of 300 steps." in page.source
    assert (
        dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", page.source))["training loss"]
        == f"{train_records(20)[-1]['loss']:.3f}"
    )


def test_figures_that_are_no_numbers_are_gaps(write_run: WriteRun) -> None:
    records = train_records(9)
    records[3]["loss"], records[4]["loss"], records[5]["loss"] = math.nan, None, math.inf
    del records[6]["loss"]
    page = reported(write_run([START, *records, validation_record(9) | {"perplexity": math.inf}]))
    loss = curves(page)["train.loss"]["value"]
    assert [place for place, value in enumerate(loss) if value is None] == [3, 4, 5, 6]
    assert "perplexity" not in re.findall("<dt>(.*?)</dt>", page.source.partition("</header>")[0])


@pytest.mark.parametrize("recipe", ["", "a: [", "- 1\n- 2", "1: {2: 3}"])
def test_a_run_without_anything_has_a_page(write_run: WriteRun, recipe: str) -> None:
    folder = write_run([], [], recipe)
    page = reported(folder)
    assert curves(page) == {}
    assert page.all("h1") == ["demo"]
    for name in ("recipe.yaml", "metrics.jsonl", "samples.jsonl"):
        (folder / name).unlink()
    assert "Not begun." in reported(folder).source


def test_a_hundred_thousand_steps_are_a_small_file_with_every_extreme(write_run: WriteRun) -> None:
    records: list[Record] = [
        {"kind": "train", "step": step, "tokens": step * 4096, "loss": 3 + step % 97 / 100}
        for step in range(1, 100_001)
    ]
    records[77_777]["loss"], records[55_555]["loss"] = 29.5, 0.125
    samples = [{"step": step, "prompt": str(step % 4), "text": "word " * 500} for step in range(2_000)]
    path = write_report(write_run(records, samples))
    assert path.stat().st_size < 1_500_000
    loss = curves(Page(path))["train.loss"]
    assert len(loss["value"]) <= POINTS
    assert max(loss["high"]) == 29.5 and min(loss["low"]) == 0.125
    assert loss["step"][-1] == 100_000
    assert sum(loss["value"]) / len(loss["value"]) == pytest.approx(3.48, abs=0.01)
