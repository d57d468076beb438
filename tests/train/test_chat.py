"""Chat tuning: the same loop on conversations, loss on the assistant's words alone, a model that knows its stops."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from courses import records

from ingot.checkpoint.store import Checkpoints
from ingot.data.loader import TokenBatch
from ingot.distributed import World
from ingot.language_model import load
from ingot.model.loss import IGNORED
from ingot.prepare import prepare
from ingot.recipe.recipe import Recipe
from ingot.tokenizer.tokenizer import Tokenizer
from ingot.train.folder import begin
from ingot.train.parts import Parts
from ingot.train.run import train
from ingot.train.timetable import Timetable

QUICK = ["evaluation.every=never", "train.save_every=never", "samples.every=never", "train.duration=2 steps"]


@pytest.fixture
def talks(tmp_path: Path) -> Path:
    """30 conversations of unequal length; some are longer than the context, one has an answer that fits nowhere."""
    path = tmp_path / "talks.jsonl"
    lines = []
    for number in range(30):
        turns = [(f"who is {number}?", "the nation " * (1 + number % 3)) for _ in range(1 + number % 4)]
        turns += [("and?", "peace " * 60)] if number == 7 else []
        said = [text for turn in turns for text in turn]
        lines.append(json.dumps({"messages": said}))
    path.write_text("\n".join(lines))
    return path


@pytest.fixture
def tuned(tiny: Callable[..., Path], talks: Path) -> Recipe:
    """The recipe of a run on `talks`, which starts from the run `base`."""
    train(Recipe.load(tiny("base"), [*QUICK, "data.held_out.share=0"]))
    values = json.loads(tiny("tuned").read_text()) | {"start": "base", "loss": "full"}
    values["data"] = {"sources": [{"kind": "conversations", "path": str(talks)}]}
    path = talks.with_name("tuned.yaml")
    path.write_text(json.dumps(values))
    return Recipe.load(path, ["train.duration=6 steps", "samples.every=3 steps", "samples.prompts=['who is it?']"])


def test_a_run_on_conversations_leaves_a_model_that_answers_and_stops(tuned: Recipe, capsys):
    assert tuned.data.packing == "best_fit"
    folder = train(tuned)
    said = " ".join(capsys.readouterr().out.split())
    assert "longer than 32 tokens:" in said and "cut between turns" in said and "try it: ingot chat tuned" in said
    assert "tokens of turns that do not fit into 32 with what they answer" in said
    llm = load("tuned", runs=tuned.runs)
    assert llm.tuned and not load("base", runs=tuned.runs).tuned
    stops = [llm.tokenizer.end, llm.tokenizer.special["<|end|>"]]
    assert json.loads((llm.folder / "generation_config.json").read_text())["eos_token_id"] == stops
    assert json.loads((llm.folder / "tokenizer_config.json").read_text())["chat_template"] == llm.template.source
    samples = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    assert [(one["step"], one["prompt"], one["answers"]) for one in samples] == [
        (step, "who is it?", True) for step in (3, 6)
    ]
    settings = {"temperature": tuned.samples.temperature, "max_new_tokens": 5, "seed": tuned.seed, "top_p": 1}
    assert samples[-1]["text"] == llm.chat([{"role": "user", "content": "who is it?"}], **settings)


def test_transformers_stops_where_it_does(tuned: Recipe):
    """Greedy, after a run long enough to learn that an answer ends."""
    transformers = pytest.importorskip("transformers")
    train(tuned.with_training(duration="60 steps"))
    llm = load("tuned", runs=tuned.runs)
    end = llm.tokenizer.special["<|end|>"]
    reference = transformers.AutoModelForCausalLM.from_pretrained(llm.folder, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(llm.folder)
    asked = [{"role": "user", "content": "who is 7?"}]
    ids = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    made = reference.generate(**ids, max_new_tokens=12, do_sample=False)[0, ids["input_ids"].shape[1] :].tolist()
    answer = llm.chat(asked, temperature=0, max_new_tokens=12)
    assert answer == tokenizer.decode([token for token in made if token not in (end, llm.tokenizer.end)])
    assert made[-1] == end and len(made) < 12
    assert reference.generation_config.eos_token_id == [llm.tokenizer.end, end]


def test_the_loss_is_the_mean_over_the_assistants_tokens_whatever_the_micro_batches(tuned: Recipe):
    """By hand: every conversation's learned tokens, each row on its own, one sum over one count."""
    recipe = begin(tuned.with_memory(micro_batch=1))
    parts = Parts(recipe, World.alone("cpu"))
    batches = parts.rows.loader(Timetable(1, tuple(recipe.stages))).read(0, 8, 32)
    counts = [batch.target_count for batch in batches]
    assert len(batches) == 8 and len(set(counts)) > 2
    total, model = 0.0, parts.engine.model.eval()
    with torch.no_grad():
        for batch in batches:
            for row in range(len(batch.inputs)):
                logits = model(batch.inputs[row : row + 1], batch.positions[row : row + 1])[0]
                kept = batch.targets[row] != IGNORED
                total += float(F.cross_entropy(logits[kept].double(), batch.targets[row][kept], reduction="sum"))
    model.train()
    result = parts.engine.step(batches, factor=0.0, step=0, seed=0)
    assert float(result.loss) == pytest.approx(total / sum(counts), rel=1e-5)
    assert result.targets == sum(counts)


