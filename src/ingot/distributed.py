"""The process's place among its peers: rank, device, seeds, collectives. The only reader of environment variables."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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
    """One process of `size`, which computes on `device`; a single process is a world of size 1 without any backend."""

    rank: int
    size: int
    device: torch.device

    @classmethod
    def join(cls, device: str = "auto") -> World:
        """Join the peers that torchrun announces in RANK, WORLD_SIZE and LOCAL_RANK, or be alone."""
        import torch
        import torch.distributed as dist

        rank, size = int(environment("RANK", "0")), int(environment("WORLD_SIZE", "1"))
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        place = torch.device(device, int(environment("LOCAL_RANK", "0"))) if device == "cuda" else torch.device(device)
        if place.type == "cuda":
            torch.cuda.set_device(place)
        if size > 1 and not dist.is_initialized():
            dist.init_process_group("nccl" if place.type == "cuda" else "gloo")
        return cls(rank, size, place)

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that prints and writes what is written once."""
        return self.rank == 0

    def sum(self, value: torch.Tensor) -> torch.Tensor:
        """The sum of `value` over all ranks, on every rank; in place where there is more than one."""
        if self.size > 1:
            import torch.distributed as dist

            dist.all_reduce(value)
        return value

    def broadcast(self, value: Any) -> Any:
        """Rank 0's `value` on every rank; anything that pickles, between processes of one trusted run."""
        if self.size == 1:
            return value
        import torch.distributed as dist

        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def barrier(self) -> None:
        """Wait until every rank is here."""
        if self.size > 1:
            import torch.distributed as dist

            dist.barrier()

    def leave(self) -> None:
        """Part from the peers at the end of a job."""
        if self.size > 1:
            import torch.distributed as dist

            dist.destroy_process_group()
