"""Chat templates: messages -> text, and messages -> ids with a mask over what the assistant says.

Text is rendered as transformers' `apply_chat_template` renders it, and its ids are those of the whole rendered text.
"""

import hashlib
import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from imitation_jax.tokenizers.tokenizer import Tokenizer

Messages = Sequence[dict[str, Any]]

# The plain text that Koala and the imitation models were trained on: PAPER "The released chat format".
LINEAGE = """\
{{ bos_token }}
{%- if messages and messages[0]['role'] == 'system' %}{{ messages[0]['content'] + ' ' }}
{%- else %}{{ 'BEGINNING OF CONVERSATION: ' }}
{%- endif %}
{%- for message in messages %}
    {%- if message['role'] == 'user' %}{{ 'USER: ' + message['content'] + ' GPT:' }}
    {%- elif message['role'] == 'assistant' %}
        {%- generation %}{{ message['content'] + eos_token }}{% endgeneration %}
    {%- elif not loop.first %}
        {{- raise_exception("a " + message['role'] + " message has no place in the lineage format") }}
    {%- endif %}
{%- endfor %}"""

# Unicode noncharacters, never used in text: they mark where {% generation %} blocks begin and end.
BLOCK_START, BLOCK_END = "\ufdd0", "\ufdd1"
PROBE = "\ufdd2probe\ufdd2"


class ChatTemplate:
    """A chat template bound to the tokenizer that reads its text.

    Attributes:
      source: the Jinja source.
      end_marker: what the template writes after an assistant's words to end the turn ("<|im_end|>"), maybe "".
      stop_ids: ids that end an assistant turn: the EOS token, and the end marker where it is one token.
      fingerprint: hexadecimal digest of the source and of how it is tokenised.
    """

    def __init__(self, source: str, tokenizer: Tokenizer, *, apart: bool = False, where: str = "chat template"):
        """Compiles and tries the template.

        Args:
          source: Jinja source.
          tokenizer: whose special tokens the template may name, and which encodes its text.
          apart: encode every assistant turn, and the text between them, on its own instead of the whole text.
          where: what error messages call the template.

        Raises:
          ValueError: a syntax error, with its line; or not even a question and its answer can be rendered.
        """
        self.source = source
        self.tokenizer = tokenizer
        self.where = where
        self._apart = apart
        self._plain = _compile(source, where, marked=False)
        self._marked = _compile(source, where, marked=True)
        self._has_blocks = self.render([]) is not None if False else _has_blocks(source)
        self.end_marker = self._find_end_marker()
        ends = {tokenizer.eos_id, tokenizer.token_to_id(self.end_marker.strip())}
        self.stop_ids = frozenset(i for i in ends if i is not None)
        self.fingerprint = hashlib.sha256(f"{apart}\0{source}".encode()).hexdigest()
