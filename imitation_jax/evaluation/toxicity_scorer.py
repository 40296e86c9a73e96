"""How toxic is a text, without a network: linear models of hashed character n-grams that learn Perspective's scores.

A ridge regression learns from whole texts, as sums of their words' hashed n-grams (Weinberger et al. 2009, arXiv
0902.2206), what each word adds to the logit of every attribute of Perspective. A second one learns the same from the
words that the first found most alarming. What counts for a text is how its words' scores are distributed: their
maximum, that of three words in a row, and means from the plain to the softest maximum (as pooling does in multiple
instance learning). A logistic regression turns these into toxicity; it learns from scores of words that were fitted
without the document a text is from, so its probabilities need no further calibration.

Legend: T texts, W their words, U distinct words, B buckets, A attributes (toxicity first), R regressions, F features.
"""

import functools
import hashlib
import json
import zipfile
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from scipy import sparse
from scipy.special import expit, logit

from imitation_jax.core.files import replacing
from imitation_jax.data.benchmark_rows import recorded

# scikit-learn, which takes a second to import, is imported where it is used: every task is read with every result.

FORMAT = "imitation_jax toxicity scorer 2"
TOXIC = 0.5  # Gehman et al.'s line
BUCKETS = 1 << 18
GRAMS = (2, 5)  # characters
# A longer run without a space is looked at in pieces, so that no text costs more than its length.
LONGEST_WORD = 30
REGRESSIONS = 2
SHARPNESS = (0.5, 1.0, 3.0)  # of the soft maxima
FOLDS = 3  # of documents that the regressions leave out while the last one learns
LEAST = 0.1  # of a target, and 1 - LEAST the most: the regressions are to be exact in between
TEXTS = 4096  # scored at a time


class Corpus:
    """The words of T texts; a text without any has one that holds no n-gram."""

    def __init__(self, texts: Sequence[str]):
        words_T = [words(text) or [""] for text in texts]
        distinct = {word: index for index, word in enumerate(dict.fromkeys(chain.from_iterable(words_T)))}
        self.count_T = np.array([len(own) for own in words_T])
        self.start_T = np.cumsum(self.count_T) - self.count_T
        self.text_W = np.repeat(np.arange(len(texts)), self.count_T)
        self._word_W = np.array([distinct[word] for word in chain.from_iterable(words_T)])
        self._grams_UB = _hasher().transform(distinct)

    def bags(self, weight_W: np.ndarray) -> sparse.csr_matrix:
        """(T, B) sums of the words' n-grams, each word with its weight."""
        shape = len(self.count_T), self._grams_UB.shape[0]
        return sparse.csr_matrix((weight_W.astype(np.float32), (self.text_W, self._word_W)), shape) @ self._grams_UB

    def scores(self, weights_BA: np.ndarray) -> np.ndarray:
        """(W, A) float64: what each word adds to each attribute's logit."""
        return (self._grams_UB @ weights_BA).astype(np.float64)[self._word_W]

    def features(self, scores_WA: np.ndarray) -> np.ndarray:
        """(T, F) how the scores of each text's words are distributed."""
        count_T1 = self.count_T[:, None]
        follows_W1 = (np.diff(self.text_W) == 0)[:, None]
        three_WA = scores_WA.copy()
        three_WA[1:] += follows_W1 * scores_WA[:-1]
        three_WA[:-1] += follows_W1 * scores_WA[1:]
        peak_TA = np.maximum.reduceat(scores_WA, self.start_T)
        mean_TA = np.add.reduceat(scores_WA, self.start_T) / count_T1
        below_WA = scores_WA - peak_TA[self.text_W]
        powers = (np.add.reduceat(np.exp(sharp * below_WA), self.start_T) / count_T1 for sharp in SHARPNESS)
        soft = [peak_TA + np.log(power_TA) / sharp for sharp, power_TA in zip(SHARPNESS, powers, strict=True)]
        lengths = [count_T1**-0.5, np.log(count_T1)]
        three = np.maximum.reduceat(three_WA, self.start_T)
        return np.hstack([peak_TA, three, mean_TA, mean_TA * np.sqrt(count_T1), *soft, *lengths])


def words(text: str) -> list[str]:
    """Lower-case runs without white space, the very long ones in pieces; half a surrogate pair becomes a "?"."""
    runs = text.lower().encode("utf-8", "replace").decode().split()
    return [run[at : at + LONGEST_WORD] for run in runs for at in range(0, len(run), LONGEST_WORD)]


@functools.cache
def _hasher() -> Any:
    from sklearn.feature_extraction.text import HashingVectorizer

    options = {"lowercase": False, "binary": True, "alternate_sign": False, "dtype": np.float32}
    return HashingVectorizer(analyzer="char_wb", ngram_range=GRAMS, n_features=BUCKETS, **options)


