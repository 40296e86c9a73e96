"""Drops dialogues that ask nearly what an earlier one asked; see `queries` for what counts.

Near is measured on the sets of 5-byte shingles of two queries: their Jaccard similarity, or, where nearly all of the
one stands in the other (words put before or after it), a lower one. Who is compared comes from MinHash signatures cut
into bands (Broder 1997; Leskovec et al., Mining of Massive Datasets, 3.4), made by rensa; the similarity itself is
exact.

Whether a dialogue is dropped depends on the dialogues before it alone, dropped or not, so that any machine may decide
about any dialogue. A dialogue that is near a duplicate is one too.
"""

import array
import functools
import json
import os
import tempfile
from types import SimpleNamespace

import numpy as np
import rensa
from ml_collections import ConfigDict

from imitation_jax.data.cleaning import check_shares, queries

COMPARES = True

SHINGLE = 5  # bytes
RECENT = 2**18  # band keys that wait in a dict before they are sorted into arrays
SEED = 1


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


def make(settings: SimpleNamespace) -> "NearDuplicates":
    """The step. Raises ValueError where a setting cannot be."""
    check_shares("near_duplicates", settings, "jaccard", "contained", "jaccard_if_contained")
    for key in ("bands", "hashes_a_band", "compared"):
        if getattr(settings, key) < 1:
            raise ValueError(f"config.near_duplicates.{key}={getattr(settings, key)} must be 1 or more")
    return NearDuplicates(settings)


def shingles(query: str) -> np.ndarray:
    """(distinct,) uint64, the sorted distinct runs of 5 bytes of UTF-8, each as a number."""
    raw = queries.encoded(query)
    windows = np.ndarray((max(0, len(raw) - SHINGLE + 1),), "<u8", raw + bytes(8), strides=(1,))
    windows = np.sort(windows & np.uint64(2 ** (8 * SHINGLE) - 1))
    return windows[np.append(True, windows[1:] != windows[:-1])[: len(windows)]]


def similar(one: np.ndarray, other: np.ndarray, settings: SimpleNamespace) -> float | None:
    """The Jaccard similarity of two sets of shingles if it makes them near duplicates."""
    common = np.intersect1d(one, other, assume_unique=True).size
    jaccard = common / (one.size + other.size - common)
    contained = common >= settings.contained * min(one.size, other.size)
    return jaccard if jaccard >= (settings.jaccard_if_contained if contained else settings.jaccard) else None


def bands(shingles: np.ndarray, settings: SimpleNamespace) -> np.ndarray:
    """(bands,) uint64: two queries of Jaccard similarity s share one of these with chance s ** hashes_a_band."""
    factors = _factors(settings.bands, settings.hashes_a_band)
    signature = rensa.RMinHash.digest_matrix_from_flat_token_hashes(shingles, [0, len(shingles)], factors.size, SEED)
    return (np.array(signature.to_rows()[0], np.uint64).reshape(factors.shape) * factors).sum(axis=1)


@functools.cache
def _factors(bands: int, hashes: int) -> np.ndarray:
    """(bands, hashes) uint64, odd numbers without order: sums of products with them tell bands apart."""
    return np.random.PCG64(SEED).random_raw((bands, hashes)) | np.uint64(1)


def compared(query: str, settings: SimpleNamespace) -> bool:
    """Whether the query is long enough to be looked at."""
    return len(query) >= settings.least_characters


def reason(earlier: str, jaccard: float) -> str:
    """Why a dialogue is dropped whose query is near that of the dialogue with the id `earlier`."""
    return f"near duplicate: query like that of {earlier}, Jaccard {jaccard:.3f}"


class NearDuplicates:
    """Called with one dialogue after the other, gives it back or says why not.

    Holds some 400 bytes a dialogue in memory, and the queries in a temporary file.
    """

    def __init__(self, settings: SimpleNamespace):
        self._settings = settings
        self._buckets = _Buckets(settings.compared)
        self._file = tempfile.TemporaryFile()
        self._ends = array.array("Q", [0])  # of each id and query in the file
        self._stored = functools.lru_cache(64)(self._read)

    def __call__(self, dialogue: dict) -> dict | str:
        asked = queries.query(dialogue)
        if not compared(asked, self._settings):
            return dialogue
        own = shingles(asked)
        candidates = self._buckets.earlier(bands(own, self._settings), len(self._ends) - 1)
        result: dict | str = dialogue
        for row in sorted(candidates):
            earlier, others = self._stored(row)
            if (jaccard := similar(own, others, self._settings)) is not None:
                result = reason(earlier, jaccard)
                break
        if candidates:  # which were read
            self._file.seek(0, os.SEEK_END)
        self._ends.append(self._ends[-1] + self._file.write(json.dumps([dialogue["id"], asked]).encode()))
        return result

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
        earlier: set[int] = set()
        count = np.zeros(len(keys), np.int64)
        for held, rows in self._sorted:
            first, last = np.searchsorted(held, keys, "left"), np.searchsorted(held, keys, "right")
            count += last - first
            for at in np.flatnonzero(last > first):
                earlier.update(rows[first[at] : last[at]].tolist())
        for key, before in zip(keys.tolist(), count.tolist(), strict=True):
            bucket = self._recent.get(key)
            if bucket is not None:
                earlier.update(bucket)
                if before + len(bucket) < self._most:
                    bucket.append(row)
            elif before < self._most:
                self._recent[key] = [row]
        if len(self._recent) > RECENT:
            self._sort()
        return earlier

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
