"""The process's place among its peers: rank, device, collectives. The only reader of environment variables."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import socket
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingot.errors import UserError

if TYPE_CHECKING:
    import torch
    import torch.distributed as dist

PATIENCE = datetime.timedelta(minutes=30)  # for a peer: the first rank may be saving a large model meanwhile
SPINS = "4000"  # turns of a loop: about a tenth of a millisecond
LOOK_AGAIN = 0.02  # seconds between two looks at who has come
LOST = ("gloo", "Connection closed by peer", "Connection reset by peer", "Broken pipe")  # in an error of a collective


def environment(name: str, default: str = "") -> str:
    """The value of an environment variable."""
    return os.environ.get(name, default)


def considerate_threads() -> None:
    """Have numerical libraries start and keep no more threads awake than serve; call before any is imported.

    NumPy's linear algebra, which nothing here needs, starts none. OpenMP's threads wait awake for each other for a
    short time only (GCC's default is milliseconds): beside another program, such as a training run, the one that is
    waited for may be waiting for the very processor on which it is waited for. Whatever the user set, stays.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)


def single_threaded() -> None:
    """Keep the Rust libraries of this worker process from starting threads; call before their first use."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ["RAYON_NUM_THREADS"] = "1"


def neighbours() -> int:
    """How many processes a launcher started on this machine, this one included."""
    return int(environment("LOCAL_WORLD_SIZE", "1"))


def cores() -> int:
    """How many cores are for this process: those it may run on, shared with those that a launcher started beside it."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed // neighbours(), int(environment("SLURM_CPUS_PER_TASK", str(allowed)))))


def most_held() -> int | None:
    """The most bytes of memory that this process has held so far; None where the system does not tell.

    On Linux by its own book of the process: `resource` goes on from what the program that started this one held.
    """
    with contextlib.suppress(OSError):
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        if peak := [line.split()[1] for line in lines if line.startswith("VmHWM:")]:
            return int(peak[0]) * 1024
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def compile_into(folder: Path) -> None:
    """Have torch.compile keep what it makes in `folder`; its workers are told by the environment."""
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder.absolute())


