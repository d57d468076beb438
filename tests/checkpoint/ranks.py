"""What each of two processes of test_together.py does, under torchrun: they speak, fail and save together."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import torch

from ingot.checkpoint.state import Rows, load_state, save_rows, save_state, tensors_file
from ingot.checkpoint.store import Checkpoints, Parts
from ingot.distributed import World
from ingot.errors import UserError

TENSOR = torch.arange(15.0).reshape(5, 3)  # 3 rows and 2


def parts(world: World, fails: int | None = None) -> Parts:
    """The state that both hold: each its own rows; on one rank it may fail."""
    first = sum(world.rows(5)[: world.rank])
    state = {"rows": Rows((TENSOR[first : first + world.rows(5)[world.rank]],)), "own": torch.full((2,), world.rank)}

    def write(path: Path) -> None:
        if world.rank == fails:
            path.mkdir(exist_ok=True) if world.main else path.write_text("half")  # the other may have made it
            raise UserError("no more room", where=f"rank {world.rank}")
        save_state(path, state, size=world.size) if world.main else save_rows(path, state)

    return {"train" if world.main else f"train/{tensors_file(world.rank)}": write}


def told(act: object) -> str:
    try:
        act()  # type: ignore[operator]
    except (UserError, ValueError) as error:
        return str(error)
    return ""


def fail(world: World) -> None:
    if world.rank == 1:
        raise ValueError("mine alone")


def main(folder: Path) -> None:
    world = World.join("cpu")
    found: dict[str, object] = {}
    with world.together():
        found["collected"] = world.collected({"rank": world.rank, "value": float("nan") if world.rank else (1, "x")})
        found["each"] = world.each(lambda: world.rank * 10)
        found["told"] = world.collected(told(lambda: world.each(lambda: fail(world))))
        beside, sums = world.apart(), []
        talk = threading.Thread(target=lambda: sums.extend(beside.most(number) for number in range(200)))
        talk.start()
        here = [world.most(number + 1000 * world.rank)[0] for number in range(200)]
        talk.join()
        found["apart"] = here == list(range(1000, 1200)) and [one for (one,) in sums] == list(range(200))
        checkpoints = Checkpoints(folder)
        checkpoints.save(parts(world), step=1, tokens=10, world=beside)
        for rank in range(2):
            line = told(lambda rank=rank: checkpoints.save(parts(world, fails=rank), step=2, tokens=20, world=beside))
            found[f"fails-{rank}"] = world.collected(line)
        again = checkpoints.save(parts(world, fails=0), step=1, tokens=10, world=beside)  # there already: none writes
        found["manifests"] = world.collected(again.manifest.step)
        if world.main:
            found["rows"] = load_state(checkpoints.folder_of(1) / "train")["rows"].read()
            save_state(folder / "found", found)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
