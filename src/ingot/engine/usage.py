"""How much of the machine a run uses, as it runs: memory, and how busy processor and GPU are."""

from __future__ import annotations

from collections.abc import Callable

import psutil
import torch


class Usage:
    """What this process and its machine are using, asked for now and then. What can't be told here is left out."""

    def __init__(self, device: torch.device):
        self._device, self._process = device, psutil.Process()
        psutil.cpu_percent()  # the first answer is about the time since Python began
        self._sensors = self._working_sensors() if device.type == "cuda" else {}

    def read(self) -> dict[str, float]:
        """Memory in GB (10^9 bytes), shares of what there is between 0 and 1, power in watts.

        `cpu` is the share of the machine's processors that were busy since the last reading. The GPU's memory is what
        tensors took at most so far, and what was reserved for them; of its utilization NVML tells the last moment's.
        """
        memory = psutil.virtual_memory()
        used = {
            "cpu": psutil.cpu_percent() / 100,
            "memory_gb": self._process.memory_info().rss / 1e9,
            "machine_memory_gb": (memory.total - memory.available) / 1e9,
        }
        if self._device.type == "cuda":
            used["gpu_memory_gb"] = torch.cuda.max_memory_allocated(self._device) / 1e9
            used["gpu_reserved_gb"] = torch.cuda.memory_reserved(self._device) / 1e9
        return used | {name: sensor() for name, sensor in self._sensors.items()}

    def _working_sensors(self) -> dict[str, Callable[[], float]]:
        """Those of NVML that answer: it needs nvidia-ml-py, and a slice of a GPU has none."""
        sensors: dict[str, Callable[[], float]] = {
            "gpu_utilization": lambda: torch.cuda.utilization(self._device) / 100,
            "gpu_power": lambda: torch.cuda.power_draw(self._device) / 1000,
        }
        return {name: sensor for name, sensor in sensors.items() if _answers(sensor)}


def _answers(sensor: Callable[[], float]) -> bool:
    try:
        sensor()
    except Exception:  # whichever the driver's library has for this
        return False
    return True