@dataclass(frozen=True)
class World:
    """One process of `size`, which computes on `device`. Every method but `rows` is called by all of them, or by none.

    With one process each of them gives back what it was given, and no process group is needed.
    """

    rank: int
    size: int
    device: torch.device
    group: dist.ProcessGroup | None = None  # through which they speak; none: the one that they joined

    @classmethod
    def alone(cls, device: str = "auto") -> World:
        """One process by itself, on `device` or on the best one there is."""
        import torch

        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        return cls(0, 1, torch.device(device))

    @classmethod
    def join(cls, device: str = "auto") -> World:
        """This process's place among those that a launcher such as torchrun started; alone where there is none.

        Waits for the others. Raises UserError where the launcher's variables are incomplete, or where a machine runs
        more processes than it has GPUs.
        """
        size = int(environment("WORLD_SIZE", "1"))
        if size == 1:
            return cls.alone(device)
        if missing := [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not environment(name)]:
            what = f"WORLD_SIZE is {size}, and {missing[0]} is not set"
            raise UserError(what, where="environment", mend="start several processes with torchrun")
        import torch
        import torch.distributed as dist
        from torch.distributed.rendezvous import rendezvous

        if not dist.is_initialized():
            store, rank, _ = next(rendezvous("env://", timeout=PATIENCE))
            met = _fresh(store, rank, size)
            backends = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "cpu:gloo"
            dist.init_process_group(backends, store=met, rank=rank, world_size=size, timeout=PATIENCE)
        place = cls.alone(device).device
        if place.type == "cuda" and place.index is None:
            place = _own_gpu(int(environment("LOCAL_RANK", "0")))
        if place.type == "cpu":
            torch.set_num_threads(cores())  # launchers say one, for fear of every process taking all
        return cls(dist.get_rank(), size, place)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Around what the processes do together: they part in good order at its end.

        Raises UserError where one of the others ends before.
        """
        if self.size == 1:
            yield
            return
        import torch.distributed as dist

        try:
            yield
        except RuntimeError as error:
            if not _is_lost_peer(error):
                raise
            what = "another process of this run ended, and this one can't go on without it"
            mend = "see what it said; torchrun --max-restarts=3 goes on by itself from the last checkpoint"
            raise UserError(what, where=f"rank {self.rank}", mend=mend) from error
        dist.destroy_process_group()

    def form_group(self) -> None:
        """Have a process group also where there is one process alone, for a library that insists on one."""
        import torch.distributed as dist

        os.environ.setdefault("LOCAL_RANK", "0")
        if not dist.is_initialized():
            backend = "nccl" if self.device.type == "cuda" else "gloo"
            dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)

    def apart(self) -> World:
        """The same processes on a line of their own, so that a second thread may speak meanwhile: from host memory."""
        if self.size == 1:
            return self
        import torch.distributed as dist

        return replace(self, group=dist.new_group(backend="gloo", timeout=PATIENCE))

    @property
    def main(self) -> bool:
        """Whether this is the rank that speaks and writes."""
        return self.rank == 0

    def sum(self, value: torch.Tensor) -> torch.Tensor:
        """The sum of `value` over all ranks, on every rank; in place where there is more than one."""
        if self.size > 1:
            import torch.distributed as dist

            dist.all_reduce(value, group=self.group)
        return value

    def most(self, *numbers: int) -> list[int]:
        """Of each number the largest that any rank gives, on every rank."""
        if self.size == 1:
            return list(numbers)
        import torch
        import torch.distributed as dist

        together = torch.tensor(numbers, dtype=torch.int64)
        dist.all_reduce(together, dist.ReduceOp.MAX, group=self.group)
        return together.tolist()

    def any(self, flag: bool) -> bool:
        """Whether `flag` is set on any rank."""
        return bool(self.most(flag)[0])

    def agreed(self, value: Any) -> Any:
        """What the main rank gives, on every rank: anything that JSON can hold."""
        if self.size == 1:
            return value
        import torch
        import torch.distributed as dist

        text = json.dumps(value).encode() if self.main else b""
        length = self.most(len(text))[0]
        data = torch.frombuffer(bytearray(text or bytes(length)), dtype=torch.uint8)
        dist.broadcast(data, 0, group=self.group)
        return json.loads(bytes(data.tolist()))

    def collected(self, value: Any) -> list[Any]:
        """What every rank gives, in their order, on the main rank; nothing on the others."""
        if self.size == 1:
            return [value]
        import torch.distributed as dist

        found: list[Any] | None = [None] * self.size if self.main else None
        dist.gather_object(value, found, group=self.group)
        return found or []

    def each(self, act: Callable[[], Any]) -> list[Any]:
        """What `act` gives on every rank, in their order, on the main rank; nothing on the others.

        Where it fails on any of them this raises on all: the error itself there, a UserError on the others.
        """
        if self.size == 1:
            return [act()]
        value, error, told = None, None, None
        try:
            value = act()
        except Exception as raised:
            error = raised
            line = raised if isinstance(raised, UserError) else UserError(repr(raised))
            told = [line.what, line.where or f"rank {self.rank}", line.mend]
        found = self.collected((value, told))
        failed = self.agreed(next((told for _, told in found if told), None))
        if error:
            raise error
        if failed:
            raise UserError(*failed)
        return [value for value, _ in found]

    def rows(self, count: int) -> list[int]:
        """How many of a tensor's `count` rows each rank holds where tensors are sharded: even, the last ones short."""
        most = -(-count // self.size)
        return [max(0, min(most, count - rank * most)) for rank in range(self.size)]


def _fresh(store: dist.Store, rank: int, size: int) -> dist.Store:
    """A part of `store` that only the processes which call this now use, once all of them have come.

    torchrun keeps one store for all restarts, in which the addresses of the dead still stand
    (github.com/pytorch/pytorch/issues/135712). So each rank says hello under a name made up now, and the first one
    answers to every name that it sees: an answer to the name of a dead process is read by nobody.
    """
    from torch.distributed import PrefixStore

    if rank:
        name = uuid.uuid4().hex
        store.set(f"ingot/hello/{rank}", name)
        place = store.get(f"ingot/welcome/{name}").decode()
        store.add(f"{place}/here", 1)
        return PrefixStore(place, store)
    place, welcomed, end = f"ingot/{uuid.uuid4().hex}", set[str](), time.monotonic() + PATIENCE.total_seconds()
    while (here := store.add(f"{place}/here", 0)) < size - 1:
        if time.monotonic() > end:
            what = f"only {here + 1} of {size} processes have come"
            raise UserError(what, where="WORLD_SIZE", mend="see what the others said")
        for key in filter(lambda key: store.check([key]), (f"ingot/hello/{other}" for other in range(1, size))):
            if (name := store.get(key).decode()) not in welcomed:
                store.set(f"ingot/welcome/{name}", place)
                welcomed.add(name)
        time.sleep(LOOK_AGAIN)
    return PrefixStore(place, store)


def _own_gpu(number: int) -> torch.device:
    import torch

    if (beside := neighbours()) > (gpus := torch.cuda.device_count()):
        what = f"{beside} processes on this machine, and {gpus} {'GPU' if gpus == 1 else 'GPUs'}"
        raise UserError(what, where=socket.gethostname(), mend=f"start it with torchrun --nproc-per-node {gpus}")
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


def _is_lost_peer(error: RuntimeError) -> bool:
    import torch.distributed as dist

    return isinstance(error, dist.DistError) or any(word in str(error) for word in LOST)


def is_first() -> bool:
    """Whether a launcher counts this process as its first, or there is none: asked before the processes have met."""
    return environment("RANK", "0") == "0"


def fails_first() -> bool:
    """Whether this process is the first of its group to say that it fails, and so the one to say why; asked once.

    Before the group has met, that is the first rank: a mistake in a recipe is the same on all of them.
    """
    if "torch" in sys.modules:  # which is not loaded to learn that it has not been used
        import torch.distributed as dist

        if dist.is_available() and dist.is_initialized():
            try:
                return dist.distributed_c10d._get_default_store().add("ingot/failed", 1) == 1
            except RuntimeError:  # the process that kept the store has gone, and has said why
                return False
    return is_first()
