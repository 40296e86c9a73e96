"""The text that continues a prompt, while it is being written."""

import math
from collections.abc import Sequence

import numpy as np

from imitation_jax.inference.generate import NOTHING
from imitation_jax.inference.requests import GenerateRequest, Generation
from imitation_jax.tokenizers.tokenizer import Tokenizer

LATEST = 4  # tokens by which a text is found to repeat itself


class Writer:
    """One request while it is being answered: collects tokens and watches for its end.

    Attributes:
      index: the request's, for messages and results.
      prompt: what is read; BOS where the request's is empty.
      limit: how many tokens it may have.
      stop_ids: tokens that end it.
      ids, logprobs: its tokens so far, and the natural-log probability of each.
    """

    def __init__(
        self,
        index: int,
        request: GenerateRequest,
        prompt: Sequence[int],
        limit: int,
        stop_ids: frozenset[int],
        tokenizer: Tokenizer,
    ):
        self.index, self.request, self.prompt, self.limit, self.stop_ids = index, request, prompt, limit, stop_ids
        self._tokenizer = tokenizer
        self.ids: list[int] = []
        self.logprobs: list[float] = []

    def write(self, tokens_C: np.ndarray, logprobs_C: np.ndarray) -> Generation | None:
        """Takes a chunk; returns the generation where it ends."""
        old = len(self.ids)
        self.ids += [token for token in tokens_C.tolist() if token != NOTHING]
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

    def guess(self, count: int) -> np.ndarray | None:
        """`count` tokens that may come: those that followed when the latest ones stood here before, or None.

        Prompt lookup decoding (Saxena 2023, github.com/apoorvumang/prompt-lookup-decoding); a text that repeats
        itself goes round.
        """
        read = np.array([*self.prompt, *self.ids], np.int32)
        if len(read) <= LATEST:
            return None
        before = np.lib.stride_tricks.sliding_window_view(read[:-1], LATEST)
        found = np.flatnonzero((before == read[-LATEST:]).all(axis=1))
        if not len(found):
            return None
        start = found[-1] + LATEST
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
        return self._tokenizer.decode(self.ids[:length], skip_special_tokens=True)

    def _cut(self, text: str) -> int | None:
        """Where the first stop string begins."""
        return min((at for at in map(text.find, self.request.stop) if at >= 0), default=None)

    def _generation(self, text: str, length: int, reason: str) -> Generation:
        return Generation(text, self.ids[:length], reason, math.fsum(self.logprobs[:length]))
