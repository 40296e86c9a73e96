"""Which dialogues ask the same as an earlier one: exact and near duplicates of their queries.

The query is all user turns of a dialogue together, normalised: what the model said, and a system message, do not count.
So "hi" or "continue" makes no dialogue a duplicate unless it is all that its user said.

Near is measured on the sets of 5-byte shingles of two queries: their Jaccard similarity, or, where nearly all of the
one stands in the other (words put before or after it), a lower one. Who is compared comes from MinHash signatures cut
into bands (Broder 1997; Leskovec et al., Mining of Massive Datasets, 3.4); the similarity itself is exact.

Whether a dialogue is dropped depends on the dialogues before it alone, dropped or not, so that any machine may decide
about any dialogue. A dialogue that is near a duplicate is one too.
"""

import array
import functools
import hashlib
import itertools
import json
import os
import tempfile
import unicodedata

import numpy as np
from ml_collections import ConfigDict

MARKS = "".join(".,;:!?…'\"`´“”‘’„«»‹›()[]{}<>*_~|-–—/\\" + "。、，；：！？「」『』（）【】¿¡")
SHINGLE = 5  # bytes
BLOCK = 512  # shingles whose hashes stay in a core's cache
RECENT = 2**18  # band keys that wait in a dict before they are sorted into arrays
MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))  # of splitmix64 (Steele et al. 2014)
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
HALF = np.uint64(32)


def get_config() -> ConfigDict:
    """What a data config holds under `config.near_duplicates`."""
    config = ConfigDict()
    config.jaccard = 0.65
    # Where this share of the smaller query's shingles stands in the other, this similarity is enough.
    config.contained = 0.95
    config.jaccard_if_contained = 0.5
    # Shorter queries are duplicates only if they are equal.
    config.least_characters = 20
    # 32 bands of 4 hashes find 99.97% of the pairs of similarity .7, 95% of those of .55, 0.02% of those of .05.
    config.bands = 32
    config.hashes_a_band = 4
    # Of the dialogues with the same hashes in a band this many, the first, are compared with later ones.
    config.compared = 20
    return config


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
    return hashlib.blake2b(_encoded(query), digest_size=16).digest()


def shingles(query: str) -> np.ndarray:
    """(distinct,) uint64, the sorted distinct runs of 5 bytes of UTF-8, each as a number."""
    raw = _encoded(query)
    windows = np.ndarray((max(0, len(raw) - SHINGLE + 1),), "<u8", raw + bytes(8), strides=(1,))
    windows = np.sort(windows & np.uint64(2 ** (8 * SHINGLE) - 1))
    return windows[np.append(True, windows[1:] != windows[:-1])[: len(windows)]]


def similar(one: np.ndarray, other: np.ndarray, settings) -> float | None:
    """The Jaccard similarity of two sets of shingles if it makes them near duplicates."""
    common = np.intersect1d(one, other, assume_unique=True).size
    jaccard = common / (one.size + other.size - common)
    contained = common >= settings.contained * min(one.size, other.size)
    return jaccard if jaccard >= (settings.jaccard_if_contained if contained else settings.jaccard) else None


def bands(shingles: np.ndarray, settings) -> np.ndarray:
    """(bands,) uint64: two queries of Jaccard similarity s share one of these with chance s ** hashes_a_band."""
    factors = _factors(settings.bands * settings.hashes_a_band)
    mixed, least = (_mix(shingles) >> HALF).astype(np.uint32), np.full(len(factors), 2**32 - 1, np.uint32)
    for begin in range(0, len(mixed), BLOCK):
        np.minimum(least, np.multiply.outer(mixed[begin : begin + BLOCK], factors).min(axis=0), out=least)
    hashes = least.astype(np.uint64).reshape(settings.bands, settings.hashes_a_band)
    return _mix(hashes @ _odd(settings.hashes_a_band) + _odd(settings.bands))


def compared(query: str, settings) -> bool:
    """Whether the query is long enough to be looked at."""
    return len(query) >= settings.least_characters


def exact_reason(earlier: str) -> str:
    """Why a dialogue is dropped whose query equals that of the dialogue with the id `earlier`."""
    return f"exact duplicate: same query as {earlier}"


def near_reason(earlier: str, jaccard: float) -> str:
    """Why a dialogue is dropped whose query is near that of the dialogue with the id `earlier`."""
    return f"near duplicate: query like that of {earlier}, Jaccard {jaccard:.3f}"


