"""What a dialogue asks: all its user turns together, normalised.

What the model said, and a system message, do not count. So "hi" or "continue" makes no dialogue a duplicate unless it
is all that its user said.
"""

import functools
import hashlib
import itertools
import unicodedata

MARKS = "".join(".,;:!?…'\"`´“”‘’„«»‹›()[]{}<>*_~|-–—/\\" + "。、，；：！？「」『』（）【】¿¡")


@functools.lru_cache(32)  # two steps ask for the same dialogue's, one after the other
def normalise(text: str) -> str:
    """Lower case, single spaces, no punctuation at the ends of words, full-width letters and ligatures as plain ones.

    What stands inside a word stays ("2+2" is not "2-2"), and so does a text of nothing but punctuation.
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    words = text.casefold().split()
    return " ".join(filter(None, map(str.strip, words, itertools.repeat(MARKS)))) or " ".join(words)


def query(dialogue: dict) -> str:
    """The normalised user turns, a line each."""
    return "\n".join(normalise(turn["content"]) for turn in dialogue["messages"] if turn["role"] == "user")


def digest(query: str) -> bytes:
    """16 bytes that are the same for equal queries only."""
    return hashlib.blake2b(encoded(query), digest_size=16).digest()


def encoded(query: str) -> bytes:
    """UTF-8, of lone surrogates too."""
    return query.encode("utf-8", "surrogatepass")
