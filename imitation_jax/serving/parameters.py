"""From the JSON of a request to what the engine is asked, with the names and bounds of OpenAI's API reference.

What would change an answer and cannot be done here is refused, not passed over.
"""

import dataclasses
import random
from collections.abc import Mapping, Sequence
from typing import Any

from imitation_jax.data.dialogues import ROLES
from imitation_jax.inference.requests import GenerateRequest, ScoreRequest
from imitation_jax.inference.score import ALTERNATIVES
from imitation_jax.serving.model import ServedModel
from imitation_jax.serving.scheduler import Wish

# Taken note of by OpenAI, without a bearing on the answer.
IGNORED = {"user", "store", "metadata", "service_tier", "safety_identifier", "prompt_cache_key"}
# Taken only with the value that changes nothing.
NEUTRAL = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "best_of": (1,),
    "suffix": ("",),
    "response_format": ({"type": "text"},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "modalities": (["text"],),
}
MOST_CHOICES = 128
MOST_STOPS = 16
COMPLETION_TOKENS = 16  # OpenAI's default for /v1/completions


class BadRequestError(ValueError):
    """What is wrong; `param` is the key it is about, `code` OpenAI's word for it."""

    def __init__(self, message: str, param: str | None = None, code: str | None = None):
        super().__init__(message)
        self.param, self.code = param, code


@dataclasses.dataclass(frozen=True)
class Asked:
    """A request for texts, understood; a text's number is that of its prompt times `n` and more.

    Attributes:
      chat: answers to messages, else continuations of texts.
      prompts: token ids of each.
      texts: the prompts themselves, where the answer repeats them.
      n: texts for each prompt.
      max_tokens: of each text.
      logprobs: whether tokens are told with their log-probabilities.
      alternatives: with so many of the likeliest tokens in the place of each.
      stream, usage: whether news are sent as they come, and the count of tokens after them.
      wishes: for the scheduler: the texts, then, where `echo` and `logprobs` ask for them, the prompts' scores.
    """

    chat: bool
    model: ServedModel
    prompts: list[list[int]]
    texts: list[str]
    n: int
    max_tokens: int
    logprobs: bool
    alternatives: int
    stream: bool
    usage: bool
    wishes: list[Wish]


def chat(body: Mapping[str, Any], model: ServedModel, most: int) -> Asked:
    """The request of /v1/chat/completions.

    Args:
      body: its JSON.
      model: the one that it names.
      most: texts that a request may ask for.

    Raises:
      BadRequestError: one line that names the key.
    """
    fields = _Fields(body)
    messages = [_message(message, place) for place, message in enumerate(fields.array("messages"))]
    if not messages:
        raise BadRequestError("messages: is empty", "messages")
    if model.template is None:
        hint = "use /v1/completions, or start the server with --template=plain or a .jinja file"
        raise BadRequestError(f"{model.name} has no chat template; {hint}", "model")
    try:
        prompt = model.template.prompt_ids(messages)
    except ValueError as error:
        raise BadRequestError(f"messages: {error}", "messages") from None
    limits = [fields.whole(name, None, 1) for name in ("max_completion_tokens", "max_tokens")]
    max_tokens = next((limit for limit in limits if limit is not None), None)
    logprobs = fields.flag("logprobs")
    alternatives = fields.whole("top_logprobs", 0, 0, ALTERNATIVES)
    if alternatives and not logprobs:
        raise BadRequestError("top_logprobs: needs logprobs: true", "top_logprobs")
    return _asked(fields, model, [prompt], max_tokens, most, chat=True, logprobs=logprobs, alternatives=alternatives)


def completion(body: Mapping[str, Any], model: ServedModel, most: int) -> Asked:
    """The request of /v1/completions; as `chat`."""
    fields = _Fields(body)
    given = fields.take("prompt", "")
    several = isinstance(given, list) and not (given and _is_id(given[0]))
    if several and not 0 < len(given) <= most:
        raise BadRequestError(f"prompt: a list of {len(given)}, not of 1 to {most}", "prompt")
    prompts = [_prompt(one, model) for one in (given if several else [given])]
    max_tokens = fields.whole("max_tokens", COMPLETION_TOKENS, 0)
    echo = fields.flag("echo")
    alternatives = fields.whole("logprobs", None, 0, ALTERNATIVES)
    return _asked(
        fields,
        model,
        [ids for ids, _ in prompts],
        max_tokens,
        most,
        texts=[text for _, text in prompts] if echo else [],
        logprobs=alternatives is not None,
        alternatives=alternatives or 0,
    )


