"""Templates from strangers: what they are for works, and what would harm the machine is refused at once."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from ingot.errors import UserError
from ingot.tokenizer.marks import Marks
from ingot.tokenizer.rendering import Template

SAID = [{"role": "user", "content": "one two"}, {"role": "assistant", "content": "three"}]

HOSTILE = {
    "endless loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "loops with text": "{% for a in range(99999) %}" + "x" * 10_000 + "{% endfor %}",
    "loops in a condition": "{% for a in range(99999) if range(99999)|list %}{% endfor %}",
    "a long product": "{{ 'a' * 10**10 }}",
    "a long product of lists": "{{ [0] * 10**10 }}",
    "products of products": "{% set n = namespace(x='a') %}{% for i in range(9) %}{% set n.x = n.x * 99 %}{% endfor %}",
    "doubling by +": "{% set ns = namespace(x='aa') %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "doubling by ~": "{% set ns = namespace(x='aa') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "doubling lists": "{% set ns = namespace(x=[1]) %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "doubling blocks": "{% set x = 'aa' %}"
    + "".join("{% set x %}{{ x }}{{ x }}{% endset %}" for _ in range(60))
    + "{{ x }}",
    "keeping much": "{% set ns = namespace(x=[]) %}{% for i in range(9999) %}"
    "{% set ns.x = ns.x + ['a' * 1000000 ~ i] %}{% endfor %}",
    "a large power": "{{ 9**(9**9) }}",
    "large numbers": "{% set ns = namespace(x=9) %}{% for i in range(99) %}{% set ns.x = ns.x * ns.x %}{% endfor %}",
    "a wide format": "{{ '%1000000000d' % 1 }}",
    "a wide format by star": "{{ '%*d' % (10**12, 1) }}",
    "a wide format method": "{{ '{:>1000000000}'.format(1) }}",
    "a wide format filter": "{{ '%1000000000d'|format(1) }}",
    "centred": "{{ 'a'|center(10**10) }}",
    "centred by a method": "{{ 'a'.center(10**10) }}",
    "zeros": "{{ 'a'.zfill(10**10) }}",
    "tabs": "{{ ('\t' * 1000000).expandtabs(1000000) }}",
    "replaced": "{{ ('a' * 1000000)|replace('a', 'b' * 1000000) }}",
    "replaced by a method": "{{ ('a' * 1000000).replace('a', 'b' * 1000000) }}",
    "joined": "{{ (range(99999)|list)|join('a' * 1000000) }}",
    "joined by a method": "{{ ('a' * 1000000).join(('b' * 100000)|list) }}",
    "indented": "{{ ('a\n' * 1000000)|indent(1000000) }}",
    "indented JSON": "{{ [[[[1]]]]|tojson(indent=10**10) }}",
    "a product by a filter": "{{ ['a' * 9]|map('center', 10**10)|list }}",
    "recursion": "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(1) }}",
    "recursion in width": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(99) }}",
    "the machine": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "the machine by a function": "{{ cycler.__init__.__globals__.os.system('true') }}",
    "the machine by a format": "{{ '{0.__class__.__init__.__globals__}'.format(messages) }}",
    "depth": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "filler": "{{ lipsum(n=1000000) }}",
}


def render(source: str) -> str:
    return Template(source, {"bos_token": "<s>"}, Marks({})).render(SAID, add_generation_prompt=True, learn=False)


def test_what_would_harm_the_machine_is_refused_in_a_small_memory():
    """In a process of its own, whose memory has a bound: a refusal each, no crash, no kill."""
    script = (
        "from test_sandbox import HOSTILE, render\nfrom ingot.errors import UserError\n"
        "for name, source in HOSTILE.items():\n"
        "    try:\n        text = render(source)\n"
        "    except UserError:\n        print('refused:', name)\n"
        "    else:\n        assert len(text) < 1000 and 'os' not in text, name\n        print('harmless:', name)\n"
    )

    def bound() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (2 * 2**30, 2 * 2**30))

    path = [__file__.rpartition("/")[0], *sys.path]
    command = [sys.executable, "-c", f"import sys; sys.path[:0] = {path!r}\n{script}"]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=bound, check=False)
    assert done.stdout.count("\n") == len(HOSTILE), done.stdout + done.stderr[-2000:]
    assert done.stdout.count("harmless") <= 3, done.stdout


def test_what_templates_do_works():
    text = """\
{%- set ns = namespace(found=false, all=[]) -%}
{%- for message in messages[::-1] -%}
{%- set ns.all = ns.all + [message.role ~ ':' ~ message['content']|trim|upper] -%}
{{ loop.index }}/{{ loop.length }}{{ ' last' if loop.last }}{{ ', ' * (loop.length - loop.index) }}
{%- endfor -%}
{{ ' ' + ns.all|join(' | ') }} {{ '%s-%05.1f' % ('a', 2) }} {{ {'a': [1, 'ä']}|tojson }} {{ bos_token }}
{%- macro twice(x) -%}{{ x }}{{ x }}{%- endmacro %} {{ twice('ab') }} {{ 'a-b'.split('-')|last }} {{ 7 // 2 }}
{%- for key, value in {'k': 1}.items() if value %} {{ key }}={{ value }}{% endfor %}
{%- for a in messages recursive %} {{ loop.depth }}{% endfor %}"""
    assert render(text) == ('1/2, 2/2 last assistant:THREE | user:ONE TWO a-002.0 {"a": [1, "ä"]} <s> abab b 3 k=1 1 1')


def test_each_text_has_a_budget_of_its_own():
    template = Template("{% for i in range(9000) %}{{ 'a' * 2000 }}{% endfor %}", {}, Marks({}))
    for _ in range(3):
        assert len(template.render(SAID, add_generation_prompt=False, learn=False)) == 18_000_000


def test_a_long_conversation_is_no_attack():
    template = Template(
        "{% for m in messages %}{{ m.content|trim|replace('a', 'bc') ~ '\\n' }}{% endfor %}", {}, Marks({})
    )
    said = [{"role": "user", "content": "a " * 100_000}] * 100
    assert len(template.render(said, add_generation_prompt=False, learn=False)) == 100 * 300_000
    with pytest.raises(UserError, match="chat template"):
        render("{{ raise_exception('no') }}")
