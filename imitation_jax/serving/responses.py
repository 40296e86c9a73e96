"""What clients get: OpenAI's objects, made of the scheduler's updates."""

import math
import secrets
import time
from collections.abc import Sequence
from typing import Any

from imitation_jax.inference.requests import Score, TokenScore
from imitation_jax.serving.parameters import ParsedRequest
from imitation_jax.serving.scheduler import Update

Json = dict[str, Any]


class Answer:
    """The answer to one request, whole or in chunks."""

    def __init__(self, request: ParsedRequest):
        kind = ("chatcmpl", "chat.completion") if request.chat else ("cmpl", "text_completion")
        self._request = request
        self._id, self._object = f"{kind[0]}-{secrets.token_hex(12)}", kind[1]
        self._created = int(time.time())
        self._usage_wanted = request.parameters.stream_options.include_usage
        self._written = 0
        self._length = [0] * request.count  # characters sent of each text

    def whole(self, updates: Sequence[Update], scores: Sequence[Score]) -> Json:
        """All texts at once; `scores` are the prompts', where they are wanted."""
        request = self._request
        choices = []
        for index, one in enumerate(updates):
            prompt = index // request.parameters.n
            if request.texts:
                one = Update(request.texts[prompt] + one.text, one.ids, one.scores, one.finish_reason)
            choices.append(self._choice(index, one, "message", scores[prompt] if scores else None))
        return {**self._head(), "choices": choices, "usage": self._usage()}

    def first(self) -> list[Json]:
        """The chunks that come before any update: who speaks, or the prompt that is repeated."""
        request = self._request
        indices = range(request.count)
        if request.chat:
            delta = {"role": "assistant", "content": ""}
            choices = [{"index": i, "delta": delta, "logprobs": None, "finish_reason": None} for i in indices]
        elif request.texts:
            repeated = (Update(request.texts[i // request.parameters.n], [], [], None) for i in indices)
            choices = [self._choice(i, update, "delta") for i, update in zip(indices, repeated, strict=True)]
        else:
            choices = []
        return [self._chunk([choice]) for choice in choices]

    def chunk(self, index: int, update: Update) -> Json:
        """How one text goes on."""
        return self._chunk([self._choice(index, update, "delta")])

    def last(self) -> Json:
        """The chunk that counts the tokens."""
        return {**self._chunk([]), "usage": self._usage()}

    def _chunk(self, choices: list[Json]) -> Json:
        head = self._head()
        if self._request.chat:
            head["object"] += ".chunk"
        return {**head, "choices": choices, **({"usage": None} if self._usage_wanted else {})}

    def _head(self) -> Json:
        return {"id": self._id, "object": self._object, "created": self._created, "model": self._request.model.name}

    def _usage(self) -> Json:
        read = sum(map(len, self._request.prompts))
        return {"prompt_tokens": read, "completion_tokens": self._written, "total_tokens": read + self._written}

    def _choice(self, index: int, update: Update, place: str, score: Score | None = None) -> Json:
        self._written += len(update.ids)
        request, logprobs = self._request, None
        if request.logprobs and request.chat:
            logprobs = {"content": [self._token(*pair) for pair in zip(update.ids, update.scores, strict=True)]}
        elif request.logprobs:
            prompt = request.prompts[index // request.parameters.n] if score else []
            # Nothing comes before a text's first token.
            scores = [*([None, *score.each] if score else []), *update.scores]
            logprobs = self._listed([*prompt, *update.ids], scores, self._length[index])
            self._length[index] += sum(map(len, logprobs["tokens"]))
        end = {"logprobs": logprobs, "finish_reason": update.finish_reason}
        if not request.chat:
            return {"index": index, "text": update.text, **end}
        content = {"content": update.text} if update.text or place == "message" else {}
        if place == "message":
            content = {"role": "assistant", **content, "refusal": None}
        return {"index": index, place: content, **end}

    def _token(self, token: int, score: TokenScore) -> Json:
        """A chat's token."""
        likely = [self._spelled(token, logprob) for token, logprob in score.alternatives.items()]
        return {**self._spelled(token, score.logprob), "top_logprobs": likely}

    def _spelled(self, token: int, logprob: float) -> Json:
        text = self._request.model.spelled(token)
        whole = "\ufffd" not in text
        return {"token": text, "logprob": _finite(logprob), "bytes": list(text.encode()) if whole else None}

    def _listed(self, ids: Sequence[int], scores: Sequence[TokenScore | None], start: int) -> Json:
        """A completion's tokens, as lists side by side."""
        spelled = self._request.model.spelled
        tokens = [spelled(token) for token in ids]
        offsets = [start]
        for token in tokens:
            offsets.append(offsets[-1] + len(token))
        top = None
        if self._request.alternatives:
            top = [score and _by_text(score.alternatives, spelled) for score in scores]
        return {
            "tokens": tokens,
            "token_logprobs": [score and _finite(score.logprob) for score in scores],
            "top_logprobs": top,
            "text_offset": offsets[:-1],
        }


def _by_text(alternatives: dict[int, float], spelled) -> dict[str, float]:
    """The likeliest of tokens that are spelled the same."""
    return {spelled(token): _finite(logprob) for token, logprob in reversed(alternatives.items())}


def _finite(logprob: float) -> float:
    """JSON has no infinity; OpenAI writes this for what is out of the question."""
    return logprob if math.isfinite(logprob) else -9999.0