def test_only_what_the_assistant_says_is_a_target(tuned: Recipe):
    parts = Parts(begin(tuned), World.alone("cpu"))
    tokenizer, blocks = parts.tokenizer, parts.rows.epoch_blocks
    batches = parts.rows.loader(Timetable(1, tuple(parts.recipe.stages))).read(0, blocks, 32)
    learned: list[int] = []
    elsewhere = 0
    for batch in batches:
        for inputs, targets in zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True):
            learned += [target for target in targets if target != IGNORED]
            follows = [target in (IGNORED, read) for target, read in zip(targets[:-1], inputs[1:], strict=True)]
            elsewhere += follows.count(False)
    assert elsewhere == 1  # the stream's last token, which is never read itself
    told = tokenizer.decode(learned)
    answers = [piece for piece in told.split("<|end|>") if piece]
    assert set(answers) == {"the nation " * count for count in (1, 2, 3)}
    assert told.count("<|end|>") == len(answers)


def test_a_step_without_targets_changes_nothing_and_is_no_harm(tuned: Recipe):
    engine = Parts(begin(tuned), World.alone("cpu")).engine
    tokens = torch.randint(250, (2, 33), generator=torch.Generator().manual_seed(1))
    positions = torch.arange(32).expand(2, 32).contiguous()
    some = TokenBatch(tokens[:, :-1], tokens[:, 1:], positions, False, 64)
    none = TokenBatch(tokens[:, :-1], torch.full((2, 32), IGNORED), positions, False, 0)
    engine.step([some], factor=1.0, step=0, seed=0)  # the optimizer now has momentum that would move the weights
    before = [value.clone() for value in engine.model.parameters()]
    result = engine.step([none, none], factor=1.0, step=1, seed=0)
    assert (
        not result.applied and float(result.loss) == 0 and result.targets == 0 and math.isfinite(result.gradient_norm)
    )
    assert all(map(torch.equal, engine.model.parameters(), before))
    alone, mixed = (engine.step(given, factor=0.0, step=2, seed=0) for given in ([some], [none, some]))
    assert float(alone.loss) == float(mixed.loss) and float(alone.gradient_norm) == float(mixed.gradient_norm)


def test_a_run_passes_over_rows_without_targets(tuned: Recipe, monkeypatch):
    """Every second step reads questions alone: it is made, and neither counted as harm nor recorded as a loss."""
    from ingot.data import loader

    read = loader.Loader.take

    def silenced(self, first, end, length):
        batches = read(self, first, end, length)
        if (first // (end - first)) % 2 == 0:
            return batches
        return [TokenBatch(b.inputs, torch.full_like(b.targets, IGNORED), b.positions, b.packed, 0) for b in batches]

    monkeypatch.setattr(loader.Loader, "take", silenced)
    folder = train(tuned)
    assert [one["step"] for one in records(folder, "train")] == [1, 3, 5]
    assert not records(folder, "health")
    assert Checkpoints(folder).all()[-1].step == 6


def test_prepare_tells_how_conversations_are_cut(tuned: Recipe, capsys):
    prepare(tuned)
    said = " ".join(capsys.readouterr().out.split())
    assert "longer than 32 tokens:" in said and "best-fit packing:" in said
    prepare(Recipe.model_validate(tuned.to_dict() | {"data": tuned.to_dict()["data"] | {"packing": "slices"}}))
    assert "data.packing=slices cuts conversations anywhere" in " ".join(capsys.readouterr().out.split())


def test_a_template_of_the_model_started_from_is_the_one_it_is_tuned_and_saved_with(tuned: Recipe):
    base = Checkpoints(tuned.runs / "base").all()[-1].model
    turns = "{{ bos_token }}{% for m in messages %}{{ m.role + ':' + m.content + '<|end|>' }}{% endfor %}"
    own = turns + "{% if add_generation_prompt %}assistant:{% endif %}"
    copied = tuned.runs.parent / "foreign"
    copied.mkdir()
    for file in base.iterdir():
        (copied / file.name).write_bytes(file.read_bytes())
    tokenizer = Tokenizer.load(copied)
    Tokenizer(tokenizer.content, tokenizer.settings | {"chat_template": own}).save(copied)
    llm = load(train(tuned.model_copy(update={"start": str(copied)})))
    assert llm.template.source == own and llm.tuned
