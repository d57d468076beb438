"""Model folders as an enemy or a bad disk would leave them. Run as a program it takes them in, one after another.

`python damage.py BASES FIRST LAST ROOM` imports the damaged folders of those numbers, or loads those whose weights are
codes, in one process, whose memory has a bound, and prints one JSON object for each: how it ended.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import resource
import shutil
import struct
import sys
from collections.abc import Callable
from pathlib import Path

MEMORY = 6 * 2**30  # bytes of addresses, most of them PyTorch's own libraries
EXTREMES = (0, 1, 255, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**63, 2**64 - 1)
VALUES = (
    None,
    True,
    -1,
    0,
    1,
    1.5,
    10**6,
    10**9,
    10**18,
    2**70,
    float("nan"),
    float("inf"),
    "x",
    "",
    [],
    [1],
    {},
    {"a": 1},
)
TEMPLATES = (
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{{ 'a' * 10**10 }}",
    "{% set ns = namespace(x='aa') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ cycler.__init__.__globals__.os.system('touch pwned') }}",
    "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(1) }}",
    "{% include '/etc/passwd' %}",
    "{% if %}",
    "{{ raise_exception('no') }}",
    "{{ messages[99].content.x }}",
    "(" * 100_000,
)
NAMES = (
    "../../x.safetensors",
    "/etc/passwd",
    "..",
    ".",
    "",
    "a/b.safetensors",
    "..\\x",
    "x\0y",
    None,
    5,
    ["a"],
    "\ud800",
)


def flip(folder: Path, draw: random.Random) -> None:
    """Flips a few bits of one file."""
    path = _some(folder, draw)
    data = bytearray(path.read_bytes())
    span = len(data) if draw.random() < 0.3 else min(len(data), 2000)
    for _ in range(draw.choice((1, 3, 30))):
        data[draw.randrange(span)] ^= 1 << draw.randrange(8)
    path.write_bytes(data)


def truncate(folder: Path, draw: random.Random) -> None:
    """Cuts one file short."""
    path = _some(folder, draw)
    data = path.read_bytes()
    path.write_bytes(data[: draw.randrange(len(data))])


def swap(folder: Path, draw: random.Random) -> None:
    """Leaves something else in the place of one file: nothing, a folder, a link to elsewhere, a pipe, a device."""
    path = _some(folder, draw)
    content = path.read_bytes()
    path.unlink()
    kind = draw.randrange(6)
    if kind == 0:
        path.mkdir()
    elif kind == 1:
        elsewhere = folder.parent / f"elsewhere-{path.name}"
        elsewhere.write_bytes(content)
        path.symlink_to(elsewhere)
    elif kind == 2:
        path.symlink_to(draw.choice(("/dev/zero", "/dev/urandom", "/etc/passwd", path.name, "..", "/proc/self/mem")))
    elif kind == 3:
        os.mkfifo(path)
    elif kind == 4:
        path.write_bytes(b"")


def header(folder: Path, draw: random.Random) -> None:
    """Lies in the header of a safetensors file."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        return extreme(folder, draw)
    path = draw.choice(files)
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    if draw.random() < 0.3:
        path.write_bytes(struct.pack("<Q", draw.choice((*EXTREMES, size + 1, size - 1, 99_999_999))) + data[8:])
        return None
    values = json.loads(data[8 : 8 + size])
    name = draw.choice([one for one in values if one != "__metadata__"])
    lie = draw.randrange(5)
    if lie == 0:
        values[name]["shape"] = draw.choice(([2**62, 2], [-1], [], [10**9], "x", None, [0], [2**32, 2**32]))
    elif lie == 1:
        values[name]["data_offsets"] = draw.choice(([0, 2**63], [-1, 1], [5, 1], [0, 0], None, "x", [0, 10**12]))
    elif lie == 2:
        values[name]["dtype"] = draw.choice(("F64", "I64", "U8", "BOOL", "F8_E4M3", "X", None, 5, "BF16"))
    elif lie == 3:
        values[draw.choice(("../x", "x" * 10_000, "lm_head.bias", "model.layers.999.x"))] = values.pop(name)
    else:
        values["__metadata__"] = draw.choice(({"a": 5}, [], "x", {"x": "y" * 10**6}))
    text = json.dumps(values).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + size :])
    return None


def config(folder: Path, draw: random.Random) -> None:
    """Lies in a JSON file: another value of a key, a new key, or none."""
    files = [path for path in sorted(folder.glob("*.json")) if path.name != "tokenizer.json"]
    if not files:
        return extreme(folder, draw)
    path = draw.choice([*files, *[one for one in files if one.name == "config.json"] * 3])
    values = json.loads(path.read_text())
    key = draw.choice([*values, "rope_scaling", "rope_parameters", "auto_map", "quantization_config", "num_experts"])
    if draw.random() < 0.1:
        path.write_text(draw.choice(("[]", "{", "null", "[" * 10**5, '{"a": ' * 10**5, "1" * 10**5, '"\\ud800"')))
    elif draw.random() < 0.2:
        values.pop(key, None)
        path.write_text(json.dumps(values))
    else:
        path.write_text(json.dumps(values | {key: draw.choice(VALUES)}))
    return None


def names(folder: Path, draw: random.Random) -> None:
    """Names files outside of the folder."""
    path = folder / "model.safetensors.index.json"
    if not path.exists():
        whole = folder / "model.safetensors"
        if not whole.exists():
            return swap(folder, draw)
        whole.rename(folder.parent / "x.safetensors")
        path.write_text(json.dumps({"metadata": {}, "weight_map": {"a": "x.safetensors"}}))
    values = json.loads(path.read_text())
    key = draw.choice(list(values["weight_map"]))
    values["weight_map"][key] = draw.choice(NAMES)
    if draw.random() < 0.1:
        values["weight_map"] = draw.choice((None, [], "x", {}, 5))
    path.write_text(json.dumps(values))
    return None


