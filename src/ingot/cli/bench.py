"""`ingot bench`: this machine against its ceilings, and against peers."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter
from cyclopts.types import PositiveFloat, PositiveInt

from ingot.cli.app import family

bench = family("bench", "Measure this machine against its ceilings, and against peers.")


@bench.command(name="train", usage="Usage: ingot bench train [--seconds SECONDS]")
def time_training(
    seconds: Annotated[
        PositiveFloat, Parameter(help="measured time of all contenders; warming up comes on top")
    ] = 60.0,
) -> None:
    """Training throughput beside plain PyTorch and transformers, as shares of this machine's matmul peak."""
    from ingot.bench.train import bench_train

    bench_train(seconds)


@bench.command(name="prepare", usage="Usage: ingot bench prepare [--megabytes MEGABYTES] [--rounds ROUNDS]")
def time_preparing(
    megabytes: Annotated[PositiveFloat, Parameter(help="text to prepare; below 64, ingot works alone")] = 120.0,
    rounds: Annotated[PositiveInt, Parameter(help="times that each contender prepares it")] = 3,
) -> None:
    """Making a token cache beside tiktoken, nanoGPT's way and tokenizers, and what reading it costs a step."""
    from ingot.bench.prepare import bench_prepare

    bench_prepare(megabytes, rounds)


@bench.command(name="generate", usage="Usage: ingot bench generate [--shape SHAPE] [--seconds SECONDS]")
def time_generating(
    shape: Annotated[str, Parameter(help="the model's size: 135M or 15M parameters, drawn at random")] = "135M",
    seconds: Annotated[
        PositiveFloat, Parameter(help="measured time of all contenders; warming up comes on top")
    ] = 120.0,
) -> None:
    """Writing and reading text beside transformers and llama.cpp, with the same weights."""
    from ingot.bench.generate import bench_generate

    bench_generate(shape, seconds)
