"""What several rooms share: one thread, a model in a folder of runs, the same random numbers, a real browser."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings

from ingot.checkpoint.store import save
from ingot.language_model import LanguageModel, load
from ingot.model.architecture import Architecture
from ingot.model.decoder import Decoder
from ingot.model.huggingface import save_model
from ingot.model.initial import Scaled
from ingot.tokenizer.chat import ChatTemplate
from ingot.tokenizer.tokenizer import Tokenizer
from ingot.tokenizer.training import BPE

# Files whose tests take over 20 seconds of a processor, most of them in a few tests.
LONGEST = {
    "convert/test_coded.py",
    "convert/test_damaged.py",
    "engine/test_parallel.py",
    "sweep/test_job.py",
    "tokenizer/test_chat.py",
    "train/test_health.py",
    "train/test_ranks.py",
    "train/test_run.py",
    "train/test_saving.py",
}


def pytest_configure() -> None:
    """Tests that press Ctrl-C mean it, also where a shell began them in the background, deaf to that signal.

    Here and in the processes that tests start, PyTorch has one thread: matrices as small as theirs are slower on two,
    and several times slower beside other workers, for threads that wait for each other wait awake. And no example
    fails because it took long.
    """
    settings.register_profile("untimed", deadline=None)
    settings.load_profile("untimed")
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest comes first, so that no worker is left alone with it at the end."""
    items.sort(key=lambda item: item.path.relative_to(Path(__file__).parent).as_posix() not in LONGEST)


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of random weights: `tiny`, as if tuned on conversations, and `plain`, an older one, as if not."""
    folder = tmp_path_factory.mktemp("models") / "runs"
    trained = BPE(vocabulary=300).train(iter(["The quick brown fox jumps over the lazy dog; 東京 и 😀."] * 4))
    arch = Architecture(family="llama", vocabulary=300, context=96, layers=2, hidden_size=32, heads=2)
    for seed, name in enumerate(("plain", "tiny")):
        model = Decoder(arch, init=Scaled(width=0.3), generator=torch.Generator().manual_seed(seed))
        tokenizer, stops = trained, (trained.end,)
        if name == "plain":
            bare = {key: value for key, value in trained.settings.items() if key != "chat_template"}
            tokenizer = Tokenizer(trained.content, bare)
        else:
            stops = ChatTemplate.of(trained).stops

        def write(place: Path, model: Decoder = model, tokenizer: Tokenizer = tokenizer, stops=stops) -> None:
            save_model(model, place, end=tokenizer.end, stops=stops)
            tokenizer.save(place)

        created = f"2026-11-0{seed + 1}T00:00:00+00:00"
        save(folder / name / "checkpoints" / "step-000007", {"model": write}, step=7, tokens=0, created=created)
    return folder


@pytest.fixture(scope="session")
def llm(runs: Path) -> LanguageModel:
    """The run `tiny`, loaded."""
    return load("tiny", runs=runs)


@pytest.fixture
def two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """For what PyTorch may part among threads, here and in processes that the test starts."""
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


@pytest.fixture
def same_random_numbers() -> None:
    """A test that draws from PyTorch's own generator sees the same numbers each time."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def wait_for() -> Callable[..., None]:
    """Looks again and again until it is so; not where the `process` that should bring it about has ended."""

    def wait(truth: Callable[[], bool], process: subprocess.Popen[str] | None = None, seconds: float = 200) -> None:
        end = time.monotonic() + seconds
        while not truth():
            assert process is None or process.poll() is None, process.communicate()[0]
            assert time.monotonic() < end, "it never came to be"
            time.sleep(0.005)

    return wait


@pytest.fixture(scope="module")  # it keeps an event loop running in this thread, which other tests can do without
def browser() -> Iterator[Any]:
    """A headless Chromium."""
    playwright = pytest.importorskip("playwright.sync_api")
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if not path:
        pytest.skip("there is no chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens a page of a server. Whatever the browser complains of, or asks of another host, fails the test."""
    contexts, complaints = [], []

    def open_page(url: str, path: str = "/", **options: Any) -> Any:
        context = browser.new_context(viewport=options.pop("viewport", {"width": 1280, "height": 800}), **options)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "console", lambda line: complaints.append(line.text) if "Failed to load resource" not in line.text else None
        )
        page.on("request", lambda asked: asked.url.startswith((url, "data:")) or complaints.append(asked.url))
        page.goto(url + path)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not complaints


@pytest.fixture(scope="session")
def focusable_names() -> Callable[[Any], list[str]]:
    """The accessible names of all that the keyboard reaches on a page."""
    focusable = {"name": "focusable", "value": {"type": "booleanOrUndefined", "value": True}}

    def names(page: Any) -> list[str]:
        tree = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
        reached = [node for node in tree if focusable in node.get("properties", [])]
        return [node["name"]["value"] for node in reached if node["role"]["value"] != "RootWebArea"]

    return names
