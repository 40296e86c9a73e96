"""Which texts share 13 words in a row: evaluation items that stand in training data, training rows that hold an item.

Case and punctuation are ignored and 13 words in a row count, as in appendix C of the GPT-3 paper (Brown et al. 2020,
arXiv 2005.14165). A text of 8 to 12 words counts where the whole of it occurs (that paper's N lies between 8 and 13,
smaller for benchmarks of short items); a shorter one is never found, it would be by chance. Scripts that put no
whitespace between words are not cut any further.

Words are hashed from one cumulative sum over the bytes of many texts, and 8 words in a row from those. Where that hash
is one that an n-gram begins with, the words themselves are compared, so a collision finds nothing.
"""

import collections
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from imitation_jax.core.json_rows import Rejected
from imitation_jax.data import normalise
from imitation_jax.data.sources.sharegpt import TURNS

WORDS = 13
FEWEST_WORDS = 8  # what is hashed: two times two times two words
FORMAT = 2  # goes up when the same texts would give other hits

BITS_A_KEY = 32  # one in 32 of the words that begin no n-gram passes the bitmap
CHARACTERS_AT_ONCE = 2**20
BLOCK = 2**16  # bytes whose 64-bit hashes stay in a core's cache
LONGEST_WORD = 2**10  # bytes of a word that are hashed
BYTE_BASE, WORD_BASE = 0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F  # odd, so each has an inverse modulo 2**64


def _powers(base: int) -> np.ndarray:
    return np.cumprod(np.array([1] + [base] * (BLOCK + LONGEST_WORD), np.uint64))


POWERS, INVERSES = _powers(BYTE_BASE), _powers(pow(BYTE_BASE, -1, 2**64))


class Hit(NamedTuple):
    """A searched text holds an n-gram of indexed texts."""

    text: int  # number of the searched text
    words: str  # the n-gram, normalised
    items: tuple[int, ...]  # numbers of the indexed texts that hold it, ascending


def turns(row: dict) -> list[str]:
    """The texts of all turns of a dialogue or of a row of a ShareGPT dump, whoever said them, or a plain text's."""
    if isinstance(row.get("text"), str) and not any(key in row for key in TURNS):
        return [row["text"]]
    messages = next((row[key] for key in TURNS if isinstance(row.get(key), list)), [])
    texts = (turn.get("content", turn.get("value")) for turn in messages if isinstance(turn, dict))
    return [text for text in texts if isinstance(text, str)]


class Ngrams:
    """The n-grams of some texts, to be found in others.

    `too_short` lists the numbers of the texts that have less than 8 words and so are never found.
    """

    def __init__(self, texts: Iterable[str]):
        self._texts = [normalise.word_bytes(text) for text in texts]
        words = _Words(self._texts)
        count = np.diff(words.first)
        self.too_short: list[int] = np.flatnonzero(count < FEWEST_WORDS).tolist()
        grams = np.where(count < FEWEST_WORDS, 0, np.maximum(count - WORDS, 0) + 1)
        item = np.repeat(np.arange(len(self._texts)), grams)
        at = np.arange(len(item)) - np.repeat(np.cumsum(grams) - grams, grams)
        keys = words.keys[words.first[item] + at]
        order = np.argsort(keys, kind="stable")
        self._item, self._at, keys = item[order], at[order], keys[order]
        begin = np.flatnonzero(np.diff(keys, prepend=~keys[:1]))
        self._keys, self._begin = keys[begin], np.append(begin, len(keys))
        self._opened: dict[int, dict[int, dict[bytes, tuple[int, ...]]]] = {}
        bits = max(16, (BITS_A_KEY * len(self._keys)).bit_length())
        self._shift = np.uint64(64 - bits)
        self._bitmap = np.zeros(2 ** (bits - 3), np.uint8)
        place = self._keys >> self._shift
        np.bitwise_or.at(self._bitmap, place >> np.uint64(3), np.uint8(1) << (place & np.uint64(7)).astype(np.uint8))

    def find(self, texts: Sequence[str]) -> list[Hit]:
        """All places where `texts` (some megabytes together at most) hold an n-gram, in their order."""
        words = _Words([normalise.word_bytes(text) for text in texts])
        place = words.keys >> self._shift
        bits = self._bitmap[place >> np.uint64(3)] >> (place & np.uint64(7)).astype(np.uint8)
        word = np.flatnonzero(bits & 1)
        if not len(self._keys) or not len(word):
            return []
        keys = words.keys[word]
        group = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        word, group = word[self._keys[group] == keys], group[self._keys[group] == keys]
        text = np.searchsorted(words.first, word, side="right") - 1
        left = words.first[text + 1] - word
        hits = []
        for number, at, room, key in np.stack([text, word, left, group], axis=1).tolist():
            for size, grams in self._open(key).items():
                items = grams.get(words.text(at, size)) if size <= room else None
                if items:
                    hits.append(Hit(number, words.text(at, size).decode(), items))
        return hits

    def _open(self, group: int) -> dict[int, dict[bytes, tuple[int, ...]]]:
        """The n-grams of one key: number of words -> the words -> the texts that hold them."""
        if group not in self._opened:
            by_size = collections.defaultdict(lambda: collections.defaultdict(set))
            for entry in range(self._begin[group], self._begin[group + 1]):
                item, at = int(self._item[entry]), int(self._at[entry])
                gram = self._texts[item].split()[at : at + WORDS]
                by_size[len(gram)][b" ".join(gram)].add(item)
            self._opened[group] = {
                size: {gram: tuple(sorted(items)) for gram, items in grams.items()} for size, grams in by_size.items()
            }
        return self._opened[group]


