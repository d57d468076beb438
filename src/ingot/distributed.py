"""The process's place among its peers: rank, device, collectives. The only reader of environment variables."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ingot.errors import UserError

if TYPE_CHECKING:
    import torch


def environment(name: str, default: str = "") -> str:
    """The value of an environment variable."""
    return os.environ.get(name, default)


def single_threaded() -> None:
    """Keep the tokenizer library of this worker process from starting threads; call before its first use."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


@dataclass(frozen=True)
class World:
    """One process of `size`, which computes on `device`."""

    rank: int
    size: int
    device: torch.device

    @classmethod
    def join(cls, device: str = "auto") -> World:
        """This process's place, on `device` or on the best one there is. Raises UserError where there are several."""
        import torch

        if int(environment("WORLD_SIZE", "1")) > 1:
            what = "training in several processes is not there yet"
            raise UserError(what, where="WORLD_SIZE", mend="start ingot without torchrun")
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        return cls(0, 1, torch.device(device))

    def sum(self, value: torch.Tensor) -> torch.Tensor:
        """The sum of `value` over all ranks, on every rank; in place where there is more than one."""
        if self.size > 1:
            import torch.distributed as dist

            dist.all_reduce(value)
        return value