def template(folder: Path, draw: random.Random) -> None:
    """A chat template that means harm, or nothing."""
    path = folder / "tokenizer_config.json"
    if not path.exists():
        return extreme(folder, draw)
    values = json.loads(path.read_text())
    harm = draw.choice((*TEMPLATES, 5, [], [{"name": "default"}], {"a": "b"}))
    path.write_text(json.dumps(values | {"chat_template": harm}))
    return None


def tokens(folder: Path, draw: random.Random) -> None:
    """Lies in the tokenizer."""
    path = folder / "tokenizer.json"
    if not path.exists():
        return extreme(folder, draw)
    values = json.loads(path.read_text())
    model = values["model"]
    lie = draw.randrange(8)
    if lie == 0:
        values["added_tokens"][0]["id"] = draw.choice((10**9, 2**32 - 1, -1, 2**70, "x", 290))
    elif lie == 1:
        model["vocab"][draw.choice(list(model["vocab"]))] = draw.choice((10**9, -1, 2**32 - 1, 0, None, "x"))
    elif lie == 2:
        model["merges"] = draw.choice(([["a", "zzzz"]], [["a"]], "x", [1], None, [["a", "b", "c"]] * 10))
    elif lie == 3:
        values["pre_tokenizer"] = draw.choice(
            (
                None,
                5,
                {"type": "X"},
                {"type": "Split", "pattern": {"Regex": "(a|a)*$"}, "behavior": "Isolated", "invert": False},
                {"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": False},
                {"type": "Sequence", "pretokenizers": []},
            )
        )
    elif lie == 4:
        values["decoder"] = draw.choice((None, {"type": "X"}, [], {"type": "ByteFallback"}, {"type": "Sequence"}))
    elif lie == 5:
        values["normalizer"] = draw.choice(
            ({"type": "Prepend", "prepend": "a" * 10**6}, {"type": "X"}, 5, {"type": "Precompiled"})
        )
    elif lie == 6:
        values.pop(draw.choice(list(values)))
    else:
        model[draw.choice(list(model))] = draw.choice(VALUES)
    path.write_text(json.dumps(values))
    return None


def extreme(folder: Path, draw: random.Random) -> None:
    """Writes extreme numbers over the head of a binary file."""
    files = [path for path in sorted(folder.iterdir()) if path.suffix in (".gguf", ".bin", ".safetensors")]
    path = draw.choice(files)
    data = bytearray(path.read_bytes())
    for _ in range(draw.choice((1, 1, 2, 5))):
        at = draw.randrange(0, min(len(data) - 8, draw.choice((40, 400, 20_000))))
        size = draw.choice((1, 4, 8))
        data[at : at + size] = (draw.choice(EXTREMES) % 2 ** (8 * size)).to_bytes(size, "little")
    path.write_bytes(data)


HARMS: tuple[Callable[[Path, random.Random], None], ...] = (
    *(flip, truncate, swap, header, config, names, template, tokens, extreme),
)


def damaged(bases: Path, number: int, place: Path) -> tuple[str, str, Path]:
    """Makes the damaged model of a number at `place`; what it was, how it was damaged, and what to import."""
    draw = random.Random(number)
    base = draw.choice(sorted(path for path in bases.iterdir() if path.is_dir()))
    harm = HARMS[number % len(HARMS)]
    shutil.copytree(base, place)
    harm(place, draw)
    source = next(iter(place.glob("*.bin")), place) if base.name.startswith("llama2c") else place
    return base.name, harm.__name__, source


def _some(folder: Path, draw: random.Random) -> Path:
    return draw.choice([path for path in sorted(folder.iterdir()) if path.name != "README.md"])


def outside(folder: Path) -> str:
    """What lies in a folder, as a digest."""
    found = sorted((str(path), path.read_bytes() if path.is_file() else b"") for path in folder.rglob("*"))
    return hashlib.sha256(repr(found).encode()).hexdigest()


def take_in(base: str, source: Path, runs: Path) -> None:
    """Import a model; let one of codes, which is not imported, write."""
    if base.startswith("codes"):
        from ingot.language_model import load

        load(source, runs=runs).generate("a", max_new_tokens=2)
    else:
        from ingot.convert.source import import_model

        import_model(source, "x", runs)


def main(bases: Path, first: int, last: int, room: Path) -> None:
    """Take in each damaged model, and say how it ended."""
    from ingot.errors import UserError

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    os.chdir(room)
    for number in range(first, last):
        work = room / "work"
        place = work / "model"
        work.mkdir()
        base, harm, source = damaged(bases, number, place)
        before = outside(bases)
        there = {path.name for path in work.iterdir()} | {"runs"}
        try:
            take_in(base, source, work / "runs")
            ended = "loaded"
        except UserError as error:
            line = str(error)
            ended = f"refused: {line}" if "\n" not in line and len(line) < 1500 else f"BAD LINE: {line[:300]}"
        except BaseException as error:
            ended = f"CRASH: {type(error).__name__}: {error}"
        if outside(bases) != before or {path.name for path in work.iterdir()} - there or (room / "pwned").exists():
            ended = f"WROTE OUTSIDE: {ended}"
        if ended.startswith("refused") and (work / "runs").exists() and any((work / "runs").rglob("step-*")):
            ended = f"LEFT BEHIND: {ended}"
        print(json.dumps({"number": number, "base": base, "harm": harm, "ended": ended[:400]}), flush=True)
        shutil.rmtree(work)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
