"""The state of one text while it is being generated: its tokens, where it ends, and a draft of what comes next."""

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from imitation_jax.inference.generate import NO_TOKEN
from imitation_jax.inference.requests import GenerateRequest, Generation

if TYPE_CHECKING:
    from imitation_jax.tokenizers.tokenizer import Tokenizer

LOOKUP_LENGTH = 4  # tokens that must have stood in the text before, for what followed them to be drafted


@dataclasses.dataclass(eq=False)
class SequenceState:
    """One request while it is being answered.

    Attributes:
      index: the request's, for messages and results.
      request: as it was asked.
      prompt: what is read; BOS where the request's is empty.
      limit: how many tokens it may have.
      stop_ids: tokens that end it.
      tokenizer: decodes it.
      ids, logprobs: its tokens so far, and the natural-log probability of each.
    """

    index: int
    request: GenerateRequest
    prompt: Sequence[int]
    limit: int
    stop_ids: frozenset[int]
    tokenizer: "Tokenizer"
    ids: list[int] = dataclasses.field(default_factory=list)
    logprobs: list[float] = dataclasses.field(default_factory=list)

    def append(self, tokens_C: np.ndarray, logprobs_C: np.ndarray) -> Generation | None:
        """Takes further tokens up to the first NO_TOKEN; returns the generation where it ends among them."""
        old = len(self.ids)
        self.ids += [token for token in tokens_C.tolist() if token != NO_TOKEN]
        self.logprobs += logprobs_C[: len(self.ids) - old].tolist()
        stopped = self.ids[-1] in self.stop_ids
        if stopped:
            del self.ids[-1], self.logprobs[-1]
        text = self._text(len(self.ids))
        if self._cut(text) is not None:
            length = next(n for n in range(old + 1, len(self.ids) + 1) if self._cut(self._text(n)) is not None)
            text = self._text(length)
            return self._generation(text[: self._cut(text)], length, "stop")
        if stopped or len(self.ids) == self.limit:
            return self._generation(text, len(self.ids), "stop" if stopped else "length")
        return None

    def draft(self, count: int) -> np.ndarray | None:
        """`count` tokens that may come: those that followed when the latest ones stood here before, or None.

        Prompt lookup decoding (Saxena 2023, github.com/apoorvumang/prompt-lookup-decoding); where fewer than `count`
        followed, they are repeated.
        """
        read = np.array([*self.prompt, *self.ids], np.int32)
        if len(read) <= LOOKUP_LENGTH:
            return None
        windows = np.lib.stride_tricks.sliding_window_view(read[:-1], LOOKUP_LENGTH)
        matches = np.flatnonzero((windows == read[-LOOKUP_LENGTH:]).all(axis=1))
        if not len(matches):
            return None
        start = matches[-1] + LOOKUP_LENGTH
        return read[start + np.arange(count) % (len(read) - start)]

    def stable_text(self) -> str:
        """What can be shown already: whole characters, and nothing that may turn out to begin a stop string."""
        text = self._text(len(self.ids)).rstrip("\ufffd")  # of a character whose other bytes are still to come
        held = max(
            (size for stop in self.request.stop for size in range(1, len(stop)) if text.endswith(stop[:size])),
            default=0,
        )
        return text[: len(text) - held]

    def _text(self, length: int) -> str:
        return self.tokenizer.decode(self.ids[:length], skip_special_tokens=True)

    def _cut(self, text: str) -> int | None:
        """Where the first stop string begins."""
        return min((start for start in map(text.find, self.request.stop) if start >= 0), default=None)

    def _generation(self, text: str, length: int, reason: str) -> Generation:
        return Generation(text, self.ids[:length], reason, math.fsum(self.logprobs[:length]))
