"""The nearest other text by BLEU: how alike the queries of a dataset are, and whether a prompt stands among them.

BLEU is sacrebleu's sentence BLEU to the last bit (13a tokens, cased, smoothing "exp", effective order), in percent, of
the text as hypothesis and one other text as reference: it tells how much of the text stands in the other, and falls
where the other is longer. It is not symmetric.

Not every pair is computed. The clipped counts c_1..c_4 of a pair's common n-grams never grow with n, so a pair without
a common n-gram has c_n = c_n+1 = .. = 0, which bounds its BLEU. References that share a 3-gram with the text come out
of an inverted index, and are counted in the order of what they can reach at most; those that share only a 2-gram, or
only a word, are looked at where none of the former is better than they can be. The result is that of all pairs.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a
from sacrebleu.tokenizers.tokenizer_re import TokenizerRegexp

from imitation_jax.core.progress import progress

ORDERS = 4
LOOKED_UP = 3
REFERENCES = 50_000  # in one index, which bounds the memory
COUNTED_AT_ONCE = 64
EQUAL = 1e-9  # in log BLEU; what lies closer is compared by sacrebleu's own arithmetic

Words = tuple[str, ...]


class Nearest(NamedTuple):
    """For each text the largest BLEU in percent, float64, and the index of a text that has it (-1: 0 everywhere)."""

    bleu: np.ndarray
    index: np.ndarray


def nearest(texts: Sequence[str]) -> Nearest:
    """For each text, the nearest of all others."""
    places: dict[Words, list[int]] = {}
    for place, words in enumerate(_words(texts)):
        places.setdefault(words, []).append(place)
    distinct, first = list(places), np.array([here[0] for here in places.values()] + [-1])
    # Nothing is nearer than an equal text, so only a text that stands alone is looked for.
    alone = [number for number, words in enumerate(distinct) if len(places[words]) == 1]
    others = _search([distinct[number] for number in alone], distinct, alone)
    bleu, index = np.zeros(len(texts)), np.full(len(texts), -1)
    bleu[first[alone]], index[first[alone]] = others.bleu, first[others.index]
    for words, here in places.items():
        if words and len(here) > 1:
            bleu[here], index[here] = _bleu(_totals(len(words)), len(words), len(words)), here[0]
            index[here[0]] = here[1]
    return Nearest(bleu, index)


def against(queries: Sequence[str], training: Sequence[str]) -> Nearest:
    """For each query, the nearest of the training texts, the first of those that are equally near."""
    return _search(_words(queries), _words(training), None)


def _words(texts: Sequence[str]) -> list[Words]:
    tokenizer, one = Tokenizer13a(), {}  # one string of each word, not one of each occurrence
    words = [tuple(one.setdefault(word, word) for word in tokenizer(text.rstrip()).split()) for text in texts]
    # sacrebleu would keep the last 65,536 texts, twice.
    Tokenizer13a.__call__.cache_clear()
    TokenizerRegexp.__call__.cache_clear()
    return words


def _totals(length: int) -> list[int]:
    return [max(length - n, 0) for n in range(ORDERS)]


def _bleu(counts: list[int], length: int, reference: int) -> float:
    score = BLEU.compute_bleu(counts, _totals(length), length, reference, smooth_method="exp", effective_order=True)
    return score.score


def _search(queries: list[Words], references: list[Words], own: Sequence[int] | None) -> Nearest:
    """The nearest reference of each query, leaving out the query's `own` one."""
    bleu, index = np.zeros(len(queries)), np.full(len(queries), -1)
    for begin in range(0, len(references), REFERENCES):
        some = _Index(references[begin : begin + REFERENCES], queries)
        for number in progress(range(len(queries)), desc="looking for the nearest query", unit="query"):
            score, at = some.nearest(number, -1 if own is None else own[number] - begin)
            if score > bleu[number]:
                bleu[number], index[number] = score, begin + at
    return Nearest(bleu, index)


