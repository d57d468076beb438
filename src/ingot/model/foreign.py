"""What a stranger's model folder may claim: no file outside it, and no memory that its files do not fill."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ingot.errors import UserError
from ingot.model.architecture import Architecture, parameter_counts

# Larger than any model there is, and small enough that arithmetic with them stays arithmetic.
LARGEST = {
    "vocabulary": 2**24,
    "context": 2**28,
    "layers": 2**12,
    "hidden_size": 2**20,
    "heads": 2**16,
    "kv_heads": 2**16,
    "head_size": 2**16,
    "mlp_size": 2**24,
    "norm_eps": 1.0,
    "rope_theta": 1e12,
}
FAR_MORE = 4
JSON_BYTES = 2**26  # of a configuration or an index, read as a whole
TOKENIZER_BYTES = 2**28


def check_numbers(values: Mapping[str, Any], where: str) -> None:
    """Raises UserError by the first of our fields whose value is beyond any model's."""
    for name, most in LARGEST.items():
        value = values.get(name)
        if isinstance(value, bool) or (isinstance(value, int | float) and not (math.isfinite(value) and value <= most)):
            raise UserError(f"{name} is {value!r:.40}", where=where, mend=f"it can be {most:,} at most")


def check_held(arch: Architecture, numbers: int, where: str) -> None:
    """Raises UserError where a model of this shape has far more parameters than the `numbers` that are stored.

    A tensor that is missing is told by its name later; this is about memory.
    """
    needed = parameter_counts(arch)["total"]
    if needed > FAR_MORE * numbers:
        what = f"the configuration describes {needed:,} parameters, and the weights hold {numbers:,} numbers"
        raise UserError(what, where=where, mend="the files are incomplete, or do not belong together")


def read_json(path: Path) -> dict[str, Any]:
    """The mapping in a JSON file. Raises UserError for one that can't be read, is no mapping, or is absurdly long."""
    try:
        if (size := path.stat().st_size) > JSON_BYTES:
            raise UserError(f"a file of {size:,} bytes", where=str(path), mend="it is no configuration")
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"the model can't be read ({error})", where=str(path.parent), mend="check the files") from None
    except RecursionError:
        raise UserError("not valid JSON: it lies too deep", where=str(path), mend="the file is damaged") from None
    except ValueError as error:
        raise UserError(f"not valid JSON: {error!s:.200}", where=str(path), mend="the file is damaged") from None
    if not isinstance(found, dict):
        raise UserError("a mapping is expected", where=str(path), mend="the file is damaged")
    return found


def check_beside(folder: Path) -> None:
    """Raises UserError where what lies beside the weights is no plain file of the folder, or is absurdly long."""
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja"):
        if not (folder / name).exists() and not (folder / name).is_symlink():
            continue
        path = inside(folder, name)
        if name == "tokenizer.json" or path.suffix != ".json":
            if (size := path.stat().st_size) > TOKENIZER_BYTES:
                raise UserError(f"a file of {size:,} bytes", where=str(path), mend="it is no tokenizer's")
        else:
            read_json(path)


def inside(folder: Path, name: str) -> Path:
    """The file `name` of a model folder. Raises UserError where there is none, or where it lies elsewhere.

    A download of the hub's own client is a folder of links to its blobs, and stays within its repository.
    """
    path = folder / name
    if "/" in name or "\\" in name or name in ("", ".", ".."):
        raise UserError(f"{name!r:.80} names a file outside the folder", where=str(folder), mend="do not trust it")
    if not path.is_file():
        raise UserError(f"there is no {name}", where=str(folder), mend="name a model folder")
    real, home = path.resolve(), folder.resolve()
    if real.parent != home and not (home.parent.name == "snapshots" and real.parent == home.parents[1] / "blobs"):
        raise UserError(f"{name} is a link to outside of the folder", where=str(folder), mend="do not trust it")
    return path
