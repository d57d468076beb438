"""`ingot export`: a model in the form that other programs load."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from ingot.cli.app import ModelName, app
from ingot.errors import UserError


@app.command(usage="Usage: ingot export MODEL huggingface|gguf|onnx FOLDER [OPTIONS]")
def export(
    model: ModelName,
    format: Annotated[Literal["huggingface", "gguf", "onnx"], Parameter(help="what loads it")],
    folder: Annotated[Path, Parameter(help="a new folder")],
    /,
    *,
    dtype: Annotated[str, Parameter(help="of the weights: fp32, bf16, fp16; gguf: f32, f16, bf16")] = "",
    quantize: Annotated[str, Parameter(help="gguf: q8_0 or q4_0 in place of a dtype")] = "",
    file_gigabytes: Annotated[float, Parameter(help="huggingface: weights in one file, at most")] = 5.0,
    runs: Annotated[Path, Parameter(help="folder of all runs")] = Path("runs"),
) -> None:
    """Copy a model into a FOLDER that another program loads, and compare the two before anything is there."""
    if dtype and quantize:
        raise UserError("a dtype and a quantization at once", where="export", mend="give one of --dtype and --quantize")
    if not file_gigabytes > 0:
        raise UserError("files of no size", where="--file-gigabytes", mend="give a number above 0")
    if quantize and format != "gguf":
        raise UserError(f"{format} is not quantized here", where="--quantize", mend="export to gguf, or give --dtype")
    from ingot.convert.export import export_model

    file_bytes = int(file_gigabytes * 1e9)
    made = export_model(model, format, folder, kind=quantize or dtype, file_bytes=file_bytes, runs=runs)
    print(made.verdict.line)
    print(f"{made.parameters:,} parameters as {made.stored}, {made.bytes / 2**20:,.1f} MiB -> {made.folder}")