class _Index:
    """The n-grams of references and queries, as numbers.

    A text's k-th occurrence of an n-gram is a feature of its own, so two texts have as many features in common as
    sacrebleu's clipped count says. Features are numbered by order, and texts are the references, then the queries.
    """

    def __init__(self, references: list[Words], queries: list[Words]):
        texts = references + queries
        numbers: dict[str, int] = {}
        words = np.array([numbers.setdefault(word, len(numbers)) for text in texts for word in text], np.int64)
        self.n_references = len(references)
        self.lengths = np.array([len(text) for text in texts], np.int64)
        self.logs = np.log(np.maximum(np.arange(self.lengths.max(initial=0) + 1), 1))

        ends = np.cumsum(self.lengths)
        text = np.repeat(np.arange(len(texts)), self.lengths)
        left = np.repeat(ends, self.lengths) - np.arange(len(words))  # words from here to the end of the text
        grams, n_features = words.copy(), 0
        self.features: list[np.ndarray] = []  # of each order, text after text; those of a text begin at `starts`
        self.starts: list[np.ndarray] = []
        holders, sizes = [], []
        for n in range(1, ORDERS + 1):
            at = np.flatnonzero(left >= n)
            if n > 1:
                grams[at] = np.unique(grams[at] * len(numbers) + words[at + n - 1], return_inverse=True)[1]
            features, n_own = _numbered(text[at], grams[at])
            self.starts.append(np.append(0, np.cumsum(np.maximum(self.lengths - n + 1, 0))))
            self.features.append((n_features + features).astype(np.int32))
            inside = self.starts[-1][len(references)]
            holders.append(text[at][:inside][np.argsort(features[:inside], kind="stable")].astype(np.int32))
            sizes.append(np.bincount(features[:inside], minlength=n_own))
            n_features += n_own
        # Feature f is held by the references holders[lists[f] : lists[f + 1]].
        self.holders, self.lists = np.concatenate(holders), np.append(0, np.cumsum(np.concatenate(sizes)))
        self.wanted = np.zeros(n_features, bool)

    def nearest(self, query: int, excluded: int) -> tuple[float, int]:
        """BLEU and number of the first nearest reference but `excluded`; (0, -1) if none has a word in common."""
        row = self.n_references + query
        length = int(self.lengths[row])
        orders = min(ORDERS, length)
        words = self._of(1, row)
        self.wanted[words] = True
        common: dict[int, np.ndarray] = {n: self._in_common(n, row) for n in range(2, orders + 1)}
        best, seen = -np.inf, []
        for n in range(min(LOOKED_UP, orders), 0, -1):
            if n == 1:
                common[1] = self._in_common(1, row)
            some = np.flatnonzero(common[n])
            some = some[some != excluded]
            counts = np.empty((len(some), orders), np.int64)
            counts[:, 0] = common[1][some] if n == 1 else np.minimum(self.lengths[some], length)
            for m in range(2, orders + 1):
                counts[:, m - 1] = common[m][some]
            reach = self._log_bleu(counts, length, some)
            order = np.argsort(-reach, kind="stable")
            begin, step = 0, COUNTED_AT_ONCE
            while begin < len(some) and reach[order[begin]] >= best - EQUAL:
                block = order[begin : begin + step]
                counts[block, 0] = self._words_in_common(some[block])
                logs = self._log_bleu(counts[block], length, some[block])
                best = max(best, logs.max())
                seen += zip(logs, some[block], counts[block], strict=True)
                begin, step = begin + step, 2 * step
            missing = orders - n + 1
            if best > self.logs[length - np.arange(n - 1)].sum() - _smoothed(missing) + EQUAL:
                break
        self.wanted[words] = False
        scores = {
            int(reference): _bleu(counts.tolist() + [0] * (ORDERS - orders), length, int(self.lengths[reference]))
            for log, reference, counts in seen
            if log >= best - EQUAL
        }
        reference = min(scores, key=lambda reference: (-scores[reference], reference), default=-1)
        return scores.get(reference, 0.0), reference

    def _of(self, n: int, row: int) -> np.ndarray:
        """The features of order n that a text has."""
        return self.features[n - 1][self.starts[n - 1][row] : self.starts[n - 1][row + 1]]

    def _in_common(self, n: int, row: int) -> np.ndarray:
        """Counts (references,) of the features of order n that each shares with a text."""
        features = self._of(n, row)
        holders = self.holders[_ranges(self.lists[features], self.lists[features + 1])]
        return np.bincount(holders, minlength=self.n_references)

    def _words_in_common(self, references: np.ndarray) -> np.ndarray:
        """Counts (references,) of the wanted words that each has."""
        starts, ends = self.starts[0][references], self.starts[0][references + 1]
        wanted = self.wanted[self.features[0][_ranges(starts, ends)]]
        before = np.append(0, np.cumsum(wanted))
        ends = np.cumsum(ends - starts)
        return before[ends] - before[np.append(0, ends[:-1])]

    def _log_bleu(self, counts: np.ndarray, length: int, references: np.ndarray) -> np.ndarray:
        """log BLEU of counts (references, orders), times orders and without what depends on the query alone."""
        shorter = np.minimum(1 - self.lengths[references] / length, 0)
        return self.logs[counts].sum(1) - _smoothed((counts == 0).sum(1)) + counts.shape[1] * shorter


def _numbered(text: np.ndarray, grams: np.ndarray) -> tuple[np.ndarray, int]:
    """Feature numbers of a text's n-grams, in the order of `text`, and how many there are; repeats come last."""
    n_grams = int(grams.max(initial=-1)) + 1
    of, gram = np.divmod(np.sort(text * n_grams + grams), max(n_grams, 1))
    place = np.arange(len(of))
    is_new = np.append(True, (of[1:] != of[:-1]) | (gram[1:] != gram[:-1]))[: len(of)]
    repeat = place - np.maximum.accumulate(np.where(is_new, place, 0))
    again = np.flatnonzero(repeat)
    distinct, number = np.unique(gram[again] * (len(of) + 1) + repeat[again], return_inverse=True)
    gram[again] = n_grams + number
    return gram, n_grams + len(distinct)


def _smoothed(zeros):
    """What smoothing takes from the sum of the logs: a half, a quarter, .. for each order without a match."""
    return zeros * (zeros + 1) / 2 * np.log(2)


def _ranges(starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """The numbers of all ranges, one after the other."""
    sizes = ends - starts
    return np.arange(sizes.sum()) + np.repeat(starts - (np.cumsum(sizes) - sizes), sizes)
