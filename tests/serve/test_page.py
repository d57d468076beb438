"""The page in a real browser, against a real server."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from colours import contrast, palettes

from ingot.serve.keys import Keys

playwright = pytest.importorskip("playwright.sync_api")
expect = playwright.expect

PALETTES = palettes("ingot.serve")
PHONE, DESK = {"width": 360, "height": 740}, {"width": 1280, "height": 800}
PAYLOAD = "<img src=x onerror=\"document.title='forged'\"><script>document.title='forged'</script>&amp;"


@pytest.fixture
def page(visit: Callable[..., Any], server: SimpleNamespace) -> Any:
    """The page with two models at its side, greedy, 12 tokens an answer."""
    return prepared(visit(server.url))


def prepared(page: Any) -> Any:
    page.get_by_role("button", name="Settings").click()
    page.locator("#mode").select_option("chat")
    page.get_by_label("Tokens at most").fill("12")
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("temperature").fill("0")
    return page


def send(page: Any, text: str) -> None:
    page.get_by_role("textbox", name="Your message").fill(text)
    page.keyboard.press("Enter")


def answers(page: Any, count: int) -> list[str]:
    """The texts of all answers, once there are so many and all are done."""
    expect(page.get_by_role("button", name="Retry")).to_have_count(count)
    return page.locator(".answer .text").all_text_contents()


def told(server: SimpleNamespace, *messages: str, model: str = "tiny") -> str:
    """What the API answers to messages of user and assistant in turn."""
    said = [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(messages)]
    asked = {"model": model, "messages": said, "temperature": 0, "max_tokens": 12}
    return httpx.post(f"{server.url}/v1/chat/completions", json=asked).json()["choices"][0]["message"]["content"]


def test_a_conversation_is_what_the_api_says_and_survives_a_reload(page, server):
    send(page, "The quick brown fox")
    first = answers(page, 1)[0]
    assert first == told(server, "The quick brown fox")
    send(page, "jumps")
    assert answers(page, 2) == [first, told(server, "The quick brown fox", first, "jumps")]
    kept = answers(page, 2)
    page.reload()
    assert answers(page, 2) == kept
    page.get_by_role("button", name="New").click()
    expect(page.locator(".turn")).to_have_count(0)


def test_a_message_is_edited_and_an_answer_retried(page, server):
    send(page, "The quick brown fox")
    answers(page, 1)
    send(page, "jumps")
    answers(page, 2)
    page.get_by_role("button", name="Edit").first.click()
    page.get_by_role("textbox", name="Edit your message").fill("A state of the union")
    page.keyboard.press("Enter")
    assert answers(page, 1) == [told(server, "A state of the union")]
    page.get_by_role("button", name="Retry").click()
    assert answers(page, 1) == [told(server, "A state of the union")]


def test_two_checkpoints_stand_side_by_side(page, server):
    page.get_by_role("button", name="Compare").click()
    page.get_by_label("B: temperature").fill("0")
    send(page, "The quick brown fox")
    expected = [told(server, "The quick brown fox", model=name) for name in ("tiny", "other")]
    assert answers(page, 2) == expected and expected[0] != expected[1]
    left, right = (page.locator(".answer").nth(place).bounding_box() for place in (0, 1))
    assert left["x"] + left["width"] <= right["x"] and left["y"] == right["y"]
    send(page, "jumps")
    assert answers(page, 4)[2:] == [
        told(server, "The quick brown fox", mine, "jumps", model=name)
        for name, mine in zip(("tiny", "other"), expected, strict=True)
    ]


def test_a_token_tells_its_probability_and_what_else_it_might_have_been(page, server):
    send(page, "The quick brown fox")
    text = answers(page, 1)[0]
    spans = page.locator(".told").all_text_contents()
    assert "".join(spans) == text and len(spans) > 5
    tip = page.get_by_role("tooltip")
    page.locator(".told").nth(3).hover()
    expect(tip.locator("li.chosen")).to_contain_text("%")
    assert tip.locator("ol").first.locator("li").count() == 5  # the chosen one, greedy, and four others
    page.mouse.move(1, 1)
    expect(tip).to_be_hidden()
    page.locator(".answer .text").focus()
    page.keyboard.press("ArrowRight")
    expect(tip).to_be_visible()
    first = tip.inner_text()
    page.keyboard.press("ArrowRight")
    assert tip.inner_text() != first
    page.keyboard.press("Escape")
    expect(tip).to_be_hidden()


def test_an_answer_is_stopped_and_its_slot_is_free(visit, serve, held, wait_for):
    with serve(slots=1) as server, held(server) as hold:
        page = prepared(visit(server.url))
        send(page, "The quick brown fox")
        worker = server.service.models["tiny"].worker
        wait_for(lambda: worker.busy == 1)
        expect(page.get_by_role("button", name="Stop")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.locator(".note")).to_contain_text("Stopped.")
        hold.go.set()
        wait_for(lambda: worker.busy == 0)


def test_an_error_is_told_in_the_answers_place(page, server):
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Seed").fill("99999999999999999999")
    send(page, "Hi")
    expect(page.get_by_role("alert")).to_contain_text("less than")


def test_text_of_people_and_models_is_never_html(page):
    chunk = {"choices": [{"index": 0, "delta": {"content": PAYLOAD}, "finish_reason": "stop"}]}
    page.route(
        "**/v1/chat/completions",
        lambda route: route.fulfill(
            content_type="text/event-stream", body=f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n"
        ),
    )
    send(page, PAYLOAD)
    assert answers(page, 1) == [PAYLOAD]
    assert page.locator(".said .text").text_content() == PAYLOAD
    page.get_by_role("button", name="Edit").click()
    assert page.get_by_role("textbox", name="Edit your message").input_value() == PAYLOAD
    page.reload()
    assert answers(page, 1) == [PAYLOAD]
    assert (page.title(), page.locator("img, script:not([src])").count()) == ("ingot", 0)


def test_a_key_opens_the_page_and_a_wrong_one_does_not(visit, serve):
    with serve(keys=Keys(["sk-right"])) as server:
        page = visit(server.url)
        door = page.get_by_role("dialog", name="API key")
        for key in ("sk-wrong", "sk-right"):
            expect(door).to_be_visible()
            door.get_by_label("Key").fill(key)
            page.keyboard.press("Enter")
            expect(door if key == "sk-right" else page.get_by_label("temperature")).to_be_hidden()
        expect(page.get_by_label("temperature")).to_be_visible()


def test_keys_alone_do_everything(page, server):
    page.keyboard.press("Escape")
    page.keyboard.press("c")
    expect(page.get_by_role("button", name="Compare")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("c")
    page.keyboard.press("/")
    page.keyboard.type("fox")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("c")  # a letter in a field is a letter
    page.keyboard.press("Enter")
    assert answers(page, 1) == [told(server, "fox\nc")]
    page.keyboard.press("Escape")
    page.keyboard.press("e")
    page.keyboard.type("!")
    page.keyboard.press("Enter")
    assert answers(page, 1) == [told(server, "fox\nc!")]
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keyboard")).to_be_visible()


@pytest.mark.parametrize("viewport", [PHONE, DESK], ids=["phone", "desk"])
def test_everything_fits_and_has_a_name(visit, focusable_names, server, viewport):
    page = prepared(visit(server.url, viewport=viewport))
    page.get_by_role("button", name="Compare").click()
    send(page, "The quick fox " * 2 + "x" * 60)
    answers(page, 2)
    page.get_by_role("button", name="Settings").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    for control in page.locator("button:visible, input:visible, select:visible, textarea:visible").all():
        box = control.bounding_box()
        assert box["height"] >= 24 and box["x"] >= 0 and box["x"] + box["width"] <= viewport["width"]
    names = focusable_names(page)
    assert len(names) > 15 and all(names)


@pytest.mark.parametrize("palette", PALETTES, ids=["light", "dark"])
@pytest.mark.parametrize("ink", ["ink", "quiet", "accent"])
@pytest.mark.parametrize("ground", ["ground", "raised"])
def test_text_has_enough_contrast(palette, ink, ground):
    assert contrast(palette[ink], palette[ground]) >= 4.5
    assert contrast(palette["on-accent"], palette["accent"]) >= 4.5
    assert min(contrast(palette[edge], palette[ground]) for edge in ("edge", "focus")) >= 3
