"""What is asked of a model, and what comes back. Without jax, so that whoever asks need not load it."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple


@dataclasses.dataclass(frozen=True)
class ScoreRequest:
    """How likely is `continuation` after `context`? Both are token ids.

    `alternatives` asks for each token apart, with so many of the most likely ones in its place, at most 20.
    """

    context: Sequence[int]
    continuation: Sequence[int]
    alternatives: int | None = None


class TokenScore(NamedTuple):
    """Natural-log likelihood of a token, and of the most likely ones in its place, those first."""

    logprob: float
    alternatives: dict[int, float]


@dataclasses.dataclass(frozen=True)
class Score:
    """Natural-log likelihood of a continuation, whether greedy decoding would write it, and how many tokens it has.

    `each` is about its tokens one by one, where the request asks for that.
    """

    logprob: float
    greedy: bool
    tokens: int
    each: Sequence[TokenScore] = ()


@dataclasses.dataclass(frozen=True)
class GenerateRequest:
    """What to continue, and how.

    Attributes:
      prompt: token ids.
      max_new_tokens: at most so many; a generation also ends where the model's context does.
      stop: strings that end the text before they begin, special tokens among them.
      stop_ids: tokens that end it; None for those of the model's chat template.
      temperature, top_p: see `sampling.choose`.
      seed: of this request's draws.
    """

    prompt: Sequence[int]
    max_new_tokens: int
    stop: Sequence[str] = ()
    stop_ids: frozenset[int] | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Generation:
    """What was written.

    Attributes:
      text: decoded without special tokens, cut before the first stop string.
      ids: its tokens without a stop id; where a stop string ended it, up to the token that completed that string.
      finish_reason: "stop" after a stop id or string, else "length".
      logprob: summed natural-log probabilities of `ids` as the model gives them, whatever the temperature.
    """

    text: str
    ids: list[int]
    finish_reason: str
    logprob: float
