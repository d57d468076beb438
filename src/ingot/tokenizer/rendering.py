"""Chat templates rendered as transformers renders them, with marks for what the template did not write itself."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any, NoReturn

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser

from ingot.tokenizer.marks import Marks
from ingot.tokenizer.sandbox import Sandbox
from ingot.tokenizer.template import refuse

DAY = datetime(2026, 1, 1)  # in what is learned
QUESTION = {"role": "user", "content": "?"}  # a conversation that every template knows


class Template:
    """A Jinja template in a sandbox. `named` is what it can call `bos_token` and so on.

    Templates are programs from strangers: the sandbox keeps them from the machine, and from taking all of its memory.
    """

    def __init__(self, source: str, named: Mapping[str, str], marks: Marks):
        """Raises UserError for a template that is not valid Jinja."""
        self._marks = marks
        self._named = dict(named)
        self._says_what_is_learned = bool(re.search(r"\{%[-+]?\s*generation\b", source))
        self._environment = environment = Sandbox(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
        )
        environment.extend(marks=marks)
        environment.add_filter("tojson", _to_json)
        environment.globals["raise_exception"] = _raise
        try:
            self._jinja = environment.from_string(source)
        except (TemplateError, RecursionError, TypeError, ValueError, OverflowError, MemoryError) as error:
            refuse(f"the chat template is not valid Jinja ({error})", "mend chat_template in tokenizer_config.json")

    def render(self, messages: Sequence[dict[str, str]], add_generation_prompt: bool, learn: bool) -> str:
        """The conversation as text with marks: what is hidden, and with `learn`, what of it is learned.

        A template that asks for the day is told today, and with `learn` always the same one: a token cache must not
        depend on it. Raises UserError where the template refuses the messages.
        """
        hidden = [message | {"content": self._marks.hide(message["content"])} for message in messages]
        if not learn or self._says_what_is_learned:
            return self._rendered(hidden, add_generation_prompt, DAY if learn else datetime.now())
        text = self._rendered(hidden, add_generation_prompt)
        spanned = [
            message | {"content": self._marks.span(message["content"])} if message["role"] == "assistant" else message
            for message in hidden
        ]
        marked = self._rendered(spanned, add_generation_prompt)
        if marked.replace(self._marks.begin, "").replace(self._marks.stop, "") != text:
            refuse("the chat template changes what the assistant says", "put generation blocks into it")
        return self._widened(marked)

    def _rendered(self, messages: Sequence[dict[str, str]], ask: bool, day: datetime = DAY) -> str:
        given = {"messages": messages, "tools": None, "documents": None, "add_generation_prompt": ask}
        self._environment.begin(sum(len(message["content"]) for message in messages))
        try:
            return self._jinja.render(**self._named, **given, strftime_now=day.strftime)
        except Exception as error:  # a template is a program: it can fail in any way
            refuse(f"the chat template refuses these messages ({error})", "change the messages, or the template")

    def _widened(self, text: str) -> str:
        """`text` with every span from where the prompt for an answer ends to behind the token that ends the turn.

        For templates without generation blocks. What the template itself puts before an answer, such as an empty
        thought, is thus learned where the prompt does not hold it.
        """
        begin, stop, special = self._marks.begin, self._marks.stop, self._marks.special.pattern
        endings = rf"{re.escape(self._ending)}|{special}" if self._ending else special
        text = re.sub(rf"{stop}(\s*(?:{endings}))", rf"\g<1>{stop}", text)
        *answers, rest = text.split(stop)
        pieces: list[str] = []
        for answer in answers:
            before, found, said = answer.partition(begin)
            at = before.rfind(self._prompt) + len(self._prompt) if self._prompt and self._prompt in before else -1
            if at < 0 and not found:
                refuse("the chat template changes where an answer begins", "put generation blocks into it")
            at = at if at >= 0 else len(before)
            pieces += before[:at], begin, before[at:], said, stop
        return "".join([*pieces, rest])

    @cached_property
    def _prompt(self) -> str:
        """What the template writes for an answer to begin behind; empty where it writes nothing."""
        without, prompt = (self._rendered([QUESTION], ask) for ask in (False, True))
        return prompt.removeprefix(without) if prompt.startswith(without) else ""

    @cached_property
    def _ending(self) -> str:
        """What the template writes behind any answer, up to its last special token; empty where that is nothing."""
        answered = [QUESTION, {"role": "assistant", "content": self._marks.span("!")}]
        last, earlier = (
            self._rendered(messages, False).partition(self._marks.stop)[2]
            for messages in (answered, [*answered, QUESTION])
        )
        ends = [found.end() for found in self._marks.special.finditer(last)]
        return last[: max((end for end in ends if earlier.startswith(last[:end])), default=0)]


class _Generation(Extension):
    """`{% generation %}` … `{% endgeneration %}`: marks around what is learned."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node:
        """A block that `_said` is called with."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_said"), [], [], body).set_lineno(line)

    def _said(self, caller: Callable[[], str]) -> str:
        marks: Marks = self.environment.marks  # type: ignore[attr-defined]  # set by `extend`
        return f"{marks.begin}{caller()}{marks.stop}"


def _to_json(value: Any, ensure_ascii: bool = False, **layout: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, **layout)


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)
