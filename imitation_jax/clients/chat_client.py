"""A chat model behind an OpenAI-compatible API (POST /chat/completions).

The key stands in an environment variable; it goes into one header and nowhere else. On the house's own `http.post`
rather than the openai package, whose retries and timeouts know neither budget nor token rate, nor the answer that
drips in for ever.
"""

import dataclasses
import os
import re
import time
from collections.abc import Sequence
from typing import Any

from imitation_jax.clients.http import BadAnswerError, RefusedError, post
from imitation_jax.clients.limits import Budget, RateLimit, Tokens

MAX_TOKENS = ("max_tokens", "max_completion_tokens")
# What templates put around: tokens a message, and a request (a system prompt that the model has by itself).
AROUND_MESSAGE, AROUND_REQUEST = 8, 64
BYTES_A_TOKEN = 4  # of English text; no byte-level tokenizer makes more than one token of a byte
MOST_TOKENS = 2**40  # a larger usage is nonsense
VARIABLE = re.compile(r"[A-Za-z_]\w*")
# gpt-4-0613 and gpt-4-2024-08-06 are gpt-4, gpt-4o and gpt-4-32k are not.
SNAPSHOT = re.compile(r"[-@:]\d[\d-]*")


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


class Chat:
    """Asks one model. `budget` counts what is spent."""

    def __init__(
        self,
        url: str,
        model: str,
        parameters: dict[str, Any],
        *,
        budget: Budget,
        limit: RateLimit,
        key: str = "",
        also_answers: Sequence[str] = (),
        tries: int = 8,
        first_wait: float = 1.0,
        timeout: float = 600.0,
    ):
        """Args:
          url: base of the API, such as https://api.openai.com/v1.
          parameters: what is sent beside model and messages; with max_tokens where the budget limits tokens or cost.
          key: name of the environment variable that holds the key, "" for none.
          also_answers: names of models whose answers count beside those of `model` and its dated snapshots.
          tries, first_wait, timeout: see `http.post`.

        Raises:
          ValueError: no key there, or a budget without max_tokens.
        """
        self.budget, self.limit, self.model, self.parameters = budget, limit, model, parameters
        self._url, self._also = url.rstrip("/") + "/chat/completions", set(also_answers)
        self.max_tokens = longest_answer(parameters)
        if not self.max_tokens and (budget.tokens or budget.dollars):
            raise ValueError("a budget needs parameters.max_tokens: without it no answer's cost is bounded")
        self._post = {"tries": tries, "first_wait": first_wait, "timeout": timeout}
        self._post |= {"limit": limit, "budget": budget, "bill": usage_of}
        self._post["headers"] = {"Authorization": f"Bearer {read_key(key)}"} if key else {}
        self._around = AROUND_REQUEST

    def ask(self, messages: Sequence[dict], **more: Any) -> Reply:
        """The model's answer; `more` is sent beside the parameters.

        Raises:
          RefusedError, ApiError, BudgetSpentError, StoppedError: see `http.post`; RefusedError also where a filter
            of the provider ended the answer, and where the model says nothing, asked as often as `tries`.
        """
        begin, most = time.monotonic(), _bytes(messages)
        worst = Tokens(most + self._around, self.max_tokens)

        def parse(answer: dict) -> Reply:
            reply = self._parse(answer, time.monotonic() - begin)
            if (billed := usage_of(answer)) is not None:
                # A template that puts more around than was thought is reckoned with from now on.
                self._around = max(self._around, billed.prompt - most)
            return reply

        body = {"model": self.model, "messages": list(messages), **self.parameters, **more}
        tokens = estimate(messages) + self.max_tokens
        for _ in range(self._post["tries"]):
            reply = post(self._url, body, parse, tokens=tokens, worst=worst, **self._post)
            if reply.text.strip():
                return reply
        raise RefusedError(f"the model says nothing, asked {self._post['tries']} times", 200, {})

    def _parse(self, answer: dict, seconds: float) -> Reply:
        if isinstance(answer.get("error"), dict | str):
            error = answer["error"]
            raise BadAnswerError(f"an error as answer: {error.get('message') if isinstance(error, dict) else error}")
        model = answer.get("model")
        if model is not None and not self._is_asked(str(model)):
            raise BadAnswerError(f"an answer of {str(model)[:80]!r}, asked was {self.model!r} (config.also_answers)")
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
        same = name == self.model or name in self._also
        return same or (name.startswith(self.model) and bool(SNAPSHOT.fullmatch(name[len(self.model) :])))


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
        raise ValueError(f"{shown} is not set in the environment; config.key names the variable that holds the key")
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
    found = [usage.get("prompt_tokens"), usage.get("completion_tokens")]
    good = all(isinstance(count, int) and 0 <= count < MOST_TOKENS for count in found)
    return Tokens(*found) if good else None


def estimate(messages: Sequence[dict]) -> int:
    """About how many tokens a prompt has, as for English text."""
    return -(-sum(len(message["content"].encode()) for message in messages) // BYTES_A_TOKEN)


def _bytes(messages: Sequence[dict]) -> int:
    """No less than the tokens of a prompt, but for what a template puts around it all."""
    return sum(len(message["content"].encode()) + AROUND_MESSAGE for message in messages)
