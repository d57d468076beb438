"""The container: metadata and tensors of a GGUF file, read with every size checked before memory is asked for.

After the specification at github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little-endian.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ingot.convert.libraries import library
from ingot.errors import UserError

MAGIC, VERSIONS, ALIGNMENT = b"GGUF", (2, 3), 32
MOST_KEYS, MOST_TENSORS, MOST_STRINGS, LONGEST_NAME = 1 << 16, 1 << 17, 1 << 22, 1 << 10
MOST_DIMENSIONS = 4

NUMBERS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
STRING, ARRAY = 8, 9  # value types beside the numbers
WORD, LONG = "<I", "<Q"


@dataclass(frozen=True)
class Stored:
    """Where a tensor lies in the file: its shape, outermost first, its type's number, and its bytes."""

    shape: tuple[int, ...]
    kind: int
    offset: int
    nbytes: int


class Container:
    """A GGUF file: `metadata` by key, and where each of its `tensors` lies."""

    def __init__(self, path: Path):
        """Raises UserError for what is no GGUF file, or not a whole one."""
        self.path = path
        self._sizes: dict[int, tuple[int, int]] = {
            int(kind): sizes for kind, sizes in library("gguf", "reading GGUF").GGML_QUANT_SIZES.items()
        }
        try:
            self._data = np.memmap(path, dtype=np.uint8, mode="r")
        except (OSError, ValueError) as error:
            raise UserError(f"this file can't be read ({error})", where=str(path), mend="check the file") from None
        self._view, self._at = memoryview(self._data.data), 0
        try:
            self._read()
        except (struct.error, UnicodeDecodeError):
            self.refuse("the file is cut short or damaged")

    def refuse(self, what: str) -> NoReturn:
        """Raise the UserError for this file."""
        raise UserError(what, where=str(self.path), mend="fetch the file anew, or name another")

    def tensor(self, name: str) -> Tensor:
        """A tensor as it is stored where that is a float, else as float32."""
        stored = self.tensors[name]
        raw = np.array(self._data[stored.offset : stored.offset + stored.nbytes])
        gguf = library("gguf", "reading GGUF")
        kind = gguf.GGMLQuantizationType(stored.kind)
        plain = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}
        if kind.name in plain:
            return torch.from_numpy(raw).view(plain[kind.name]).view(stored.shape)
        try:
            values = gguf.quants.dequantize(raw.reshape(*stored.shape[:-1], -1), kind)
        except (RuntimeError, ValueError):  # the library has no way for some kinds
            self.refuse(f"the tensor {name} is stored as {kind.name}, which can't be read")
        return torch.from_numpy(values).view(stored.shape)

    def raw(self, name: str) -> bytes:
        """A tensor's bytes as they are stored."""
        stored = self.tensors[name]
        return self._data[stored.offset : stored.offset + stored.nbytes].tobytes()

    # --- the file from front to back -----------------------------------------------------------------------------

    def _read(self) -> None:
        if bytes(self._take(4)) != MAGIC:
            self.refuse("this is no GGUF file")
        if (version := self._number(WORD)) not in VERSIONS:
            self.refuse(f"GGUF version {version}, and 2 and 3 are known here")
        tensors, keys = self._count(MOST_TENSORS, "tensors"), self._count(MOST_KEYS, "keys")
        self.metadata: dict[str, Any] = {}
        for _ in range(keys):
            key = self._string(LONGEST_NAME)
            if key in self.metadata:
                self.refuse(f"the key {key!r:.80} stands there twice")
            self.metadata[key] = self._value(self._number(WORD))
        infos = {}
        for _ in range(tensors):
            name = self._string(LONGEST_NAME)
            if name in infos:
                self.refuse(f"the tensor {name!r:.80} stands there twice")
            infos[name] = self._info(name)
        alignment = self.metadata.get("general.alignment", ALIGNMENT)
        if not isinstance(alignment, int) or not 0 < alignment <= 1 << 20:
            self.refuse(f"an alignment of {alignment!r:.40}")
        begin = -(-self._at // alignment) * alignment
        self.tensors = {name: self._placed(name, info, begin) for name, info in infos.items()}

    def _info(self, name: str) -> Stored:
        dimensions = self._number(WORD)
        if not 0 < dimensions <= MOST_DIMENSIONS:
            self.refuse(f"the tensor {name!r:.80} has {dimensions} dimensions")
        shape = tuple(self._number(LONG) for _ in range(dimensions))[::-1]
        kind, offset = self._number(WORD), self._number(LONG)
        if kind not in self._sizes:
            self.refuse(f"the tensor {name!r:.80} has a type that is not known, {kind}")
        block, size = self._sizes[kind]
        if not all(shape) or shape[-1] % block:
            self.refuse(f"the tensor {name!r:.80} has a shape that its type does not allow, {shape}")
        return Stored(shape, kind, offset, math.prod(shape) // block * size)

    def _placed(self, name: str, info: Stored, begin: int) -> Stored:
        if begin + info.offset + info.nbytes > len(self._data):
            self.refuse(f"the tensor {name!r:.80} ends behind the end of the file")
        return Stored(info.shape, info.kind, begin + info.offset, info.nbytes)

    def _value(self, kind: int) -> Any:
        if kind == STRING:
            return self._string()
        if kind == ARRAY:
            return self._array()
        if kind not in NUMBERS:
            self.refuse(f"a value has a type that is not known, {kind}")
        return self._number(NUMBERS[kind])

    def _array(self) -> list[str] | NDArray[Any]:
        kind, count = self._number(WORD), self._number(LONG)
        if kind == STRING:
            if count > MOST_STRINGS or count * 8 > len(self._data) - self._at:
                self.refuse(f"a list of {count:,} texts")
            return [self._string() for _ in range(count)]
        if kind not in NUMBERS:
            self.refuse(f"a list has a type that is not known, {kind}")
        dtype = np.dtype(NUMBERS[kind])
        return np.frombuffer(bytes(self._take(count * dtype.itemsize)), dtype)

    def _count(self, most: int, what: str) -> int:
        if (count := self._number(LONG)) > most:
            self.refuse(f"the file says that it has {count:,} {what}")
        return count

    def _string(self, longest: int | None = None) -> str:
        length = self._number(LONG)
        if longest is not None and length > longest:
            self.refuse(f"a name of {length:,} bytes")
        return bytes(self._take(length)).decode("utf-8")

    def _number(self, kind: str) -> Any:
        (value,) = struct.unpack(kind, self._take(struct.calcsize(kind)))
        return value

    def _take(self, count: int) -> memoryview:
        if count > len(self._view) - self._at:
            self.refuse("the file is cut short or damaged")
        self._at += count
        return self._view[self._at - count : self._at]
