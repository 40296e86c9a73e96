"""What clients get: OpenAI's objects, made of the scheduler's news."""

import math
import secrets
import time
from collections.abc import Sequence
from typing import Any

from imitation_jax.inference.requests import Score, TokenScore
from imitation_jax.serving.parameters import Asked
from imitation_jax.serving.scheduler import News

Json = dict[str, Any]


class Answer:
    """The answer to one request, whole or in chunks."""

    def __init__(self, asked: Asked):
        kind = ("chatcmpl", "chat.completion") if asked.chat else ("cmpl", "text_completion")
        self._asked = asked
        self._id, self._object = f"{kind[0]}-{secrets.token_hex(12)}", kind[1]
        self._created = int(time.time())
        self._usage_wanted = asked.parameters.stream_options.include_usage
        self._written = 0
        self._length = [0] * asked.count  # characters told of each text

    def whole(self, news: Sequence[News], scores: Sequence[Score]) -> Json:
        """All texts at once; `scores` are the prompts', where they were asked for."""
        asked = self._asked
        choices = []
        for index, one in enumerate(news):
            prompt = index // asked.parameters.n
            if asked.texts:
                one = News(asked.texts[prompt] + one.text, one.ids, one.scores, one.finish_reason)
            choices.append(self._choice(index, one, "message", scores[prompt] if scores else None))
        return {**self._head(), "choices": choices, "usage": self._usage()}

    def first(self) -> list[Json]:
        """The chunks that come before any news: who speaks, or the prompt that is repeated."""
        asked = self._asked
        indices = range(asked.count)
        if asked.chat:
            delta = {"role": "assistant", "content": ""}
            choices = [{"index": i, "delta": delta, "logprobs": None, "finish_reason": None} for i in indices]
        elif asked.texts:
            repeated = (News(asked.texts[i // asked.parameters.n], [], [], None) for i in indices)
            choices = [self._choice(i, news, "delta") for i, news in zip(indices, repeated, strict=True)]
        else:
            choices = []
        return [self._chunk([choice]) for choice in choices]

    def chunk(self, index: int, news: News) -> Json:
        """How one text goes on."""
        return self._chunk([self._choice(index, news, "delta")])

    def last(self) -> Json:
        """The chunk that counts the tokens."""
        return {**self._chunk([]), "usage": self._usage()}

    def _chunk(self, choices: list[Json]) -> Json:
        head = self._head()
        if self._asked.chat:
            head["object"] += ".chunk"
        return {**head, "choices": choices, **({"usage": None} if self._usage_wanted else {})}

    def _head(self) -> Json:
        return {"id": self._id, "object": self._object, "created": self._created, "model": self._asked.model.name}

    def _usage(self) -> Json:
        read = sum(map(len, self._asked.prompts))
        return {"prompt_tokens": read, "completion_tokens": self._written, "total_tokens": read + self._written}

    def _choice(self, index: int, news: News, place: str, score: Score | None = None) -> Json:
        self._written += len(news.ids)
        asked, logprobs = self._asked, None
        if asked.logprobs and asked.chat:
            logprobs = {"content": [self._token(*pair) for pair in zip(news.ids, news.scores, strict=True)]}
        elif asked.logprobs:
            prompt = asked.prompts[index // asked.parameters.n] if score else []
            # Nothing comes before a text's first token.
            scores = [*([None, *score.each] if score else []), *news.scores]
            logprobs = self._listed([*prompt, *news.ids], scores, self._length[index])
            self._length[index] += sum(map(len, logprobs["tokens"]))
        end = {"logprobs": logprobs, "finish_reason": news.finish_reason}
        if not asked.chat:
            return {"index": index, "text": news.text, **end}
        content = {"content": news.text} if news.text or place == "message" else {}
        if place == "message":
            content = {"role": "assistant", **content, "refusal": None}
        return {"index": index, place: content, **end}

    def _token(self, token: int, score: TokenScore) -> Json:
        """A chat's token."""
        likely = [self._spelled(token, logprob) for token, logprob in score.alternatives.items()]
        return {**self._spelled(token, score.logprob), "top_logprobs": likely}

    def _spelled(self, token: int, logprob: float) -> Json:
        text = self._asked.model.spelled(token)
        whole = "\ufffd" not in text
        return {"token": text, "logprob": _finite(logprob), "bytes": list(text.encode()) if whole else None}

    def _listed(self, ids: Sequence[int], scores: Sequence[TokenScore | None], start: int) -> Json:
        """A completion's tokens, as lists side by side."""
        spelled = self._asked.model.spelled
        tokens = [spelled(token) for token in ids]
        offsets = [start]
        for token in tokens:
            offsets.append(offsets[-1] + len(token))
        top = None
        if self._asked.alternatives:
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
