"""The options by which a verb that writes text is told how to sample it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    from ingot.generate.sampling import Sampling

Quantize = Annotated[
    Literal["bfloat16", "int8", "int4"] | None,
    Parameter(help="smaller weights: quicker on a CPU, and a little less exact"),
]


@Parameter(name="*")  # its fields are options of the verb itself
@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """Options of sampling, with the defaults of `Sampling`."""

    max_new_tokens: Annotated[int, Parameter(help="tokens to write at most")] = 100
    temperature: Annotated[float, Parameter(help="0: always the likeliest token; below 1: tamer; above: wilder")] = 1.0
    top_k: Annotated[int, Parameter(help="choose among the k likeliest tokens; 0: among all")] = 0
    top_p: Annotated[float, Parameter(help="choose among the likeliest tokens that make up this share")] = 1.0
    min_p: Annotated[float, Parameter(help="leave out tokens less likely than this share of the likeliest")] = 0.0
    repetition_penalty: Annotated[float, Parameter(help="above 1: less of what has been written already")] = 1.0
    frequency_penalty: Annotated[float, Parameter(help="above 0: less of a token the oftener it was written")] = 0.0
    presence_penalty: Annotated[float, Parameter(help="above 0: less of any token that was written")] = 0.0
    seed: Annotated[int | None, Parameter(help="the same seed gives the same text; none: another each time")] = None
    stop: Annotated[
        list[str], Parameter(help="a text ends before this; may be given more than once", show_default=False)
    ] = field(default_factory=list)

    def sampling(self, where: str) -> Sampling:
        """The settings. Raises UserError for a value that is out of range."""
        from ingot.config.check import validate
        from ingot.generate.sampling import Sampling

        return validate(Sampling, asdict(self), where=where)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ChatOptions(SamplingOptions):
    """The same, with the defaults of an answer."""

    max_new_tokens: Annotated[int, Parameter(help="tokens of an answer at most")] = 256
    temperature: Annotated[float, Parameter(help="0: always the likeliest token; below 1: tamer; above: wilder")] = 0.7
    top_p: Annotated[float, Parameter(help="choose among the likeliest tokens that make up this share")] = 0.95
