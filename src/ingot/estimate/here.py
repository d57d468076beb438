"""The device at hand, for a plan: its memory as the driver says, its peak as measured. PyTorch is loaded here."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from ingot.estimate.devices import Device, kind_of, listed
from ingot.model.memory import Precision

if TYPE_CHECKING:
    import torch


def this_device(device: torch.device, precision: str) -> Device:
    """`device` with its rate in one number format, measured in a quarter of a second, and a CPU's bandwidth."""
    from ingot.engine.device import Company, copy_rate, describe, matmul_peak

    machine, company = describe(device), Company()
    memory = machine.memory_gb * 1e9
    kind = kind_of(device)
    known = listed(machine.device, memory) if kind == "cuda" else None
    peaks = {cast(Precision, precision): matmul_peak(device, precision)}
    bandwidth = copy_rate() if kind == "cpu" else known.bandwidth if known else 0.0
    return Device(machine.device, kind, memory, peaks, bandwidth, measured=True, busy=company.share())
