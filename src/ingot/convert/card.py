"""The card of a model: what it is, of what data, by whose licence, how it was trained, how good it is and is not."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ingot
from ingot.checkpoint.catalogue import Entry, entry, lineage
from ingot.checkpoint.manifest import MANIFEST
from ingot.config.text import parse_yaml, yaml_word
from ingot.data.corpora import CORPORA
from ingot.errors import UserError
from ingot.model.architecture import Architecture, parameter_counts
from ingot.model.huggingface import load_architecture

LICENCE_UNKNOWN = "not known here: ask whoever gave you the files"
USES = {
    "huggingface": """\
```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{folder}")
model = AutoModelForCausalLM.from_pretrained("{folder}")
ids = tokenizer("{begin}Once", return_tensors="pt", add_special_tokens=False)
print(tokenizer.decode(model.generate(**ids, max_new_tokens=50)[0]))
```""",
    "gguf": """\
```sh
llama-cli -m {file} -p "Once"
```""",
    "ingot": """\
```sh
ingot generate {folder} "Once"
```

Its matrices are whole numbers, which ingot alone reads: it writes, talks, serves and is measured, and is not trained
on.""",
    "onnx": """\
`model.onnx` takes `input_ids`, `attention_mask`, `position_ids` and the cache `past_key_values.*`, which is empty
(length 0) at first; it gives `logits` and the cache `present.*` for the next call. The names are
Optimum's.""",
}


def write_card(folder: Path, source: Path, format: str, kind: str, checked: str) -> None:
    """Write README.md, in the hub's form, for the model folder `source` as it was exported into `folder`."""
    from ingot.tokenizer.tokenizer import Tokenizer

    found = entry(source.parent) if (source.parent / MANIFEST).exists() else None
    arch = load_architecture(source)
    tokenizer = Tokenizer.load(source)
    name = found.run if found else folder.name.removeprefix(".draft-")
    file = next((path.name for path in sorted(folder.glob("*.gguf"))), "")
    use = USES[format].format(folder="path/to/this/folder", file=file, begin=tokenizer.decode([tokenizer.end]))
    size = f"{parameter_counts(arch)['total']:,} parameters, stored as {kind}"
    lines = [
        *_front(arch, format, source, found),
        f"# {name}\n",
        f"A language model of the {arch.family} family: {size}. Made with ingot {ingot.__version__}.\n",
        "## How to use it\n",
        f"{use}\n",
        *(body(found) if found else _unknown()),
        "## Export\n",
        f"Compared with its source before it was written: {checked}. `SHA256SUMS` lists what each file was then.\n",
    ]
    (folder / "README.md").write_text("\n".join(lines), encoding="utf-8")


def body(found: Entry) -> Iterator[str]:
    """Data, licence, training, evaluation and limits of a checkpoint, as Markdown, section by section."""
    manifest = found.manifest
    if not manifest:
        raise UserError(f"the checkpoint is {found.integrity}", where=str(found.folder), mend="use another one")
    past = list(lineage(found))
    known = [one for one in past if isinstance(one, Entry) and one.manifest]
    sources = [source for one in known if one.manifest for source in sources_of(one.manifest.recipe)]
    imported = [
        one.manifest.lineage["imported"] for one in known if one.manifest and "imported" in one.manifest.lineage
    ]
    yield "## Data\n"
    yield from (f"- {_named(source)}" for source in sources)
    yield from (f"- what {one.get('source', 'the imported model')} was trained on" for one in imported)
    yield "" if sources or imported else "Not known.\n"
    yield "## Licence\n"
    yield "Of the data, and so what may be done with the model:\n"
    yield from (f"- {source.get('kind')} {_place(source)}: {licence(source)}" for source in sources)
    yield from (
        f"- {one.get('source', 'an imported model')}: {one.get('licence') or LICENCE_UNKNOWN}" for one in imported
    )
    yield ""
    yield "## Training\n"
    made = manifest.created or "at an unknown time"
    yield f"Step {manifest.step:,}, {manifest.tokens:,} tokens trained on, made {made}.\n"
    yield from _recipe(manifest.recipe)
    yield "Lineage, the newest first:\n"
    yield from (f"- {_ancestor(one)}" for one in past)
    yield ""
    yield "## Evaluation\n"
    losses = [
        f"- {_LOSSES.get(name, name)}: {value:.4f} nats a token" for name, value in sorted(manifest.losses.items())
    ]
    yield from losses or ["Nothing was measured at this checkpoint."]
    yield ""
    yield "## Limits\n"
    arch = found.arch
    context = f"It reads {arch.context:,} tokens at most. " if arch else ""
    yield (
        f"{context}It continues text by what it was trained on: it makes mistakes and invents facts, repeats the "
        "biases of its data, and was not tested for safety. Do not rest a decision about people on it.\n"
    )