def _asked(
    fields: "_Fields",
    model: ServedModel,
    prompts: list[list[int]],
    max_tokens: int | None,
    most: int,
    *,
    logprobs: bool,
    alternatives: int,
    chat: bool = False,
    texts: Sequence[str] = (),
) -> Asked:
    """What both kinds of requests have."""
    longest = max(map(len, prompts))
    max_tokens = model.slots - max(longest, 1) if max_tokens is None else max_tokens
    if max(longest, 1) + max_tokens > model.slots or (chat and max_tokens < 1):
        asked = f" and {max_tokens} of an answer" if max_tokens > 0 else ""
        raise BadRequestError(
            f"{longest} tokens of a prompt{asked} do not fit the limit of {model.slots} tokens for both",
            "messages" if chat else "prompt",
            "context_length_exceeded",
        )
    n = fields.whole("n", 1, 1, MOST_CHOICES)
    if len(prompts) * n > most:
        raise BadRequestError(f"n: {len(prompts)} prompts with {n} texts each, at most {most} in all", "n")
    settings = {
        "temperature": fields.number("temperature", 1.0, 0, 2),
        "top_p": max(fields.number("top_p", 1.0, 0, 1), 1e-6),
        "stop": fields.stop(),
    }
    seed = fields.whole("seed", None, -(2**63), 2**63)
    stream = fields.flag("stream")
    options = fields.take("stream_options", {})
    if not isinstance(options, dict):
        raise BadRequestError("stream_options: is no object", "stream_options")
    if stream and texts and logprobs:
        raise BadRequestError("stream: not with both echo and logprobs", "stream")
    fields.finish()
    wishes = []
    for prompt in prompts if max_tokens else ():
        for choice in range(n):
            drawn = random.getrandbits(31) if seed is None else (seed + choice) % 2**31
            request = GenerateRequest(prompt, max_tokens, seed=drawn, **settings)
            wishes.append(Wish(request, stream, alternatives))
    if texts and logprobs:
        wishes += [Wish(ScoreRequest(prompt[:1], prompt[1:], alternatives)) for prompt in prompts]
    usage = bool(options.get("include_usage"))
    return Asked(chat, model, prompts, list(texts), n, max_tokens, logprobs, alternatives, stream, usage, wishes)


def _message(message: Any, place: int) -> dict[str, str]:
    where = f"messages[{place}]"
    if not isinstance(message, dict):
        raise BadRequestError(f"{where}: is no object", where)
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        raise BadRequestError(f"{where}.role: {str(role)[:40]!r} is none of {', '.join(ROLES)}", f"{where}.role")
    if isinstance(content, list):  # OpenAI's other way to write a text
        parts = [
            part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None for part in content
        ]
        content = "".join(parts) if all(isinstance(part, str) for part in parts) else None
    if not isinstance(content, str):
        raise BadRequestError(f"{where}.content: is no text", f"{where}.content")
    return {"role": role, "content": _whole_text(content, f"{where}.content")}


def _prompt(given: Any, model: ServedModel) -> tuple[list[int], str]:
    """Ids and text of a prompt that is given as either."""
    if isinstance(given, str):
        ids = model.tokenizer.encode(_whole_text(given, "prompt"), add_special_tokens=True)
    elif isinstance(given, list) and all(map(_is_id, given)):
        wrong = next((i for i in given if not 0 <= i < model.engine.config.vocab_size), None)
        if wrong is not None:
            raise BadRequestError(f"prompt: token id {wrong} is not in the model's vocabulary", "prompt")
        ids, given = given, None
    else:
        raise BadRequestError("prompt: is neither a text, nor token ids, nor a list of these", "prompt")
    if not ids:
        first = model.tokenizer.eos_id if model.tokenizer.bos_id is None else model.tokenizer.bos_id
        if first is None:
            raise BadRequestError("prompt: is empty", "prompt")
        ids = [first]
    return ids, model.tokenizer.decode(ids) if given is None else given


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _whole_text(text: str, name: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadRequestError(f"{name}: holds half a surrogate pair, which is no character", name) from None
    return text


class _Fields:
    """The keys of a request that are not read yet; null is as good as none."""

    def __init__(self, body: Mapping[str, Any]):
        self._left = {name: value for name, value in body.items() if value is not None and name != "model"}

    def take(self, name: str, default: Any) -> Any:
        return self._left.pop(name, default)

    def array(self, name: str) -> list:
        value = self.take(name, None)
        if not isinstance(value, list):
            raise BadRequestError(f"{name}: is {'missing' if value is None else 'no list'}", name)
        return value

    def flag(self, name: str) -> bool:
        value = self.take(name, False)
        if not isinstance(value, bool):
            raise BadRequestError(f"{name}: is neither true nor false", name)
        return value

    def number(self, name: str, default: float | None, low: float, high: float = float("inf")) -> float | None:
        value = self.take(name, default)
        if value is default:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            bounds = f"from {low:g} to {high:g}" if high < float("inf") else f"of {low:g} or more"
            raise BadRequestError(f"{name}: {str(value)[:40]} is no number {bounds}", name)
        return value

    def whole(self, name: str, default: int | None, low: int, high: float = float("inf")) -> int | None:
        value = self.number(name, default, low, high)
        if not (value is None or isinstance(value, int)):
            raise BadRequestError(f"{name}: {value} is no whole number", name)
        return value

    def stop(self) -> tuple[str, ...]:
        value = self.take("stop", [])
        stops = [value] if isinstance(value, str) else value
        if not isinstance(stops, list) or not all(isinstance(stop, str) and stop for stop in stops):
            raise BadRequestError("stop: is neither a text nor a list of texts, none of them empty", "stop")
        if len(stops) > MOST_STOPS:
            raise BadRequestError(f"stop: holds {len(stops)} texts, at most {MOST_STOPS}", "stop")
        return tuple(_whole_text(stop, "stop") for stop in stops)

    def finish(self) -> None:
        """Raises BadRequestError for what nobody has read, unless it makes no difference."""
        for name, value in self._left.items():
            if name in IGNORED or value in NEUTRAL.get(name, ()):
                continue
            known = "only with its default here" if name in NEUTRAL else "unknown"
            raise BadRequestError(f"{str(name)[:60]}: {known}", str(name)[:60])
