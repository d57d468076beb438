"""Common GPUs: memory, peak rates and bandwidth as NVIDIA's data sheets have them.

Rates are of dense matrix products with sums in float32: where a data sheet counts structured sparsity, half of its
figure; fp32 is plain float32, not TF32. A laptop version, or another power limit, of the same name is slower.
Data centre: data sheets of V100 (2020), T4 (2019), A10 and A100 (2021), H100 and H200 (2024), L4 and L40S (2023), HGX
B200 (2025; 2024's brief has 80 for fp32); RTX A6000 (2021). GeForce: the architecture papers of GA102 (V2, 2021), Ada
(V2, 2023) and RTX Blackwell (2025).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ingot.errors import UserError, nearest
from ingot.model.memory import DeviceKind, Precision

if TYPE_CHECKING:
    import torch

NEAR = 0.12  # how far the memory that a driver tells may lie from that of the data sheet, as a share of it


@dataclass(frozen=True)
class Device:
    """Something to train on."""

    name: str
    kind: DeviceKind
    memory: float
    """bytes"""
    peaks: Mapping[Precision, float]
    """FLOP/s of matrix products in each number format that it is good at"""
    bandwidth: float = 0.0
    """bytes per second between processor and memory; 0: not known"""
    measured: bool = False
    """the peaks were measured here, and not read in a data sheet"""
    busy: float = 0.0
    """share of the machine's processors that others had while they were measured"""

    @property
    def precision(self) -> Precision:
        """The number format that suits it: bf16, else fp16 with scaled losses, else fp32, else fp8 alone."""
        formats: tuple[Precision, ...] = ("bf16", "fp16", "fp32", "fp8")
        return next(name for name in formats if name in self.peaks)


def kind_of(device: torch.device) -> DeviceKind:
    """What arithmetic takes `device` for."""
    return "cuda" if device.type == "cuda" else "cpu"


def _gpu(name: str, gigabytes: float, bandwidth: float, narrow: float, fp32: float, formats: str = "bf16") -> Device:
    """A GPU by gigabytes, GB/s and TFLOP/s; `narrow` is the rate of the 16-bit formats that it has, and half of fp8."""
    peaks: dict[Precision, float] = {"fp32": fp32 * 1e12, "fp16": narrow * 1e12}
    if formats != "fp16":
        peaks = {"bf16": narrow * 1e12, **peaks}
    if formats == "fp8":
        peaks["fp8"] = 2 * narrow * 1e12
    return Device(name, "cuda", gigabytes * 1e9, peaks, bandwidth * 1e9)


DEVICES = {
    device.name: device
    for device in (
        _gpu("B200", 180, 8000, 2250, 75, "fp8"),
        _gpu("H200", 141, 4800, 989, 67, "fp8"),
        _gpu("H100", 80, 3350, 989, 67, "fp8"),  # the SXM5 module
        _gpu("H100-PCIe", 80, 2000, 756, 51, "fp8"),
        _gpu("A100-80GB", 80, 2039, 312, 19.5),
        _gpu("A100-40GB", 40, 1555, 312, 19.5),
        _gpu("L40S", 48, 864, 362, 91.6, "fp8"),
        _gpu("L4", 24, 300, 121, 30.3, "fp8"),
        _gpu("A10", 24, 600, 125, 31.2),
        _gpu("RTX-A6000", 48, 768, 155, 38.7),
        _gpu("V100-32GB", 32, 900, 125, 15.7, "fp16"),
        _gpu("V100-16GB", 16, 900, 125, 15.7, "fp16"),
        _gpu("T4", 16, 320, 65, 8.1, "fp16"),
        _gpu("RTX-5090", 32, 1792, 209.5, 104.8, "fp8"),
        _gpu("RTX-4090", 24, 1008, 165.2, 82.6, "fp8"),
        _gpu("RTX-4080", 16, 717, 97.5, 48.7, "fp8"),
        _gpu("RTX-4070", 12, 504, 58.3, 29.1, "fp8"),
        _gpu("RTX-3090", 24, 936, 71, 35.6),
        _gpu("RTX-3080", 10, 760, 59.5, 29.8),
        _gpu("RTX-3070", 8, 448, 40.6, 20.3),
    )
}


def find_device(name: str) -> Device:
    """The device of that name, however it is spelt. Raises UserError with the nearest one."""
    known = {_plain(device): DEVICES[device] for device in DEVICES}
    if _plain(name) in known:
        return known[_plain(name)]
    beginning = [device for plain, device in known.items() if plain.startswith(_plain(name))]
    mend = f"did you mean {' or '.join(device.name for device in beginning)}?" if beginning else nearest(name, DEVICES)
    raise UserError(f"there is no device {name!r} in the table", where="--device", mend=mend)


def listed(name: str, memory: float) -> Device | None:
    """The device of the table that a driver means by a name such as `NVIDIA H100 80GB HBM3`, of `memory` bytes."""
    words = _plain(name)
    fitting = [device for device in DEVICES.values() if _plain(re.sub(r"-(\d+GB|PCIe)$", "", device.name)) in words]
    near = [device for device in fitting if abs(device.memory - memory) < NEAR * device.memory]
    exact = [device for device in near if ("pcie" in words) == device.name.endswith("PCIe")]
    return max(exact or near, key=lambda device: len(device.name), default=None)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
