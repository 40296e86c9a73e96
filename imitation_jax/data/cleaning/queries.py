"""What a dialogue asks: all its user turns together, normalised.

What the model said, and a system message, do not count. So "hi" or "continue" makes no dialogue a duplicate unless it
is all that its user said.
"""

import hashlib

from imitation_jax.data import normalise


def query(dialogue: dict) -> str:
    """The normalised user turns, a line each."""
    return "\n".join(normalise.query(turn["content"]) for turn in dialogue["messages"] if turn["role"] == "user")


def digest(query: str) -> bytes:
    """16 bytes that are the same for equal queries only."""
    return hashlib.blake2b(encoded(query), digest_size=16).digest()


def encoded(query: str) -> bytes:
    """UTF-8, of lone surrogates too."""
    return query.encode("utf-8", "surrogatepass")
