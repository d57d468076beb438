"""A model copied into a folder that another program loads; the two are compared before anything is there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from ingot.checkpoint.registry import resolve
from ingot.checkpoint.sums import write_sums
from ingot.convert.card import write_card
from ingot.convert.comparison import Verdict
from ingot.errors import UserError
from ingot.files import new_folder
from ingot.model.architecture import parameter_counts
from ingot.model.codes import Kind
from ingot.model.decoder import Decoder
from ingot.tokenizer.tokenizer import Tokenizer

Format = Literal["huggingface", "gguf", "onnx", "ingot"]


@dataclass(frozen=True)
class Exported:
    """What was written."""

    folder: Path
    stored: str
    """the type of the weights"""
    parameters: int
    bytes: int
    """of all files"""
    verdict: Verdict


@dataclass(frozen=True)
class _Way:
    """One format: the types that it stores weights as, the first the default, and what writes and compares it."""

    kinds: tuple[str, ...]
    write: Callable[[Path, Decoder, Tokenizer, str, str], None]
    check: Callable[[Path, Decoder, Tokenizer, str, str], Verdict]


def export_model(
    reference: str,
    format: Format,
    folder: Path,
    *,
    kind: str = "",
    file_bytes: int | None = None,
    runs: Path = Path("runs"),
) -> Exported:
    """Write the model that `reference` means into `folder`, which is made, and compare it with its source.

    `kind`: the type of the weights (none: the format's default); `file_bytes`: of weights in one file at most, where
    the format splits. Raises UserError, and leaves nothing behind, for what can't be represented, a library that is
    missing, and a difference.
    """
    way = _ways(file_bytes)[format]
    kind = kind or way.kinds[0]
    if kind not in way.kinds:
        what = f"{format} stores no weights as {kind!r:.40} here"
        raise UserError(what, where="export", mend=f"take {' or '.join(way.kinds)}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError("there is something here already", where=str(folder), mend="name a new folder")
    source = resolve(reference, runs)
    from ingot.model.huggingface import load_model

    model, tokenizer = load_model(source).eval(), Tokenizer.load(source)
    name = folder.resolve().name
    with new_folder(folder) as draft:
        way.write(draft, model, tokenizer, kind, name)
        verdict = way.check(draft, model, tokenizer, kind, name)
        write_card(draft, source, format, kind, verdict.line)
        write_sums(draft)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return Exported(folder, kind, parameter_counts(model.arch)["total"], size, verdict)


def _ways(file_bytes: int | None) -> dict[str, _Way]:
    from ingot.convert import coded, huggingface
    from ingot.convert.gguf import check as gguf_check
    from ingot.convert.gguf import writer
    from ingot.convert.onnx import check as onnx_check
    from ingot.convert.onnx import export as onnx

    split = huggingface.FILE_BYTES if file_bytes is None else file_bytes

    def file(folder: Path, name: str, kind: str) -> Path:
        return folder / f"{name}-{kind}.gguf"

    return {
        "huggingface": _Way(
            tuple(huggingface.DTYPES),
            lambda folder, model, tokens, kind, _: huggingface.write(folder, model, tokens, kind, file_bytes=split),
            lambda folder, model, tokens, kind, _: huggingface.check(folder, model, tokens, kind),
        ),
        "gguf": _Way(
            tuple(writer.FILE_TYPES),
            lambda folder, model, tokens, kind, name: writer.write(file(folder, name, kind), model, tokens, kind, name),
            lambda folder, model, tokens, kind, name: gguf_check.check(file(folder, name, kind), model, tokens, kind),
        ),
        "onnx": _Way(
            ("fp32",),
            lambda folder, model, tokens, kind, _: onnx.write(folder, model, tokens),
            lambda folder, model, tokens, kind, _: onnx_check.check(folder, model, tokens),
        ),
        "ingot": _Way(
            coded.KINDS,
            lambda folder, model, tokens, kind, _: coded.write(folder, model, tokens, cast(Kind, kind)),
            lambda folder, model, tokens, kind, _: coded.check(folder, model, tokens, cast(Kind, kind)),
        ),
    }
