"""Jinja for templates from strangers: no way out to the machine, and an end to what a text may cost.

Each turn of a loop, each call and each character or item that an operation makes counts; what would make too many is
refused before it is made.
"""

from __future__ import annotations

import functools
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.runtime import Context, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment

MOST = 2**26  # characters and items that one text may make, beside what the messages bring
TURN = 32  # as many for each turn of a loop and each call: what Python takes for it
TIMES = 64  # as many more for each character of the messages
SECONDS = 10.0  # of one text; checked at every turn and call
LARGEST = 10**6  # of a number that an operation on text is given, such as a width
DEEPEST = 64  # of an indentation in JSON
DIGITS = 10**4  # bits of a number
WIDE = re.compile(r"\d{6,}")  # a width in a format
COUNTED, JOINED = "ingot_counted", "ingot_joined"


class Budget:
    """What rendering one text may still cost."""

    def __init__(self, characters: int):
        self._left, self._until = MOST + TIMES * characters, time.monotonic() + SECONDS

    def charge(self, count: int) -> None:
        """Take `count` away. Raises TemplateError where that is more than is left, or the time is up."""
        self._left -= count
        if self._left < 0:
            raise TemplateError("it makes too much of too little")
        if time.monotonic() > self._until:
            raise TemplateError(f"it takes more than {SECONDS:.0f} seconds")


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja in which a template can reach nothing but what it is given, and uses up a budget."""

    intercepted_binops = frozenset(["+", "*", "%", "**"])

    def __init__(self, **options: Any):
        super().__init__(finalize=self._written, **options)
        self._own = threading.local()  # one text after the other in each thread
        self.globals.pop("lipsum", None)
        self.filters = {name: self._guarded(name, action) for name, action in self.filters.items()}
        self.filters |= {COUNTED: self._counted, JOINED: self._joined}
        self._text = 0  # characters of plain text in the template

    def add_filter(self, name: str, action: Callable[..., Any]) -> None:
        """A filter of one's own, guarded like the others."""
        self.filters[name] = self._guarded(name, action)

    def begin(self, characters: int) -> None:
        """A new text, of messages of so many characters."""
        self._own.budget = Budget(characters)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """An operation on two values, once its result is known to be affordable."""
        if operator == "*":
            self._charge_product(left, right)
        elif operator == "**" and isinstance(left, int) and isinstance(right, int):
            self._refuse_large(left.bit_length() * max(right, 0), DIGITS)
        elif operator == "%" and isinstance(left, str):
            self._check_format(left, right if isinstance(right, tuple) else (right,))
        return self._made(super().call_binop(context, operator, left, right))

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """A call of a macro, or of a method of a value."""
        self = __self
        self._charge(TURN + (self._text if isinstance(__obj, Macro) else 0))
        owner, name = getattr(__obj, "__self__", None), getattr(__obj, "__name__", "")
        if isinstance(owner, str):
            self._check_text(name, (owner, *args), kwargs)
        return self._made(super().call(__context, __obj, *args, **kwargs))

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        """The template with its loops counted and `~` charged."""
        tree = super()._parse(source, name, filename)
        self._text = sum(len(text.data) for text in tree.find_all(nodes.TemplateData))
        for loop in list(tree.find_all(nodes.For)):
            size = sum(len(text.data) for part in loop.body for text in part.find_all(nodes.TemplateData))
            loop.iter = nodes.Filter(loop.iter, COUNTED, [nodes.Const(size)], [], None, None, lineno=loop.lineno)
        return _Joins().visit(tree)

    # --- what is charged ---------------------------------------------------------------------------------------------

    def _charge(self, count: int) -> None:
        budget = getattr(self._own, "budget", None)
        if budget is not None:  # none: Jinja works out a constant while it compiles
            budget.charge(count)
        elif count > MOST:
            raise TemplateError("it makes too much of too little")

    def _made(self, value: Any) -> Any:
        self._charge(len(value) if isinstance(value, str | bytes | list | tuple | dict) else 1)
        return value

    def _written(self, value: Any) -> Any:
        self._charge(len(value) if isinstance(value, str) else 1)
        return value

    def _counted(self, items: Iterable[Any], size: int) -> Iterator[Any]:
        for item in items:
            self._charge(TURN + size)
            yield item

    def _joined(self, parts: Sequence[Any]) -> str:
        texts = [str(part) for part in parts]
        self._charge(sum(map(len, texts)))
        return "".join(texts)

    def _guarded(self, name: str, action: Callable[..., Any]) -> Callable[..., Any]:
        """A filter whose arguments are looked at first, and whose result is charged."""

        @functools.wraps(action)  # with the marks by which Jinja passes a context
        def guarded(*args: Any, **kwargs: Any) -> Any:
            values = args[1:] if hasattr(action, "jinja_pass_arg") else args
            self._charge(TURN)
            self._check_text(name, values, kwargs)
            return self._made(action(*args, **kwargs))

        return guarded

    # --- what is refused before it is made ---------------------------------------------------------------------------

    def _check_text(self, name: str, values: Sequence[Any], named: dict[str, Any]) -> None:
        """Raises TemplateError for what an operation on text would make too much of; `values` begins with the text."""
        every = [*values, *named.values()]
        for value in every:
            if isinstance(value, int):
                self._refuse_large(value, DEEPEST if name == "tojson" else LARGEST)
        texts = [value for value in every if isinstance(value, str)]
        if name in ("format", "format_map"):
            self._check_format(texts[0] if texts else "", every)
        elif name == "replace" and len(texts) >= 3:
            self._charge(texts[0].count(texts[1]) * len(texts[2]))
        elif name in ("join", "indent", "translate", "expandtabs", "wordwrap") and len(values) > 1:
            self._charge_product(*(_size(value) for value in values[:2]))

    def _charge_product(self, left: Any, right: Any) -> None:
        for one, other in ((left, right), (right, left)):
            if isinstance(one, str | bytes | list | tuple) and isinstance(other, int):
                self._charge(len(one) * max(other, 0))
                return
        if isinstance(left, int) and isinstance(right, int):
            self._refuse_large(left.bit_length() + right.bit_length(), DIGITS)

    def _check_format(self, text: str, values: Iterable[Any]) -> None:
        if WIDE.search(text):
            raise TemplateError("a width beyond any text's")
        for value in values:
            if isinstance(value, int):
                self._refuse_large(value, 2**63)
            elif isinstance(value, str) and WIDE.fullmatch(value):
                raise TemplateError("a width beyond any text's")

    @staticmethod
    def _refuse_large(number: int, most: int) -> None:
        if number > most:
            raise TemplateError("a number beyond any text's")


class _Joins:
    """Gives every `a ~ b` to a filter that charges it."""

    def visit(self, node: Any) -> Any:
        """The node, or what stands in its place."""
        for field, value in list(node.iter_fields()):
            if isinstance(value, list):
                setattr(node, field, [self.visit(one) if isinstance(one, nodes.Node) else one for one in value])
            elif isinstance(value, nodes.Node):
                setattr(node, field, self.visit(value))
        if isinstance(node, nodes.Concat):
            items = nodes.List(node.nodes, lineno=node.lineno)
            return nodes.Filter(items, JOINED, [], [], None, None, lineno=node.lineno)
        return node


def _size(value: Any) -> Any:
    """What an argument multiplies by: itself where it is a number, else how long it is."""
    return value if isinstance(value, str | list | tuple) or not hasattr(value, "__len__") else len(value)
