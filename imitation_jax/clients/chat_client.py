"""A chat model behind an OpenAI-compatible API (POST /chat/completions).

On this folder's own `http.JsonApi` rather than the openai package, whose retries and timeouts know neither budget nor
token rate, nor the answer that drips in for ever.
"""

import dataclasses
import os
import re
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from imitation_jax.clients.budget import Budget, Tokens
from imitation_jax.clients.http import BadAnswerError, JsonApi, RefusedError
from imitation_jax.clients.rate_limiter import RateLimiter
from imitation_jax.core.comma_list import comma_list

MAX_TOKENS = ("max_tokens", "max_completion_tokens")
# What templates put around: tokens a message, and a request (a system prompt that the model has by itself).
AROUND_MESSAGE, AROUND_REQUEST = 8, 64
BYTES_A_TOKEN = 4  # of English text; no byte-level tokenizer makes more than one token of a byte
MOST_TOKENS = 2**40  # a larger usage is nonsense
VARIABLE = re.compile(r"[A-Za-z_]\w*")
# gpt-4-0613 and gpt-4-2024-08-06 are gpt-4, gpt-4o and gpt-4-32k are not.
SNAPSHOT = re.compile(r"[-@:]\d[\d-]*")


class Request(NamedTuple):
    """A dialogue to answer.

    Attributes:
      messages: with "role" and "content".
      more: what is sent beside messages and the config's parameters, such as a seed.
      about: what whoever asks knows it by; it is not sent.
    """

    messages: Sequence[dict]
    more: dict[str, Any] = {}
    about: Any = None


@dataclasses.dataclass(frozen=True)
class Reply:
    """What a model answered.

    Attributes:
      model: the name that the answer bears, None where it bears none.
      usage: the API's own, None where it gives none.
      seconds: from the question to the answer, with all waits and tries.
    """

    text: str
    model: str | None
    finish_reason: str | None
    usage: dict[str, Any] | None
    seconds: float


class ChatClient:
    """Asks the model that the config names (see config.py), within the budget and at the config's rate."""

    def __init__(self, config: ConfigDict, budget: Budget):
        """Raises ValueError: no key in the environment, or no bound to an answer's cost although the budget has one."""
        self._parameters, self._model = config.parameters.to_dict(), config.model
        self._also_answers = set(comma_list(config.also_answers))
        self._max_tokens = longest_answer(self._parameters)
        if not self._max_tokens and (budget.tokens or budget.dollars):
            raise ValueError("a budget needs parameters.max_tokens: without it no answer's cost is bounded")
        rates = (config.requests_per_minute, config.tokens_per_minute)
        self.api = JsonApi(
            config.url.rstrip("/") + "/chat/completions",
            {"Authorization": f"Bearer {read_key(config.key)}"} if config.key else {},
            limiter=RateLimiter(*(rate / 60 if rate else float("inf") for rate in rates)),
            budget=budget,
            cost_of=usage_of,
            **{key: config[key] for key in ("tries", "first_wait", "timeout")},
        )
        self._around = AROUND_REQUEST

    async def ask(self, request: Request) -> Reply:
        """The model's answer.

        Raises:
          RefusedError, ApiError, BudgetSpentError, StoppedError: see `JsonApi.post`; RefusedError also where a filter
            of the provider ended the answer, and where the model says nothing, asked as often as `config.tries`.
        """
        begin, most = time.monotonic(), _bytes(request.messages)
        worst = Tokens(most + self._around, self._max_tokens)

        def parse(answer: dict) -> Reply:
            reply = self._parse(answer, time.monotonic() - begin)
            if (billed := usage_of(answer)) is not None:
                # A template that puts more around than was thought is reckoned with from now on.
                self._around = max(self._around, billed.prompt - most)
            return reply

        body = {"model": self._model, "messages": list(request.messages), **self._parameters, **request.more}
        tokens = estimate(request.messages) + self._max_tokens
        for _ in range(self.api.tries):
            reply = await self.api.post(body, parse, tokens=tokens, worst=worst)
            if reply.text.strip():
                return reply
        raise RefusedError(f"the model says nothing, asked {self.api.tries} times", 200, {})

    def _parse(self, answer: dict, seconds: float) -> Reply:
        if isinstance(answer.get("error"), dict | str):
            error = answer["error"]
            raise BadAnswerError(f"an error as answer: {error.get('message') if isinstance(error, dict) else error}")
        model = answer.get("model")
        if model is not None and not self._is_asked(str(model)):
            raise BadAnswerError(f"an answer of {str(model)[:80]!r}, asked was {self._model!r} (config.also_answers)")
        if not answer["choices"]:
            raise BadAnswerError("an answer without choices")
        choice = answer["choices"][0]
        text, reason = choice["message"].get("content") or "", choice.get("finish_reason")
        if reason == "content_filter":
            raise RefusedError("the provider's filter ended the answer", 200, answer)
        text.encode()  # neither what is no text can be written, nor half a surrogate pair
        usage = answer.get("usage")
        return Reply(text, model, reason, usage if isinstance(usage, dict) else None, seconds)

    def _is_asked(self, name: str) -> bool:
        same = name == self._model or name in self._also_answers
        return same or (name.startswith(self._model) and bool(SNAPSHOT.fullmatch(name[len(self._model) :])))


def read_key(name: str) -> str:
    """The key in that environment variable.

    Raises:
      ValueError: there is none, or one that no header can hold; without the key.
    """
    if not VARIABLE.fullmatch(name):
        raise ValueError("config.key must be the name of an environment variable, not the key itself")
    key = os.environ.get(name, "").strip()
    if not key:
        # In lower case it may be a key (gsk_..., hf_...).
        shown = name if name.isupper() else "the variable"
        raise ValueError(f"{shown} is not set in the environment; it must hold the API's key")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError(f"{name} holds a space or a character that no key has")
    return key


def longest_answer(parameters: dict[str, Any]) -> int:
    """Most tokens of an answer, 0 where nothing bounds it: some servers take -1 for no bound."""
    return max(0, next((parameters[name] for name in MAX_TOKENS if parameters.get(name)), 0))


def usage_of(answer: dict) -> Tokens | None:
    """What an answer says that it cost."""
    usage = answer.get("usage")
    if not isinstance(usage, dict):
        return None
    counts = [usage.get("prompt_tokens"), usage.get("completion_tokens")]
    good = all(isinstance(count, int) and 0 <= count < MOST_TOKENS for count in counts)
    return Tokens(*counts) if good else None


def estimate(messages: Sequence[dict]) -> int:
    """About how many tokens a prompt has, as for English text."""
    return -(-sum(len(message["content"].encode()) for message in messages) // BYTES_A_TOKEN)


def _bytes(messages: Sequence[dict]) -> int:
    """No less than the tokens of a prompt, but for what a template puts around it all."""
    return sum(len(message["content"].encode()) + AROUND_MESSAGE for message in messages)
