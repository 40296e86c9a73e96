"""Chat templates: messages -> text, and messages -> ids with a mask over what the assistant says.

Text is rendered as transformers' `apply_chat_template` renders it, and its ids are those of the whole rendered text.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from imitation_jax.tokenizers.tokenizer import Tokenizer, one_line

Messages = Sequence[dict[str, Any]]
Span = tuple[int, int]

# The plain text format of the models that the paper trained: a preamble (a system message takes its place), then
# `USER: {user} GPT:{assistant}</s>` with nothing between the turns. Its source is part of fingerprints: the name that
# the format had before stays in the error.
PLAIN = """\
{%- set preamble = 'BEGINNING OF CONVERSATION: ' %}
{{- bos_token }}
{%- for message in messages %}
    {%- if loop.first %}{{ message['content'] + ' ' if message['role'] == 'system' else preamble }}{% endif %}
    {%- if message['role'] == 'user' %}{{ 'USER: ' + message['content'] + ' GPT:' }}
    {%- elif message['role'] == 'assistant' %}{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}
    {%- elif not loop.first %}
        {{- raise_exception('the lineage format has no place for a later ' + message['role'] + ' message') }}
    {%- endif %}
{%- endfor %}"""

# Unicode noncharacters, which no text may hold, stand where {% generation %} blocks begin and end.
BLOCK_START, BLOCK_END = "\ufdd0", "\ufdd1"
PROBE = "probe-4f1c"
ALIASES = {"lineage": "plain"}  # names of before
NAMED_TEMPLATES = ("model", "plain", *ALIASES)  # of templates that are no files


class ChatTemplate:
    """A chat template bound to the tokenizer that encodes its text.

    Attributes:
      source: the Jinja source.
      apart: whether each assistant turn, and each text between two of them, is encoded on its own.
      end_marker: what the template writes right after an assistant's words to end the turn, such as "<|im_end|>".
      stop_ids: ids that end an assistant turn: EOS, and the end marker where it is a single token.
      fingerprint: hexadecimal digest of the source and of the way it is tokenised.
    """

    def __init__(self, source: str, tokenizer: Tokenizer, *, apart: bool = False, where: str = "chat template"):
        """Compiles the template and tries it on one question and answer.

        Args:
          source: Jinja source.
          tokenizer: encodes the text; its special tokens are the template's `bos_token`, `eos_token`, ...
          apart: encode each assistant turn, and each text between two of them, on its own.
          where: what error messages call the template.

        Raises:
          ValueError: a syntax error (with its line), or the question and answer cannot be rendered.
        """
        self.source = source
        self.where = where
        self.fingerprint = hashlib.sha256(f"apart={apart}\n{source}".encode()).hexdigest()
        self._tokenizer = tokenizer
        self.apart = apart
        self._compile()
        self._lead, self.end_marker, self._tail = self._probe()
        ends = {tokenizer.eos_id, tokenizer.token_to_id(self.end_marker.strip())}
        self.stop_ids = frozenset(i for i in ends if i is not None)

    def render(self, messages: Messages, add_generation_prompt: bool = False) -> str:
        """The text of a dialogue.

        Raises:
          ValueError: the template fails on this dialogue; the message is the template's own.
        """
        return self._render(self._template, messages, add_generation_prompt)

    def tokenize(self, messages: Messages) -> tuple[list[int], list[int]]:
        """Ids of a dialogue, and 1 for those of an assistant's words and of the marker that ends them, else 0.

        Raises:
          ValueError: the template fails on this dialogue, or does not show where its assistant turns are.
        """
        text = self.render(messages)
        return self._encode(text, self._spans(messages, text))

    def prompt_ids(self, messages: Messages) -> list[int]:
        """Ids of a dialogue up to where the assistant begins to speak. Raises ValueError as `render` does."""
        text = self.render(messages, add_generation_prompt=True)
        if self.apart:
            return self._encode(text, self._spans(messages, text))[0]
        return self._tokenizer.encode(text)

    def __getstate__(self) -> dict[str, Any]:
        # Compiled templates cannot be pickled; a worker process compiles its own.
        return {key: value for key, value in self.__dict__.items() if key not in ("_template", "_marked")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._compile()

    def _compile(self) -> None:
        try:
            self._template = _environment(_GenerationTag).from_string(self.source)
            marking = _environment(_MarkedGenerationTag)
            has_blocks = BLOCK_START in {d.data for d in marking.parse(self.source).find_all(nodes.TemplateData)}
            self._marked = marking.from_string(self.source) if has_blocks else None
        except jinja2.TemplateSyntaxError as error:
            raise ValueError(f"{self.where}, line {error.lineno}: {one_line(error)}") from error

    def _render(self, template: jinja2.Template, messages: Messages, add_generation_prompt: bool = False) -> str:
        try:
            return template.render(
                messages=list(messages),
                tools=None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **self._tokenizer.special_tokens,
            )
        except (jinja2.TemplateError, TypeError, ValueError, LookupError, AttributeError) as error:
            raise ValueError(f"{self.where}: {one_line(error)}") from error

    def _probe(self) -> tuple[str, str, str]:
        """What the template writes between a prompt and the answer, the marker after it, and all that comes after."""
        question = {"role": "user", "content": "Hello"}
        text = self.render([question, {"role": "assistant", "content": PROBE}])
        if PROBE not in text:
            raise ValueError(f"{self.where}: it leaves out what the assistant says")
        before, _, tail = text.rpartition(PROBE)
        prompt = self.render([question], add_generation_prompt=True)
        lead = before[len(prompt) :] if before.startswith(prompt) else ""
        marks = [(tail.find(token), token) for token in self._tokenizer.special_token_texts if token in tail]
        if marks:
            at, token = min(marks, key=lambda mark: (mark[0], -len(mark[1])))
            return lead, tail[: at + len(token)], tail
        return lead, tail.rstrip(), tail

    def _spans(self, messages: Messages, text: str) -> list[Span]:
        """Where in `text` the assistant speaks, end markers included."""
        turns = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        if not turns:
            return []
        if self._marked:
            return self._marked_spans(messages, text)
        spans = []
        for i in turns:
            turn = self.render(messages[: i + 1])
            start = self._turn_start(messages, i, turn)
            end = len(turn) - len(self._tail) + len(self.end_marker)
            if start is None or start > end or not turn.endswith(self._tail) or text[:end] != turn[:end]:
                raise ValueError(
                    f"{self.where}: no loss mask for message {i}: the template rewrites earlier messages as a dialogue "
                    "grows and has no {% generation %} block"
                )
            spans.append((start, end))
        return spans

    def _turn_start(self, messages: Messages, i: int, turn: str) -> int | None:
        if i == 0:  # no prompt comes before: many templates cannot render an empty dialogue, or begin it otherwise
            header = self.render([messages[0] | {"content": PROBE}]).partition(PROBE)[0]
            return len(header) if turn.startswith(header) else None
        header = self.render(messages[:i], add_generation_prompt=True)
        # A template that knows no generation prompt writes the assistant's header with the answer: no loss on it.
        # White space there (" answer" after "[/INST]") is the model's to write.
        if self._lead.strip():
            header += self._lead
        return len(header) if turn.startswith(header) else None

    def _marked_spans(self, messages: Messages, text: str) -> list[Span]:
        spans: list[Span] = []
        length, start = 0, 0
        marked = self._render(self._marked, messages)
        for part in marked.replace(BLOCK_END, BLOCK_START).split(BLOCK_START):
            start, length = length, length + len(part)
            spans.append((start, length))
        spans = spans[1::2]  # blocks do not nest, so parts alternate between outside and inside
        if marked.replace(BLOCK_START, "").replace(BLOCK_END, "") != text[:length]:
            raise ValueError(f"{self.where}: no loss mask: the dialogue holds U+FDD0 or U+FDD1")
        if not spans:
            raise ValueError(f"{self.where}: no loss mask: no assistant turn is inside a {{% generation %}} block")
        return [span for span in spans if span[0] < span[1]]

    def _encode(self, text: str, spans: list[Span]) -> tuple[list[int], list[int]]:
        """Ids of `text` and the mask of `spans`.

        A token that reaches over a span's border would be half prompt and half answer. At generation time the model
        sees the prompt tokenised alone, so there the text is cut at that border and both sides are encoded apart.
        """
        borders = sorted({border for span in spans for border in span})
        bos = self._tokenizer.special_tokens.get("bos_token")
        if self.apart:
            cuts = [*([len(bos)] if bos and text.startswith(bos) else []), *borders]
        else:
            cuts = []
        while True:
            ids, offsets = self._encode_pieces(text, cuts)
            crossed = set(_crossed(offsets, borders)).difference(cuts)
            if not crossed:
                return ids, _mask(offsets, spans)
            cuts = sorted(crossed.union(cuts))

    def _encode_pieces(self, text: str, cuts: list[int]) -> tuple[list[int], list[Span]]:
        ids: list[int] = []
        offsets: list[Span] = []
        for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
            # Turns of the plain format are texts of their own, each with sentencepiece's space before it.
            follows = start > 0 and not self.apart
            more, places = self._tokenizer.encode_with_offsets(text[start:end], follows)
            ids += more
            offsets += [(start + a, start + b) for a, b in places]
        return ids, offsets


def load_template(spec: str, tokenizer: Tokenizer) -> ChatTemplate | None:
    """The chat template that a config names; None where that is the tokenizer's own and it has none.

    Args:
      spec: "model" for the tokenizer's own, "plain" for the paper's USER: / GPT: text, or a path to a Jinja file.
      tokenizer: the tokenizer it is used with.

    Raises:
      FileNotFoundError: no such file.
      ValueError: the template cannot be used; see ChatTemplate.
    """
    spec = ALIASES.get(spec, spec)
    if spec == "plain":
        return ChatTemplate(PLAIN, tokenizer, apart=True, where="plain template")
    if spec == "model":
        return ChatTemplate(tokenizer.chat_template, tokenizer) if tokenizer.chat_template else None
    path = Path(spec)
    if not path.is_file():
        raise FileNotFoundError(f"{spec}: no such chat template: give 'model', 'plain' or a .jinja file")
    return ChatTemplate(path.read_text(encoding="utf-8"), tokenizer, where=str(path))


class _GenerationTag(Extension):
    """{% generation %} ... {% endgeneration %}, which renders what it holds."""

    tags = {"generation"}
    marks = ("", "")

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        before, after = (nodes.Output([nodes.TemplateData(mark)]) for mark in self.marks)
        return nodes.Scope([before, *body, after]).set_lineno(line)


class _MarkedGenerationTag(_GenerationTag):
    marks = (BLOCK_START, BLOCK_END)


def _environment(generation_tag: type[Extension]) -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[generation_tag, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    # transformers also defines `strftime_now`. With it the same dialogue has other ids tomorrow, so that caches and
    # resumed runs would go stale overnight; without it Llama 3.2's template writes its fixed date.
    return environment


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own filter escapes <, >, & and ' for HTML.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _crossed(offsets: list[Span], borders: list[int]) -> list[int]:
    """The borders that lie inside a token; both lists ascend."""
    crossed, k = [], 0
    for start, end in offsets:
        while k < len(borders) and borders[k] <= start:
            k += 1
        if k < len(borders) and borders[k] < end:
            crossed.append(borders[k])
    return crossed


def _mask(offsets: list[Span], spans: list[Span]) -> list[int]:
    mask, k = [], 0
    for start, _ in offsets:
        while k < len(spans) and spans[k][1] <= start:
            k += 1
        mask.append(int(k < len(spans) and spans[k][0] <= start))
    return mask
