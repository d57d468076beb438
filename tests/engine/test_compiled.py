"""What torch.compile makes is kept where the recipe says, and what a kill left half made is made again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from torch import Tensor

from ingot.data.loader import TokenBatch
from ingot.distributed import World, environment
from ingot.engine.compiled import MARK, compile_kept, reason
from ingot.engine.engine import Engine
from ingot.engine.parallel import Automatic
from ingot.errors import UserError
from ingot.model.architecture import Architecture
from ingot.model.decoder import Decoder
from ingot.optim.optimizer import AdamW

SHAPE = Architecture(family="llama", vocabulary=61, context=16, layers=1, hidden_size=16, heads=2)
KILLED = """
import os, signal, sys
from pathlib import Path
from ingot.engine import compiled
folder = Path(sys.argv[1])
with compiled._kept_in(folder):
    (folder / "ab" / "half.so").write_bytes(b"")
    (folder / "ab" / "half.so").touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def engine() -> Engine:
    return Automatic().build(Decoder(SHAPE), AdamW(), World(0, 1, torch.device("cpu")), clip=1.0, precision="fp32")


def batches() -> list[TokenBatch]:
    tokens = torch.zeros(2, 16, dtype=torch.long)
    positions = torch.arange(16).expand(2, -1).contiguous()
    return [TokenBatch(tokens, tokens, positions, packed, 32) for packed in (False, True)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of compiled code with one library in it that was made long ago."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "elsewhere")  # and back again after the test
    made = tmp_path / "cache" / "compiled"
    (made / "ab").mkdir(parents=True)
    (made / "ab" / "old.so").write_bytes(b"whole")
    os.utime(made / "ab" / "old.so", (1e9, 1e9))
    return made


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Puts a function in the place of the compiler; it is called when compiled code first runs, and may raise."""

    def take(compiling: Callable[[], None]) -> None:
        def compile(function: Callable[..., Tensor], **_: object) -> Callable[..., Tensor]:
            def run(*args: object, **kwargs: object) -> Tensor:
                compiling()
                return function(*args, **kwargs)

            return run

        monkeypatch.setattr(torch, "compile", compile)

    return take


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and not path.name.endswith(".lock"))


def test_the_compiler_is_told_the_folder_and_the_progress_is_told(folder, compiler):
    told: list[int] = []
    seen: set[str] = set()
    compiler(lambda: seen.add(environment("TORCHINDUCTOR_CACHE_DIR")))
    assert compile_kept(engine(), batches(), folder, told.append) == ""
    assert told == [1, 2]
    assert seen == {str(folder)}
    assert names(folder) == ["old.so"], "what is whole stays, and no mark"


def test_only_steps_are_compiled(folder, compiler):
    calls: list[int] = []
    compiler(lambda: calls.append(1))
    one = engine()
    assert compile_kept(one, batches(), folder, lambda count: None) == ""
    tried = len(calls)
    with torch.no_grad():  # an evaluation, whose shapes are others
        one.model(torch.zeros(1, 7, dtype=torch.long))
    assert len(calls) == tried
    one.step(batches()[:1], factor=1.0, step=0, seed=1)
    assert len(calls) == tried + SHAPE.layers


def test_what_does_not_load_is_thrown_away_and_made_once_more(folder, compiler):
    broken = folder / "ab" / "old.so"
    broken.write_bytes(b"")
    tried: list[bool] = []

    def load() -> None:
        tried.append(broken.exists())
        if broken.exists():
            raise RuntimeError(f"backend='inductor' raised:\nImportError: {broken}: file too short")

    compiler(load)
    one = engine()
    assert compile_kept(one, batches(), folder, lambda count: None) == ""
    assert tried == [True, False, False]
    assert one.step(batches(), factor=1.0, step=0, seed=1).loss.isfinite()
    assert tried[3:], "the step is a compiled one"


def test_what_never_loads_is_tried_twice_and_costs_one_line(folder, compiler):
    tried: list[int] = []

    def load() -> None:
        tried.append(1)
        raise ImportError(f"{folder}/ab/new.so: file too short\nand a long story")

    compiler(load)
    one = engine()
    assert compile_kept(one, batches(), folder, lambda count: None) == f"{folder}/ab/new.so: file too short"
    assert len(tried) == 2
    assert one.step(batches(), factor=1.0, step=0, seed=1).loss.isfinite()


def test_a_compiler_that_fails_by_itself_is_not_asked_again_and_nothing_is_thrown_away(folder, compiler):
    tried: list[int] = []

    def fail() -> None:
        tried.append(1)
        raise RuntimeError("no C++ compiler\nand a long story")

    compiler(fail)
    assert compile_kept(engine(), batches(), folder, lambda count: None) == "no C++ compiler"
    assert len(tried) == 1
    assert names(folder) == ["old.so"]


def kill_while_compiling(folder: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(folder)], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr


def test_what_a_killed_process_left_half_made_is_removed_and_what_was_there_before_stays(folder, compiler):
    kill_while_compiling(folder)
    assert {"half.so", "old.so"} < set(names(folder))
    seen: list[list[str]] = []
    compiler(lambda: seen.append([name for name in names(folder) if not name.startswith(MARK)]))
    assert compile_kept(engine(), batches(), folder, lambda count: None) == ""
    assert seen[0] == ["old.so"]
    assert names(folder) == ["old.so"]


def test_nothing_is_removed_while_another_process_compiles(folder, compiler):
    kill_while_compiling(folder)
    mark = folder / f"{MARK}another-1"
    mark.touch()
    compiler(lambda: None)
    with FileLock(f"{mark}.lock"):
        assert compile_kept(engine(), batches(), folder, lambda count: None) == ""
        assert "half.so" in names(folder)
    assert compile_kept(engine(), batches(), folder, lambda count: None) == ""
    assert names(folder) == ["old.so"]


def test_a_compilation_that_was_interrupted_leaves_its_mark(folder, compiler):
    def interrupt() -> None:
        (folder / "ab" / "half.so").touch()
        raise KeyboardInterrupt

    compiler(interrupt)
    with pytest.raises(KeyboardInterrupt):
        compile_kept(engine(), batches(), folder, lambda count: None)
    compiler(lambda: None)
    assert compile_kept(engine(), batches(), folder, lambda count: None) == ""
    assert names(folder) == ["old.so"]


def test_a_folder_that_can_not_be_written_to_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="this place can't be written to"):
        compile_kept(engine(), batches(), tmp_path / "file" / "compiled", lambda count: None)


def test_the_reason_is_one_line():
    wrapped = RuntimeError("backend='inductor' raised:\nImportError: x.so: file too short\n\nSet TORCHDYNAMO_VERBOSE=1")
    wrapped.inner_exception = ImportError("x.so: file too short")
    assert reason(wrapped) == "x.so: file too short"
    assert reason(ValueError()) == "ValueError"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_real_libraries_that_were_cut_short_are_made_again(folder):
    def compile_in_a_process_of_its_own() -> None:
        code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); from {Path(__file__).stem} import *\n"
        code += f"assert compile_kept(engine(), batches()[:1], Path({str(folder)!r}), print) == ''"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0 and done.stdout == "1\n", done.stderr

    compile_in_a_process_of_its_own()
    libraries = sorted(folder.rglob("*.main.so"))
    assert libraries, "PyTorch keeps its libraries there"
    for path in libraries:
        path.write_bytes(b"")
    compile_in_a_process_of_its_own()
    assert all(path.stat().st_size for path in folder.rglob("*.main.so"))
    assert set(libraries) <= set(folder.rglob("*.main.so"))
