"""A stranger's model becomes a run with one checkpoint: `runs/<name>/checkpoints/step-000000`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

import ingot
from ingot.checkpoint.store import FOLDER, MODEL, Checkpoint, Checkpoints
from ingot.checkpoint.sums import check_sums
from ingot.convert.card import stated_licence
from ingot.errors import UserError
from ingot.files import sha256
from ingot.model.decoder import Decoder
from ingot.model.foreign import TOKENIZER_BYTES, inside, read_json
from ingot.model.huggingface import INDEX, WEIGHTS, load_architecture, load_model, save_model
from ingot.tokenizer.chat import ChatTemplate
from ingot.tokenizer.tokenizer import Tokenizer

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
LOOKED_AT = 8  # tokens that an imported model must make numbers of
_DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16}


@dataclass(frozen=True)
class Found:
    """What a source holds."""

    model: Decoder
    tokenizer: Tokenizer
    stops: tuple[int, ...]
    """tokens that end what it writes"""
    format: str
    licence: str
    """as its own card states it; empty: it states none"""


def import_model(source: Path, name: str = "", runs: Path = Path("runs"), tokenizer: Path | None = None) -> Checkpoint:
    """Copy a Hugging Face folder, a GGUF file or a llama2.c `.bin` into the runs, as the run `name`.

    Raises UserError for a model that is not whole or does not fit, by the first thing that does not, and for a name
    that is taken; nothing is written then.
    """
    name = name or re.sub(r"[^A-Za-z0-9._-]+", "-", source.resolve().name.removesuffix(".gguf")).strip("-.")
    if not NAME.fullmatch(name):
        raise UserError(f"{name!r:.60} is no name for a run", where="--name", mend="take letters, digits, dots, dashes")
    if (runs / name).exists():
        raise UserError("there is a run of this name", where=str(runs / name), mend="give another by --name")
    found = _read(source, tokenizer)
    _check(found, source)

    def write(folder: Path) -> None:
        save_model(found.model, folder, end=found.tokenizer.end, stops=found.stops)
        found.tokenizer.save(folder)

    about = {"source": source.resolve().name, "format": found.format, "licence": found.licence}
    lineage = {"imported": about, "tokenizer": found.tokenizer.fingerprint}
    if source.is_file():
        lineage["imported"] = about | {"sha256": sha256(source)}
    return Checkpoints(runs / name).save({MODEL: write}, step=0, tokens=0, code=ingot.__version__, lineage=lineage)


def _read(source: Path, tokenizer: Path | None) -> Found:
    if source.is_dir():
        check_sums(source)
        if (source / FOLDER).is_dir():
            raise UserError("this is a run already", where=str(source), mend=f"use it as {source.name}")
        files = sorted(source.glob("*.gguf"))
        if not (source / "config.json").exists() and len(files) == 1:
            return _read_gguf(inside(source, files[0].name))
        return _read_folder(source)
    if not source.is_file():
        raise UserError("there is no such file or folder", where=str(source), mend="name a model's folder or file")
    if source.suffix == ".gguf":
        return _read_gguf(source)
    if source.suffix == ".bin":
        from ingot.convert.llama2c import read

        model, tokens = read(source, tokenizer)
        return Found(model, tokens, (tokens.end, tokens.special["</s>"]), "llama2.c", "")
    what = f"a file of the kind {source.suffix or source.name!r:.20}"
    mend = "known are Hugging Face folders, .gguf, and llama2.c's .bin; weights as pickles are never opened"
    raise UserError(what, where=str(source), mend=mend)


def _read_gguf(path: Path) -> Found:
    from ingot.convert.gguf.reader import read

    model, tokens = read(path)
    return Found(model, tokens, _stops(tokens, []), "gguf", "")


def _read_folder(folder: Path) -> Found:
    load_architecture(folder)  # what it refuses is told before anything about files
    config = read_json(inside(folder, "config.json"))
    model = load_model(folder, dtype=_stored_dtype(folder))
    generation = read_json(inside(folder, "generation_config.json")) if _there(folder, "generation_config.json") else {}
    named = generation.get("eos_token_id", config.get("eos_token_id"))
    ends = [one for one in (named if isinstance(named, list) else [named]) if isinstance(one, int)]
    tokens = _tokenizer(folder, ends)
    return Found(model, tokens, _stops(tokens, ends), "huggingface", stated_licence(folder))


def _tokenizer(folder: Path, ends: list[int]) -> Tokenizer:
    """The tokenizer of a folder, its end token by the configuration where it names none itself."""
    if not _there(folder, "tokenizer.json"):
        mend = "AutoTokenizer.from_pretrained(…).save_pretrained(…) writes one"
        raise UserError("there is no tokenizer.json", where=str(folder), mend=mend)
    path = inside(folder, "tokenizer.json")
    if path.stat().st_size > TOKENIZER_BYTES:
        raise UserError(f"a tokenizer of {path.stat().st_size:,} bytes", where=str(path), mend="it is none")
    settings = read_json(inside(folder, "tokenizer_config.json")) if _there(folder, "tokenizer_config.json") else {}
    settings.pop("auto_map", None)  # code of its own, which nobody here runs
    if _there(folder, "chat_template.jinja") and "chat_template" not in settings:
        template = inside(folder, "chat_template.jinja")
        if template.stat().st_size < 2**20:
            settings["chat_template"] = template.read_text(encoding="utf-8", errors="replace")
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise UserError("this is no text", where=str(path), mend="the file is damaged") from None
    if not settings.get("eos_token") and ends:
        described = read_json(path) if path.stat().st_size < TOKENIZER_BYTES else {}
        named = {
            one.get("id"): one.get("content") for one in described.get("added_tokens", []) if isinstance(one, dict)
        }
        settings["eos_token"] = named.get(ends[0])
    begin = _name(settings.get("bos_token"))
    if begin and begin != _name(settings.get("eos_token")):  # documents are led by it, and end with another
        settings["document_token"] = begin
    return Tokenizer(content, settings, where=str(path))


def _name(token: Any) -> str:
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else ""


def _stops(tokens: Tokenizer, ends: list[int]) -> tuple[int, ...]:
    """All that ends what the model writes: what leads documents, the end of a text, and of an answer."""
    stops = [tokens.end, *(end for end in ends if 0 <= end < tokens.vocabulary)]
    named = _name(tokens.settings.get("eos_token"))
    if named in tokens.special:
        stops.append(tokens.special[named])
    if "chat_template" in tokens.settings:
        stops += ChatTemplate.of(tokens).stops
    return tuple(dict.fromkeys(stops))


def _stored_dtype(folder: Path) -> torch.dtype:
    """The type that all weights of a folder have; float32 where they differ."""
    names = [WEIGHTS]
    if not (folder / WEIGHTS).exists():
        where = read_json(inside(folder, INDEX)).get("weight_map")
        names = sorted({str(name) for name in where.values()}) if isinstance(where, dict) else []
    kinds: set[str] = set()
    for name in names:
        try:
            with safe_open(inside(folder, name), framework="pt") as file:
                kinds |= {file.get_slice(key).get_dtype() for key in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, ValueError) as error:
            what = f"not valid safetensors: {error!s:.200}"
            raise UserError(what, where=str(folder / name), mend="the file is damaged") from None
    return _DTYPES.get(kinds.pop(), torch.float32) if len(kinds) == 1 else torch.float32


def _there(folder: Path, name: str) -> bool:
    return (folder / name).exists() or (folder / name).is_symlink()


@torch.inference_mode()
def _check(found: Found, source: Path) -> None:
    """Raises UserError for a tokenizer that the model does not know, and for weights that make no numbers."""
    model, tokens = found.model, found.tokenizer
    mend = "the files are damaged, or do not belong together"
    if tokens.vocabulary > model.arch.vocabulary:
        what = f"the tokenizer has {tokens.vocabulary:,} tokens and the model {model.arch.vocabulary:,}"
        raise UserError(what, where=str(source), mend=mend)
    if not all(torch.isfinite(parameter).all() for parameter in model.parameters()):
        raise UserError("a weight is no number", where=str(source), mend=mend)
    size = min(LOOKED_AT, model.arch.context)
    ids = torch.arange(size)[None] % model.arch.vocabulary
    model.eval()
    if not torch.isfinite(model(ids)).all():
        raise UserError("the model makes no numbers of a text", where=str(source), mend=mend)
