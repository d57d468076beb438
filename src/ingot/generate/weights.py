"""The number formats that a model is read in.

What flows between the weights stays as it was; only where a processor multiplies whole numbers, cpp/whole.h rounds it
to 16 bits, which errs by about one hundredth of what int8 weights err by.
"""

from __future__ import annotations

from typing import Literal

import torch

from ingot.errors import UserError
from ingot.model.coded import kind_of
from ingot.model.decoder import Decoder

Format = Literal["float32", "bfloat16", "int8", "int4"]
Quantize = Literal["bfloat16", "int8", "int4"]


def read_as(model: Decoder, quantize: Quantize | None = None) -> Format:
    """The format that `model` is read in: `quantize`, or that of its own weights.

    Raises UserError where they are codes of another kind.
    """
    if kind := kind_of(model):
        if quantize not in (None, kind):
            what = f"the weights of this model are {kind} codes already, and can't be made {quantize}"
            raise UserError(what, where="quantize", mend="leave it out, or take the model that it was exported from")
        return kind
    return quantize or ("bfloat16" if model.head_weight.dtype == torch.bfloat16 else "float32")
