"""`ingot export`: a model in the form that other programs load, or in whole numbers for ingot itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from ingot.cli.app import ModelName, app
from ingot.errors import UserError


@app.command(usage="Usage: ingot export MODEL huggingface|gguf|onnx|ingot FOLDER [OPTIONS]")
def export(
    model: ModelName,
    format: Annotated[Literal["huggingface", "gguf", "onnx", "ingot"], Parameter(help="what loads it")],
    folder: Annotated[Path, Parameter(help="a new folder")],
    /,
    *,
    dtype: Annotated[str, Parameter(help="of the weights: fp32, bf16, fp16; gguf: f32, f16, bf16")] = "",
    quantize: Annotated[str, Parameter(help="ingot: int8 or int4; gguf: q8_0 or q4_0 in place of a dtype")] = "",
    file_gigabytes: Annotated[float, Parameter(help="huggingface: weights in one file, at most")] = 5.0,
    runs: Annotated[Path, Parameter(help="folder of all runs")] = Path("runs"),
) -> None:
    """Copy a model into a FOLDER that another program loads, and compare the two before anything is there.

    The format `ingot` is for ingot itself, in whole numbers: a quarter of the size, or less.
    """
    if dtype and quantize:
        raise UserError("a dtype and a quantization at once", where="export", mend="give one of --dtype and --quantize")
    if not file_gigabytes > 0:
        raise UserError("files of no size", where="--file-gigabytes", mend="give a number above 0")
    if quantize and format not in ("gguf", "ingot"):
        mend = "export to ingot or gguf, or give --dtype"
        raise UserError(f"{format} is not quantized here", where="--quantize", mend=mend)
    if format == "ingot" and not quantize:
        what = f"ingot's own format holds whole numbers{', and no ' + dtype if dtype else ''}"
        mend = "give --quantize int8 or int4; a model as it is, is exported to huggingface"
        raise UserError(what, where="--dtype" if dtype else "export", mend=mend)
    from ingot.convert.export import export_model

    file_bytes = int(file_gigabytes * 1e9)
    made = export_model(model, format, folder, kind=quantize or dtype, file_bytes=file_bytes, runs=runs)
    print(made.verdict.line)
    print(f"{made.parameters:,} parameters as {made.stored}, {made.bytes / 2**20:,.1f} MiB -> {made.folder}")
