"""Matrices as whole numbers: N outputs, K columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Kind = Literal["int8", "int4"]
GROUP = 32  # columns that share a scale in int4


@dataclass(frozen=True)
class Codes:
    """A matrix as whole numbers: value = code x scale + least."""

    codes: Tensor
    """(N, K): int8, or 0 to 15 as uint8"""
    scales: Tensor
    """int8: (N, 1) float32; int4: (N, K / 32), numbers of bfloat16 as float32"""
    least: Tensor | None = None
    """int4: the value of code 0, as `scales`"""

    def values(self) -> Tensor:
        """The matrix (N, K) that stands for, in float32."""
        if self.least is None:
            return self.codes.float() * self.scales
        grouped = self.codes.float().unflatten(1, (-1, GROUP))
        return torch.addcmul(self.least[..., None], grouped, self.scales[..., None]).flatten(1)

    def most(self) -> Tensor:
        """The most (N, K) by which each number that was rounded to these codes differs from what they stand for."""
        if self.least is None:
            return (self.scales / 2).expand(self.codes.shape)
        largest = torch.maximum(self.least.abs(), (self.least + 15 * self.scales).abs())
        return (0.54 * self.scales + largest / 256).repeat_interleave(GROUP, 1)

    def filled_up(self, rows: int, columns: int = 1) -> Codes:
        """With zeros up to whole multiples of `rows` and `columns`, which in int4 is one of whole groups."""
        below, beside = -len(self.codes) % rows, -self.codes.shape[1] % columns
        codes = F.pad(self.codes, (0, beside, 0, below))
        groups = (0, 0 if self.least is None else beside // GROUP, 0, below)
        return Codes(codes, F.pad(self.scales, groups), None if self.least is None else F.pad(self.least, groups))


def joined(parts: Sequence[Codes]) -> Codes:
    """Matrices of the same columns, as one with their outputs one after the other."""
    least = [part.least for part in parts if part.least is not None]
    codes, scales = torch.cat([part.codes for part in parts]), torch.cat([part.scales for part in parts])
    return Codes(codes, scales, torch.cat(least) if least else None)


def to_int8(matrix: Tensor) -> Codes:
    """Each row (an output) in whole numbers from -127 to 127: an error of at most half a step, max|row| / 254."""
    matrix = matrix.float()
    scales = matrix.abs().amax(1, keepdim=True).clamp(min=1e-12) / 127
    return Codes((matrix / scales).round().to(torch.int8), scales)


def to_int4(matrix: Tensor) -> Codes:
    """Each 32 columns of a row in 16 even steps from their least to their greatest value, by bfloat16 scales.

    K is filled up with zeros to whole groups. The error is at most 0.54 steps and 1/256 of the group's largest number.
    """
    matrix = F.pad(matrix.float(), (0, -matrix.shape[1] % GROUP)).unflatten(1, (-1, GROUP))  # (N, K / 32, 32)
    least = matrix.amin(-1).bfloat16().float()
    scales = ((matrix.amax(-1) - least) / 15).clamp(min=1e-12).bfloat16().float()
    codes = ((matrix - least[..., None]) / scales[..., None]).round().clamp(0, 15)
    return Codes(codes.to(torch.uint8).flatten(1), scales, least)


ROUND: dict[Kind, Callable[[Tensor], Codes]] = {"int8": to_int8, "int4": to_int4}