_LOSSES = {
    "train": "training, the batch of this step",
    "validation": "held-out text, a sample of it",
    "held_out": "held-out text, all of it",
}


def sources_of(recipe: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The sources of text that a recipe names."""
    return list((recipe.get("data") or {}).get("sources") or [])


def licence(source: Mapping[str, Any]) -> str:
    """Whose the text of a source is, as far as it says itself: the licence of a corpus, or of a package."""
    if package := source.get("package"):
        try:
            about = importlib.metadata.metadata(package)
        except importlib.metadata.PackageNotFoundError:
            return LICENCE_UNKNOWN
        words = str(about.json.get("license_expression") or about.json.get("license") or "")
        return f"{words.splitlines()[0]} (of the package)" if words.strip() else LICENCE_UNKNOWN
    corpus = CORPORA.get(str(source.get("dataset", "")))
    return corpus.licence if corpus and corpus.licence else LICENCE_UNKNOWN


def _front(arch: Architecture, format: str, source: Path, found: Entry | None) -> Iterator[str]:
    """The YAML that the hub reads."""
    yield "---"
    yield "license: other"
    yield f"library_name: {'transformers' if format == 'huggingface' else format}"
    yield "pipeline_tag: text-generation"
    yield f"tags: [{', '.join(dict.fromkeys(('ingot', arch.family, format, 'text-generation')))}]"
    if found and found.loss is not None:
        yield "model-index:"
        yield f"  - name: {yaml_word(found.run)}"
        yield "    results:"
        yield "      - task: {type: text-generation}"
        yield "        dataset: {name: held-out text of the run, type: held-out}"
        yield f"        metrics: [{{type: loss, name: nats a token, value: {found.loss:.6f}}}]"
    yield "---\n"


def _unknown() -> list[str]:
    return [
        "## Data\n\nNot known: the folder that this was made from says nothing of it.\n",
        "## Licence\n\nThat of the model that this was made from.\n",
        "## Training\n\nNot known.\n",
        "## Evaluation\n\nNot measured here.\n",
        "## Limits\n\nIt makes mistakes and invents facts, and was not tested for safety.\n",
    ]


def _recipe(recipe: Mapping[str, Any]) -> Iterator[str]:
    """The parts of a recipe that say how it was trained, as a reader asks for them."""
    for key in ("model", "tokenizer", "optimizer", "schedule", "train"):
        if recipe.get(key):
            yield f"- {key}: `{yaml_word(recipe[key])}`"
    yield ""


def _named(source: Mapping[str, Any]) -> str:
    share = f", weight {source['weight']:g}" if source.get("weight") else ""
    return f"{source.get('kind', 'text')}: {_place(source)}{share}"


def _place(source: Mapping[str, Any]) -> str:
    """What a source is called, without the folders of the machine that it lay on."""
    if path := source.get("path"):
        return Path(str(path)).name
    return str(source.get("dataset") or source.get("package") or source.get("name") or "?")


def _ancestor(one: Entry | str) -> str:
    if isinstance(one, str):
        return f"{Path(one).name} (it is not there any more)"
    about = one.manifest
    imported = about.lineage.get("imported") if about else None
    came = f", imported from {imported.get('source', '?')}" if imported else ""
    return f"{one.id}, version {one.version}, {about.tokens if about else 0:,} tokens{came}"


def stated_licence(folder: Path) -> str:
    """The licence that the card of a foreign model folder states; empty where it states none."""
    try:
        with (folder / "README.md").open(encoding="utf-8") as file:
            text = file.read(2**16)
    except (OSError, UnicodeDecodeError):
        return ""
    if not text.startswith("---\n") or "\n---" not in text:
        return ""
    try:
        front = parse_yaml(text[4:].partition("\n---")[0])
    except UserError:
        return ""
    stated = front.get("license") if isinstance(front, dict) else None
    return stated if isinstance(stated, str) and len(stated) < 100 else ""
