"""The requests of OpenAI's API that are understood here, and what they mean as settings of a generator.

A field that is not known is an error; one that would change the answer and can't be honoured is one as well. Fields
that are notes for OpenAI's own machines are read and left alone.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ingot.chat.context import Message as Turn
from ingot.generate.sampling import LARGEST, Sampling

Stop = Annotated[str, Field(min_length=1, max_length=1000)]
TokenId = Annotated[int, Field(ge=0, lt=LARGEST)]
MOST_TEXTS, MOST_STOPS, MOST_BIASES = 128, 16, 1024


class StreamOptions(BaseModel):
    """`include_usage`: one chunk more at the end of a stream, with the counts of tokens."""

    model_config = ConfigDict(extra="forbid")
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class _Request(BaseModel):
    """What the two ways to ask for text have in common."""

    model_config = ConfigDict(extra="forbid")
    unsupported: ClassVar[dict[str, tuple[Any, ...]]] = {}  # field → values that ask for nothing
    usual_tokens: ClassVar[int | None] = None  # of an answer where nothing is said; none: all that there is room for

    model: str | None = Field(default=None, description="one of /v1/models; none: the first")
    max_tokens: int | None = Field(default=None, ge=1, lt=LARGEST, description="tokens of an answer at most")
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    top_k: Annotated[int, Field(ge=0, lt=LARGEST)] | None = Field(default=None, description="0: all tokens")
    min_p: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    repetition_penalty: Annotated[float, Field(ge=0.01, le=100, allow_inf_nan=False)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)] | None = None
    seed: Annotated[int, Field(ge=-LARGEST, lt=LARGEST)] | None = Field(
        default=None, description="the same seed gives the same text; text i of n draws with seed + i"
    )
    stop: Stop | Annotated[list[Stop], Field(max_length=MOST_STOPS)] | None = None
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)]] | None = Field(
        default=None, max_length=MOST_BIASES, description="token id → what is added to its logit"
    )
    n: Annotated[int, Field(ge=1, le=MOST_TEXTS)] | None = Field(default=None, description="texts for each prompt")
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None

    @model_validator(mode="after")
    def _asks_for_what_there_is(self) -> Self:
        for name, harmless in self.unsupported.items():
            if (value := getattr(self, name)) is not None and value not in harmless:
                raise ValueError(f"{name} is not supported here; leave it out")
        if self.stream_options and not self.stream:
            raise ValueError("stream_options is for stream=true")
        for token in self.logit_bias or ():
            if not (token.isascii() and token.isdigit() and len(token) < 19):
                raise ValueError(f"logit_bias: {token[:20]!r} is no token id")
        return self

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with the counts of tokens."""
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def alternatives(self) -> int | None:
        """Likely tokens to tell beside each one; none: tell nothing of probabilities."""
        return None

    @property
    def limit(self) -> int | None:
        """The tokens that the request itself allows an answer."""
        return self.max_tokens

    def samplings(self, longest: int) -> list[Sampling]:
        """One for each text of a prompt, none longer than `longest` tokens."""
        stop = [self.stop] if isinstance(self.stop, str) else self.stop
        named: dict[str, Any] = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "min_p": self.min_p,
            "repetition_penalty": self.repetition_penalty,
            "frequency_penalty": self.frequency_penalty,
            "presence_penalty": self.presence_penalty,
            "stop": stop,
            "logit_bias": {int(token): bias for token, bias in (self.logit_bias or {}).items()},
            "logprobs": self.alternatives,
        }
        given = {name: value for name, value in named.items() if value is not None}
        seeds = [None if self.seed is None else (self.seed + text) % LARGEST for text in range(self.n or 1)]
        return [Sampling(**given, seed=seed, max_new_tokens=longest) for seed in seeds]


class TextPart(BaseModel):
    """A part of a message; only text is read."""

    model_config = ConfigDict(extra="forbid")
    type: Literal["text"]
    text: str


class Message(BaseModel):
    """A turn of a conversation. What a developer says counts as said by the system."""

    model_config = ConfigDict(extra="forbid")
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]
    name: str | None = None
    refusal: None = None

    @property
    def turn(self) -> Turn:
        """As a chat template reads it."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return Turn("system" if self.role == "developer" else self.role, text)


class ChatRequest(_Request):
    """A conversation to answer."""

    unsupported = {
        "tools": ([],),
        "functions": ([],),
        "tool_choice": ("none", "auto"),
        "function_call": ("none", "auto"),
        "response_format": ({"type": "text"},),
        "modalities": (["text"],),
        "audio": (),
        "prediction": (),
        "reasoning_effort": (),
        "web_search_options": (),
    }
    messages: list[Message] = Field(min_length=1)
    truncation: Literal["auto", "disabled"] | None = Field(
        default=None, description="auto: the oldest messages go where the context does not hold all; else an error"
    )
    max_completion_tokens: int | None = Field(default=None, ge=1, lt=LARGEST)
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    tools: Any = None
    functions: Any = None
    tool_choice: Any = None
    function_call: Any = None
    response_format: Any = None
    modalities: Any = None
    audio: Any = None
    prediction: Any = None
    reasoning_effort: Any = None
    web_search_options: Any = None
    parallel_tool_calls: Any = None
    metadata: Any = None
    store: Any = None
    service_tier: Any = None
    safety_identifier: Any = None
    prompt_cache_key: Any = None
    verbosity: Any = None

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs is for logprobs=true")
        if self.max_tokens and self.max_completion_tokens not in (None, self.max_tokens):
            raise ValueError("max_tokens is the old name of max_completion_tokens; give one of them")
        return self

    @property
    def alternatives(self) -> int | None:
        """As `top_logprobs` says, where `logprobs` asks for any."""
        return (self.top_logprobs or 0) if self.logprobs else None

    @property
    def limit(self) -> int | None:
        """By either of its names."""
        return self.max_completion_tokens or self.max_tokens


class CompletionRequest(_Request):
    """Texts, or token ids, to continue. An answer has 16 tokens where nothing else is said, as OpenAI's has."""

    unsupported = {"echo": (False,), "suffix": ("",), "best_of": (1,)}
    usual_tokens = 16
    prompt: (
        str
        | Annotated[list[str], Field(min_length=1)]
        | Annotated[list[TokenId], Field(min_length=1)]
        | Annotated[list[Annotated[list[TokenId], Field(min_length=1)]], Field(min_length=1)]
    )
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    echo: Any = None
    suffix: Any = None
    best_of: Any = None

    @property
    def alternatives(self) -> int | None:
        """As `logprobs` says."""
        return self.logprobs

    @property
    def prompts(self) -> list[str] | list[list[int]]:
        """One for each text to continue."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if isinstance(self.prompt[0], int):
            return [self.prompt]
        return self.prompt