def scan(
    ngrams: Ngrams, rows: Iterable[tuple[str, dict | Rejected]]
) -> Iterator[tuple[str, dict | Rejected, list[Hit]]]:
    """Yields (where, row, hits) for each of `rows` as the readers give them, in order; `Hit.text` numbers the turns.

    What was rejected has no hits.
    """
    batch, texts, owners, size = [], [], [], 0
    for where, row in rows:
        said = turns(row) if isinstance(row, dict) else []
        owners += [(len(batch), turn) for turn in range(len(said))]
        batch.append((where, row, []))
        texts += said
        size += sum(map(len, said))
        if size >= CHARACTERS_AT_ONCE:
            yield from _searched(ngrams, batch, texts, owners)
            batch, texts, owners, size = [], [], [], 0
    yield from _searched(ngrams, batch, texts, owners)


def _searched(ngrams: Ngrams, batch: list, texts: list[str], owners: list[tuple[int, int]]) -> list:
    for hit in ngrams.find(texts):
        row, turn = owners[hit.text]
        batch[row][2].append(hit._replace(text=turn))
    return batch


class _Words:
    """The words of normalised texts.

    Attributes:
      first: (texts + 1,) number of each text's first word; the last is the number of words.
      keys: (words - 7,) uint64, the hash of each word and the 7 behind it, whatever text they are of.
    """

    def __init__(self, texts: Sequence[bytes]):
        self._buffer = b"\n".join([b"", *texts, b""])
        data = np.frombuffer(self._buffer, np.uint8)
        is_word = data > ord(" ")
        edges = np.flatnonzero(is_word[1:] != is_word[:-1]) + 1
        self._starts, self._ends = edges[::2], edges[1::2]
        offsets = np.cumsum([1, *(len(text) + 1 for text in texts)])
        self.first = np.searchsorted(self._starts, offsets)
        hashes = _hash_words(data, self._starts, self._ends)
        for step in (1, 2, 4):
            hashes = hashes[:-step] + np.uint64(pow(WORD_BASE, step, 2**64)) * hashes[step:]
        self.keys = hashes

    def text(self, word: int, size: int) -> bytes:
        """`size` words from number `word` on, with single spaces between."""
        return b" ".join(self._buffer[self._starts[word] : self._ends[word + size - 1]].split())


def _hash_words(data: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """(words,) uint64, sum over a word's bytes of byte * BYTE_BASE**place modulo 2**64."""
    ends = np.minimum(ends, starts + LONGEST_WORD)
    hashes = np.empty(len(starts), np.uint64)
    sums = np.zeros(BLOCK + LONGEST_WORD + 1, np.uint64)
    done = 0
    while done < len(starts):
        origin = starts[done]
        stop = np.searchsorted(starts, origin + BLOCK)
        block = data[origin : ends[stop - 1]]
        np.cumsum(block * POWERS[: len(block)], out=sums[1 : len(block) + 1])
        begin = starts[done:stop] - origin
        hashes[done:stop] = (sums[ends[done:stop] - origin] - sums[begin]) * INVERSES[begin]
        done = stop
    return hashes