class ExactDuplicates:
    """Called with one dialogue after the other, gives it back or says why not; holds a digest and an id of each."""

    def __init__(self):
        self._first: dict[bytes, str] = {}

    def __call__(self, dialogue: dict) -> dict | str:
        key = digest(query(dialogue))
        if key in self._first:
            return exact_reason(self._first[key])
        self._first[key] = dialogue["id"]
        return dialogue


class NearDuplicates:
    """As `ExactDuplicates`; holds some 400 bytes a dialogue in memory and the queries in a temporary file."""

    def __init__(self, settings):
        self._settings = settings
        self._buckets = _Buckets(settings.compared)
        self._file = tempfile.TemporaryFile()
        self._ends = array.array("Q", [0])  # of each id and query in the file
        self._stored = functools.lru_cache(64)(self._read)

    def __call__(self, dialogue: dict) -> dict | str:
        asked = query(dialogue)
        if not compared(asked, self._settings):
            return dialogue
        own = shingles(asked)
        candidates = self._buckets.earlier(bands(own, self._settings), len(self._ends) - 1)
        found: dict | str = dialogue
        for row in sorted(candidates):
            earlier, others = self._stored(row)
            if (jaccard := similar(own, others, self._settings)) is not None:
                found = near_reason(earlier, jaccard)
                break
        if candidates:  # which were read
            self._file.seek(0, os.SEEK_END)
        self._ends.append(self._ends[-1] + self._file.write(json.dumps([dialogue["id"], asked]).encode()))
        return found

    def _read(self, row: int) -> tuple[str, np.ndarray]:
        self._file.seek(self._ends[row])
        name, asked = json.loads(self._file.read(self._ends[row + 1] - self._ends[row]))
        return name, shingles(asked)


class _Buckets:
    """Band key -> the first `most` rows that had it: the last ones in a dict, the others in sorted arrays."""

    def __init__(self, most: int):
        self._most = most
        self._recent: dict[int, list[int]] = {}
        self._sorted: list[tuple[np.ndarray, np.ndarray]] = []  # (keys, rows), each at most half as long as the last

    def earlier(self, keys: np.ndarray, row: int) -> set[int]:
        """The rows in the buckets of `keys`, to which `row` is added."""
        found: set[int] = set()
        count = np.zeros(len(keys), np.int64)
        for held, rows in self._sorted:
            first, last = np.searchsorted(held, keys, "left"), np.searchsorted(held, keys, "right")
            count += last - first
            for at in np.flatnonzero(last > first):
                found.update(rows[first[at] : last[at]].tolist())
        for key, before in zip(keys.tolist(), count.tolist(), strict=True):
            bucket = self._recent.get(key)
            if bucket is not None:
                found.update(bucket)
                if before + len(bucket) < self._most:
                    bucket.append(row)
            elif before < self._most:
                self._recent[key] = [row]
        if len(self._recent) > RECENT:
            self._sort()
        return found

    def _sort(self) -> None:
        sizes = [len(rows) for rows in self._recent.values()]
        keys = np.repeat(np.fromiter(self._recent, np.uint64, len(sizes)), sizes)
        rows = np.fromiter((row for rows in self._recent.values() for row in rows), np.uint32, sum(sizes))
        self._recent = {}
        while self._sorted and len(self._sorted[-1][0]) <= 2 * len(keys):
            held, held_rows = self._sorted.pop()
            keys, rows = np.concatenate([held, keys]), np.concatenate([held_rows, rows])
        order = np.argsort(keys, kind="stable")
        self._sorted.append((keys[order], rows[order]))


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _mix(x: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64: every bit of the number changes half of the bits of the result."""
    x = (x ^ (x >> np.uint64(30))) * MIX[0]
    x = (x ^ (x >> np.uint64(27))) * MIX[1]
    return x ^ (x >> np.uint64(31))


@functools.cache
def _odd(count: int) -> np.ndarray:
    """(count,) uint64, odd numbers without order: multiplying by one permutes all 64-bit numbers."""
    return _mix(np.arange(1, count + 1, dtype=np.uint64) * GOLDEN) | np.uint64(1)


@functools.cache
def _factors(count: int) -> np.ndarray:
    """(count,) uint32, odd ones as well."""
    return (_odd(count) >> HALF).astype(np.uint32) | np.uint32(1)
