"""A model with all that it takes to use it: its tokenizer, its chat template, and the tokens that end what it writes.

`llm = ingot.load("demo@best")`, then `llm.generate(…)`, `llm.stream(…)`, `llm.chat(…)`, `llm.batch_generate(…)`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingot.chat.context import DEFAULTS, Message, Prompt, as_messages, prompt_of
from ingot.checkpoint.registry import resolve, run_names
from ingot.checkpoint.store import FOLDER, MODEL, Checkpoints
from ingot.config.check import validate
from ingot.errors import UserError
from ingot.generate.sampling import Sampling
from ingot.tokenizer.chat import ChatTemplate
from ingot.tokenizer.tokenizer import Tokenizer

if TYPE_CHECKING:
    from ingot.generate.generator import Generator
    from ingot.generate.token import Generation
    from ingot.generate.weights import Quantize
    from ingot.model.decoder import Decoder


def load(reference: str | Path, *, runs: Path | str = Path("runs"), quantize: Quantize | None = None) -> LanguageModel:
    """The model that `reference` means: a run's name, name@best, name@1200, a tag, or a model's folder.

    `quantize`: bfloat16, int8 or int4 in place of the weights' own numbers, quicker and a little less exact.
    Raises UserError for one that is not there, not whole, or of an unknown architecture.
    """
    folder = resolve(str(reference), Path(runs))  # before PyTorch is loaded: a wrong name is told at once
    from ingot.distributed import World
    from ingot.model.coded import load_to_read

    model = load_to_read(folder, device=World.alone().device).eval()
    return LanguageModel(model, Tokenizer.load(folder), folder, name=_name(str(reference), folder), quantize=quantize)


def generate_text(prompt: str = "", *, runs: Path | str = Path("runs"), **sampling: Any) -> str:
    """What the newest model below `runs` writes after `prompt`. To use a model more than once, `ingot.load` it."""
    return load(newest(Path(runs)), runs=runs).generate(prompt, **sampling)


def newest(runs: Path) -> str:
    """The reference of the whole checkpoint below `runs` that was made last. Raises UserError where there is none."""
    found = [(name, Checkpoints(runs / name).latest(MODEL)) for name in run_names(runs)]
    made = [(_time(one.manifest.created), f"{name}@{one.step}") for name, one in found if one]
    if not made:
        raise UserError(f"no run in {str(runs)!r} has a checkpoint", mend="train one first, such as `ingot demo`")
    return max(made)[1]


class LanguageModel:
    """A model to write and talk with. Options of sampling are those of `Sampling`: temperature, top_k, seed …"""

    def __init__(
        self, model: Decoder, tokenizer: Tokenizer, folder: Path, *, name: str, quantize: Quantize | None = None
    ):
        """Raises UserError where model and tokenizer do not belong together."""
        from ingot.generate.generator import Generator

        self.model, self.tokenizer, self.folder, self.name = model, tokenizer, folder, name
        named = _named_ends(folder)
        stops: tuple[int, ...] = ()
        with contextlib.suppress(UserError):  # of a broken template is told when it is asked to talk
            stops = self.template.stops
        self.tuned = "chat_template" in tokenizer.settings and bool(stops) and named.issuperset(stops[1:])
        """whether it was tuned on conversations, as far as its files tell"""
        self.ends = frozenset({tokenizer.end, *named, *stops})
        """the tokens that end what it writes"""
        self.generator: Generator = Generator(model, tokenizer, self.ends, quantize)

    @cached_property
    def template(self) -> ChatTemplate:
        """How it spells conversations. Raises UserError for a broken template."""
        return ChatTemplate.of(self.tokenizer)

    @property
    def context(self) -> int:
        """Tokens that a text may have, prompt and all."""
        return self.model.arch.context

    def generate(self, prompt: str = "", **sampling: Any) -> str:
        """What the model writes after `prompt`: `llm.generate("Once", max_new_tokens=50, temperature=0.7, top_k=50)`.

        Raises UserError for a prompt longer than the context, and for an option that is none.
        """
        return self.generator.generate([prompt], _sampling(sampling))[0].text

    def stream(self, prompt: str = "", **sampling: Any) -> Iterator[str]:
        """The same piece by piece, in whole characters."""
        return self.generator.stream(prompt, _sampling(sampling))

    def chat(self, messages: Sequence[Message | Mapping[str, str]] | None = None, **sampling: Any) -> str:
        """The answer to `messages`, such as `[{"role": "user", "content": "Hello"}]`; None: talk in this terminal.

        What the context does not hold, the oldest turns, is left out. Raises UserError for a last message that it does
        not hold, for a role that is none, and for what the model's template refuses.
        """
        if messages is None:
            from ingot.chat.terminal import talk

            talk(self, _sampling(DEFAULTS | sampling))
            return ""
        return "".join(self.stream_chat(messages, **sampling))

    def stream_chat(self, messages: Sequence[Message | Mapping[str, str]], **sampling: Any) -> Iterator[str]:
        """The answer to `messages` piece by piece, in whole characters; what is wrong with them is raised at once."""
        settings = _sampling(DEFAULTS | sampling)
        return self.answer(self.prompt(as_messages(messages), settings), settings)

    def prompt(self, messages: Sequence[Message], sampling: Sampling) -> Prompt:
        """What the model reads of `messages` before it answers. Raises UserError as `chat` does."""
        return prompt_of(self.template, messages, self.context, sampling)

    def answer(self, prompt: Prompt, sampling: Sampling) -> Iterator[str]:
        """What the model writes after `prompt`, piece by piece."""
        from ingot.generate.writer import Writer

        writer = Writer(self.tokenizer, sampling.stop)
        for token in self.generator.tokens([prompt.ids], [sampling]):
            if piece := writer.push(token):
                yield piece

    def batch_generate(
        self,
        prompts: Sequence[str | Mapping[str, Any]],
        output_file: str | Path | None = None,
        **sampling: Any,
    ) -> list[Generation]:
        """What the model writes after each of `prompts`, in their order; many are continued together.

        A prompt is a text, or a mapping of `prompt` or `messages` and of options of its own. With `output_file`, a
        .json, .jsonl, .csv, .md or .txt, the results are written there at the end, and an interrupted call goes on.
        Raises UserError.
        """
        from ingot.batches.job import Job
        from ingot.batches.prompts import prompts_of

        job = Job(self, prompts_of(prompts), _sampling(sampling))
        return job.run(Path(output_file) if output_file else None)


def _name(reference: str, folder: Path) -> str:
    """What the model is called: as it was asked for, or for a folder by the run that it belongs to, or its name."""
    if not Path(reference).is_dir():
        return reference
    if folder.name == MODEL and folder.parent.parent.name == FOLDER:
        return f"{folder.parents[2].name}@{int(folder.parent.name.removeprefix('step-'))}"
    return folder.name


def _sampling(options: Mapping[str, Any]) -> Sampling:
    return validate(Sampling, options, where="sampling")


def _named_ends(folder: Path) -> frozenset[int]:
    """The tokens that generation_config.json, or else config.json, says a text ends with."""
    for name in ("generation_config.json", "config.json"):
        try:
            found = json.loads((folder / name).read_bytes()).get("eos_token_id")
        except (OSError, ValueError, AttributeError):
            continue
        ids = found if isinstance(found, list) else [found]
        if ends := frozenset(one for one in ids if isinstance(one, int)):
            return ends
    return frozenset()


def _time(created: str) -> float:
    """Seconds since 1970; 0 where a checkpoint does not say when it was made."""
    try:
        return datetime.fromisoformat(created).timestamp()
    except ValueError:
        return 0.0