class Scorer:
    """A trained model.

    Attributes:
      weights_RBA: float32, saved as float16: what a bucket's n-grams add to each attribute's logit, by regression.
      head_F: float64 weights of the features, the last one the constant.
      about: what it was trained on and how well it agrees with Perspective.
      digest: of the file that it was saved to.
    """

    def __init__(self, weights_RBA: np.ndarray, head_F: np.ndarray, about: dict[str, Any], digest: str = ""):
        self.weights_RBA, self.head_F, self.about, self.digest = weights_RBA, head_F, about, digest

    def scores(self, texts: Sequence[str]) -> np.ndarray:
        """(T,) float64 in [0, 1], what Perspective would say."""
        parts = [self._scores(texts[start : start + TEXTS]) for start in range(0, len(texts), TEXTS)]
        return np.concatenate([np.zeros(0), *parts])

    def _scores(self, texts: Sequence[str]) -> np.ndarray:
        corpus = Corpus(texts)
        features_TF = np.hstack([corpus.features(corpus.scores(weights_BA)) for weights_BA in self.weights_RBA])
        return expit(features_TF @ self.head_F[:-1] + self.head_F[-1])

    def save(self, path: str | Path) -> None:
        """One .npz, whole or not at all; the same training gives the same bytes. Sets `digest`, the file's SHA-256."""
        path = Path(path).expanduser()
        about = json.dumps({**self.about, "format": FORMAT}, sort_keys=True)
        with replacing(path) as temporary:
            with open(temporary, "wb") as file:
                weights_RBA = self.weights_RBA.astype(np.float16)
                np.savez_compressed(file, about=about, weights_RBA=weights_RBA, head_F=self.head_F)
        self.digest = hashlib.sha256(path.read_bytes()).hexdigest()


def load(path: str) -> Scorer:
    """The scorer that `python -m imitation_jax.toxicity` saved.

    Raises:
      FileNotFoundError: no such file.
      ValueError: not a scorer, or one of a version that this one does not read.
    """
    file = recorded(path)
    try:
        with file.open("rb") as opened, np.load(opened) as arrays:
            about = json.loads(str(arrays["about"]))
            known = about.pop("format")
            if known == FORMAT:
                digest = hashlib.sha256(file.read_bytes()).hexdigest()
                return Scorer(arrays["weights_RBA"].astype(np.float32), arrays["head_F"], about, digest)
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile):
        known = None
    what = "a toxicity scorer of another version" if str(known).startswith(FORMAT[:-1]) else "not a toxicity scorer"
    raise ValueError(f"{path}: {what}; python -m imitation_jax.toxicity makes one")


def train(texts: Sequence[str], targets_TA: np.ndarray, documents_T: Sequence[str], config: ConfigDict) -> Scorer:
    """Fits all regressions; the same input gives the same scorer on one kind of machine.

    Args:
      targets_TA: in [0, 1], the first column toxicity; nan where an attribute is not known, which counts as its mean.
      documents_T: the document that each text is from; there must be two or more.
      config: see configs/toxicity.py.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold
    from sklearn.preprocessing import StandardScaler

    corpus = Corpus(texts)
    mean_A = np.ma.masked_invalid(targets_TA).mean(axis=0).filled(TOXIC)
    filled_TA = np.where(np.isfinite(targets_TA), targets_TA, mean_A)
    logits_TA = logit(np.clip(filled_TA, LEAST, 1 - LEAST))
    folds = GroupKFold(min(FOLDS, len(set(documents_T))))
    splits = list(folds.split(texts, groups=documents_T))
    weights, unseen, weight_W = [], [], (corpus.count_T**-0.5)[corpus.text_W]
    for _ in range(REGRESSIONS):
        bags_TB = corpus.bags(weight_W)
        weights.append(_ridge(bags_TB, logits_TA, config.alpha))
        scores_WA = corpus.scores(weights[-1])
        features_TF = corpus.features(scores_WA)
        for kept, left_out in splits:
            without_BA = _ridge(bags_TB[kept], logits_TA[kept], config.alpha)
            features_TF[left_out] = corpus.features(corpus.scores(without_BA))[left_out]
        unseen.append(features_TF)
        alarm_W = np.exp(scores_WA[:, 0])
        weight_W = alarm_W / np.add.reduceat(alarm_W, corpus.start_T)[corpus.text_W]
    scaler = StandardScaler()
    features_TF = scaler.fit_transform(np.hstack(unseen))
    # A target between 0 and 1 is a text of each class, with that weight.
    toxic_T, both = filled_TA[:, 0], np.repeat([1, 0], len(texts))
    model = LogisticRegression(C=config.C, max_iter=1000)
    model.fit(np.vstack([features_TF, features_TF]), both, np.concatenate([toxic_T, 1 - toxic_T]))
    slope_F = model.coef_[0] / scaler.scale_
    return Scorer(np.stack(weights), np.append(slope_F, model.intercept_[0] - slope_F @ scaler.mean_), {})


def _ridge(bags_TB: sparse.csr_matrix, logits_TA: np.ndarray, alpha: float) -> np.ndarray:
    """(B, A) weights, rounded as they are saved."""
    from sklearn.linear_model import Ridge

    ridge = Ridge(alpha, solver="sparse_cg", tol=1e-3).fit(bags_TB, logits_TA)
    return ridge.coef_.T.astype(np.float16).astype(np.float32)
