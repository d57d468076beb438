"""Shapes that a recipe can name in place of spelling them out: `model: small`. No PyTorch here.

All are llamas (RoPE, RMSNorm, SwiGLU, grouped queries: Touvron et al., 2023, arXiv:2302.13971) with the head tied to
the embedding. They differ in `SIZES` alone; parameters are those with a vocabulary of 32,768.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

COMMON: Mapping[str, Any] = {"family": "llama", "context": 2048, "tied": True}
SIZES: dict[str, Mapping[str, int]] = {
    "tiny": {"layers": 8, "hidden_size": 384, "heads": 6, "kv_heads": 2, "mlp_size": 1024},  # 25M
    "small": {"layers": 28, "hidden_size": 1024, "heads": 16, "kv_heads": 4, "mlp_size": 2816},  # 349M
    "medium": {"layers": 32, "hidden_size": 2048, "heads": 16, "kv_heads": 4, "mlp_size": 5632},  # 1.5B
    "large": {"layers": 32, "hidden_size": 4096, "heads": 32, "kv_heads": 8, "mlp_size": 14336},  # 7.1B
}
AUTO = "auto"  # one of them, once the device is known; until then it has the first one's shape


def expanded(given: Mapping[str, Any]) -> dict[str, Any]:
    """`given` with the fields that its `kind` stands for; those that are given themselves stay.

    Raises ValueError for a kind that there is not, and for a size that is given although it is to be chosen.
    """
    kind = given.get("kind", "shape")
    if kind == "shape":
        return dict(given)
    first = next(iter(SIZES))
    if kind != AUTO and kind not in SIZES:
        raise ValueError(f"there is no model of kind {kind!r}; known: {', '.join(['shape', AUTO, *SIZES])}")
    size = SIZES[first if kind == AUTO else kind]
    for name, value in size.items() if kind == AUTO else ():
        if given.get(name, value) != value:
            raise ValueError(f"the size is chosen by itself, so leave out {name}, or name one of {', '.join(SIZES)}")
    return {**COMMON, **size, **given, "kind": AUTO if kind == AUTO else "shape"}
