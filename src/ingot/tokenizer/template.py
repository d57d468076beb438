"""The Jinja template of a tokenizer: that of `tokenizer_config.json`, or a built-in one."""

from __future__ import annotations

from typing import NoReturn

from ingot.errors import UserError
from ingot.tokenizer.tokenizer import Tokenizer

ROLE_TOKENS = frozenset({"<|system|>", "<|user|>", "<|assistant|>", "<|end|>"})

# A turn is the token of its role, what is said, and <|end|>. Generation blocks hold what is learned.
TEMPLATE = """\
{{- bos_token }}
{%- for message in messages %}
    {%- if message['role'] == 'assistant' %}
        {{- '<|assistant|>' }}
        {%- generation %}
            {{- message['content'] + '<|end|>' }}
        {%- endgeneration %}
    {%- elif message['role'] in ['system', 'user'] %}
        {{- '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}
    {%- else %}
        {{- raise_exception('a role is system, user or assistant') }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|assistant|>' }}
{%- endif %}"""

# For a vocabulary without tokens for roles, such as GPT-2's: roles are words, and the end token ends an answer.
PLAIN_TEMPLATE = """\
{{- bos_token }}
{%- for message in messages %}
    {%- if message['role'] == 'assistant' %}
        {{- 'Assistant:\\n' }}
        {%- generation %}
            {{- message['content'] + eos_token }}
        {%- endgeneration %}
        {{- '\\n\\n' }}
    {%- elif message['role'] in ['system', 'user'] %}
        {{- message['role'].capitalize() + ':\\n' + message['content'] + '\\n\\n' }}
    {%- else %}
        {{- raise_exception('a role is system, user or assistant') }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- 'Assistant:\\n' }}
{%- endif %}"""


def source_of(tokenizer: Tokenizer) -> str:
    """The template that the tokenizer brings, else a built-in one. Raises UserError for what is no template."""
    own = tokenizer.settings.get("chat_template")
    if isinstance(own, list):  # how older folders keep several
        named = [entry for entry in own if isinstance(entry, dict) and entry.get("name") == "default"]
        own = named[0].get("template") if named else own
    if own is not None and not isinstance(own, str):
        refuse("the chat template is no text", "mend chat_template in tokenizer_config.json")
    return own or (TEMPLATE if tokenizer.special.keys() >= ROLE_TOKENS else PLAIN_TEMPLATE)


def refuse(what: str, mend: str) -> NoReturn:
    """Raise the UserError for a template, or for what it can't do."""
    raise UserError(what, where="chat template", mend=mend)
