"""A model as clients see it."""

import functools
import time

from imitation_jax.inference.engine import Engine


class ServedModel:
    """A name, an engine, and how its tokens are spelled.

    Attributes:
      name: what requests call it.
      engine: computes; for the scheduler's thread alone.
      slots: tokens that a prompt and its answer may have together.
      created: seconds since 1970.
    """

    def __init__(self, name: str, engine: Engine, slots: int):
        self.name, self.engine, self.slots = name, engine, slots
        self.tokenizer, self.template = engine.tokenizer, engine.template
        self.created = int(time.time())
        # Before some tokens a tokenizer writes no space at the beginning of a text, but anywhere else.
        self._before = self.tokenizer.encode("\n")[-1:]
        self._length = len(self.tokenizer.decode(self._before))
        self.spelled = functools.lru_cache(2**16)(self._spelled)

    def _spelled(self, token: int) -> str:
        """The token's own text; U+FFFD for bytes that are no whole character."""
        return self.tokenizer.decode([*self._before, token])[self._length :]
