"""How toxic is a text, without a network: a small model of hashed n-grams that learns Perspective's scores.

A word's vector is the sum of the vectors of its hashed character n-grams and of the word itself; a layer looks at three
words at a time, and the most alarming place in the text counts, beside the text's mean (the layer and its pooling are
Kim 2014, arXiv 1408.5882; the word vectors Bojanowski et al. 2017, arXiv 1607.04606). It learns all of Perspective's
attributes at once, because a few thousand texts say more that way, and several members that differ in their random
start vote.

Legend: M members, V known n-grams, G n-grams of a batch, W words of a batch, T texts of a batch, D vector, H hidden,
A attributes; the first attribute is toxicity.
"""

import hashlib
import json
import re
import zipfile
import zlib
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict
from scipy.optimize import minimize
from scipy.special import expit

from imitation_jax.core.progress import progress
from imitation_jax.evaluation.benchmark_rows import existing

FORMAT = "imitation_jax toxicity scorer 1"
TOXIC = 0.5  # Gehman et al.'s line
BUCKETS = 1 << 20
GRAMS = range(2, 6)
# A longer run without a space is looked at in pieces, so that no text costs more than its length.
LONGEST_WORD = 30
# Up to so many words the text's mean counts for more the longer it is; the prompts and continuations have no more.
LONG = 32
TEXTS = 256  # scored at a time
NO_WORD = re.compile(r"\W+")

Params = dict[str, jax.Array]


# ----------------------------------------------------------------------------------------------------------------------
# Text to numbers
# ----------------------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1 << 17)
def grams(word: str) -> np.ndarray:
    """(n,) int32 buckets of a lower-case word's character n-grams, its edges marked, and of its letters and digits."""
    marked = f"<{word}>"
    pieces = {marked[at : at + size] for size in GRAMS for at in range(len(marked) - size + 1)}
    pieces.add(f" {NO_WORD.sub('', word)}")
    return np.array(sorted({zlib.crc32(piece.encode("utf-8", "replace")) % BUCKETS for piece in pieces}), np.int32)


def words(text: str) -> list[str]:
    """Lower-case runs without white space, the very long ones in pieces."""
    found = []
    for run in text.lower().split():
        found += [run[at : at + LONGEST_WORD] for at in range(0, len(run), LONGEST_WORD)]
    return found


class Features:
    """The n-grams of texts as flat arrays; `batch` packs some of the texts.

    Args:
      texts: any number.
      vocabulary: (V - 1,) sorted buckets that the model knows; n-grams of other buckets are left out.
    """

    def __init__(self, texts: Sequence[str], vocabulary: np.ndarray):
        lists = [[grams(word) for word in words(text)] for text in texts]
        flat = [known for row in lists for known in row]
        sizes = np.array([len(known) for known in flat], np.int64)
        raw = np.concatenate(flat) if flat else np.zeros(0, np.int32)
        place = np.searchsorted(vocabulary, raw)
        known = vocabulary[np.minimum(place, len(vocabulary) - 1)] == raw
        self._grams = np.where(known, place + 1, 0).astype(np.int32)  # 0 is the zero vector
        self._word_ends = np.concatenate([[0], np.cumsum(sizes)])
        self._text_ends = np.concatenate([[0], np.cumsum([len(row) for row in lists])]).astype(np.int64)

    def sizes(self, rows: np.ndarray) -> tuple[int, int]:
        """(n-grams, words and the gaps between texts) that a batch of these texts holds."""
        words_T = self._text_ends[rows + 1] - self._text_ends[rows]
        grams_T = self._word_ends[self._text_ends[rows + 1]] - self._word_ends[self._text_ends[rows]]
        return int(grams_T.sum()), int(words_T.sum()) + len(rows)

    def batch(self, rows: np.ndarray, texts: int, most: tuple[int, int] | None = None) -> dict[str, np.ndarray]:
        """Flat arrays of static sizes: {"gram_G", "word_G", "text_W"}, the last with `texts` for what is no word.

        Args:
          rows: indices of the texts.
          texts: T, at least as many as there are rows.
          most: room for (n-grams, words); the batch's own need, rounded up, where None.
        """
        # powers of two: few programs to compile
        G, W = most or (1 << size.bit_length() for size in self.sizes(rows))
        gram_G, word_G = np.zeros(G, np.int32), np.full(G, W - 1, np.int32)
        text_W = np.full(W, texts, np.int32)
        at, slot = 0, 0
        for text, row in enumerate(rows):
            first, last = self._text_ends[row], self._text_ends[row + 1]
            ends = self._word_ends[first : last + 1]
            count, n = int(last - first), int(ends[-1] - ends[0])
            gram_G[at : at + n] = self._grams[ends[0] : ends[-1]]
            word_G[at : at + n] = slot + np.repeat(np.arange(count), np.diff(ends))
            text_W[slot : slot + count] = text
            at, slot = at + n, slot + count + 1  # an empty word keeps neighbours apart
        return {"gram_G": gram_G, "word_G": word_G, "text_W": text_W}


# ----------------------------------------------------------------------------------------------------------------------
# The model
# ----------------------------------------------------------------------------------------------------------------------


def init(key: jax.Array, known: int, attributes: int, dimension: int, hidden: int) -> Params:
    """Random vectors, and outputs that start at zero."""
    grams_key, layer_key = jax.random.split(key)
    D, H = dimension, hidden
    return {
        "vectors_VD": 0.4 / np.sqrt(D) * jax.random.normal(grams_key, (known + 1, D)).at[0].set(0.0),
        "layer_3DH": jax.random.normal(layer_key, (3, D, H)) / np.sqrt(3 * D),
        "bias_H": jnp.zeros(H),
        "peaks_HA": jnp.zeros((H, attributes)),
        "mean_DA": jnp.zeros((D, attributes)),
        "bias_A": jnp.full(attributes, -1.0, jnp.float32),
    }


def forward(params: Params, batch: dict, texts: int, drop: tuple[jax.Array, float, float] | None = None) -> jax.Array:
    """(T, A) logits.

    Args:
      batch: see `Features.batch`.
      texts: T.
      drop: (key, share of n-grams, share of words) left out at random while learning.
    """
    W = len(batch["text_W"])
    weight_G = (batch["gram_G"] > 0).astype(jnp.float32)
    count_W = jax.ops.segment_sum(weight_G, batch["word_G"], W)
    is_word_W = batch["text_W"] < texts
    if drop is not None:
        key, of_grams, of_words = drop
        grams_key, words_key = jax.random.split(key)
        weight_G *= jax.random.bernoulli(grams_key, 1 - of_grams, weight_G.shape) / (1 - of_grams)
        is_word_W &= jax.random.bernoulli(words_key, 1 - of_words, is_word_W.shape)
    vectors_GD = params["vectors_VD"][batch["gram_G"]] * weight_G[:, None]
    word_WD = jax.ops.segment_sum(vectors_GD, batch["word_G"], W) / jnp.sqrt(count_W + 1)[:, None]
    edge = jnp.zeros_like(word_WD[:1])
    before_WD, after_WD = jnp.concatenate([edge, word_WD[:-1]]), jnp.concatenate([word_WD[1:], edge])
    around = zip((before_WD, word_WD, after_WD), params["layer_3DH"], strict=True)
    seen_WH = jax.nn.relu(sum(side_WD @ layer_DH for side_WD, layer_DH in around) + params["bias_H"])
    peak_TH = jax.ops.segment_max(jnp.where(is_word_W[:, None], seen_WH, 0.0), batch["text_W"], texts + 1)[:texts]
    total_TD = jax.ops.segment_sum(word_WD * is_word_W[:, None], batch["text_W"], texts + 1)[:texts]
    length_T = jax.ops.segment_sum(is_word_W.astype(jnp.float32), batch["text_W"], texts + 1)[:texts]
    length_T = length_T + 1
    mean_TD = total_TD * (jnp.sqrt(jnp.minimum(length_T, LONG)) / length_T)[:, None]
    return jnp.maximum(peak_TH, 0.0) @ params["peaks_HA"] + mean_TD @ params["mean_DA"] + params["bias_A"]


@partial(jax.jit, static_argnames="texts")
def _logits(members: Params, batch: dict, texts: int) -> jax.Array:
    """(T,) the members' mean logit of toxicity."""
    return jax.vmap(lambda params: forward(params, batch, texts)[:, 0])(members).mean(0)


# ----------------------------------------------------------------------------------------------------------------------
# Scorer
# ----------------------------------------------------------------------------------------------------------------------


class Scorer:
    """A trained model.

    Attributes:
      calibration: (scale, shift) of the logits, see `calibrated`.
      about: what it was trained on and how well it agrees with Perspective.
      digest: of the file that it was saved to.
    """

    def __init__(self, vocabulary: np.ndarray, members: dict[str, np.ndarray], about: dict[str, Any], digest: str = ""):
        self.vocabulary, self.members, self.about, self.digest = vocabulary, members, about, digest
        self.calibration = (1.0, 0.0)
        # Rounded as they are saved, so that a loaded scorer says what this one says.
        self._params = {name: jnp.asarray(array, jnp.float32) for name, array in members.items()}

    def scores(self, texts: Sequence[str]) -> np.ndarray:
        """(n,) float64 in [0, 1], what Perspective would say; a text without any known n-gram gets the base rate."""
        scale, shift = self.calibration
        return expit(scale * self.logits(texts) + shift)

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        """(n,) float64, as the model says them."""
        features = Features(texts, self.vocabulary)
        found = np.zeros(len(texts), np.float64)
        for start in range(0, len(texts), TEXTS):
            rows = np.arange(start, min(start + TEXTS, len(texts)))
            found[rows] = np.asarray(_logits(self._params, features.batch(rows, TEXTS), TEXTS))[: len(rows)]
        return found

    def calibrated(self, texts: Sequence[str], target_N: np.ndarray) -> tuple[float, float]:
        """The (scale, shift) of the logits (Platt 1999) that suits these texts best, by cross-entropy.

        Args:
          texts: N of them that the model never saw.
          target_N: (N,) their toxicity.
        """
        logit_N = self.logits(texts)

        def loss(point):
            z_N = point[0] * logit_N + point[1]
            wrong_N = expit(z_N) - target_N
            gradient = np.array([np.mean(wrong_N * logit_N), np.mean(wrong_N)])
            return np.mean(np.logaddexp(0, z_N) - target_N * z_N), gradient

        scale, shift = minimize(loss, np.array([1.0, 0.0]), jac=True).x
        return float(scale), float(shift)

    def save(self, path: str | Path) -> None:
        """One .npz, whole or not at all; the same training gives the same bytes. Sets `digest`, the file's SHA-256."""
        path = Path(path).expanduser()
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.tmp")
        about = json.dumps({**self.about, "format": FORMAT, "calibration": self.calibration}, sort_keys=True)
        with open(temporary, "wb") as file:
            np.savez_compressed(file, about=about, vocabulary=self.vocabulary, **self.members)
        self.digest = hashlib.sha256(temporary.read_bytes()).hexdigest()
        temporary.replace(path)


def load(path: str) -> Scorer:
    """The scorer that `python -m imitation_jax.toxicity` saved.

    Raises:
      FileNotFoundError: no such file.
      ValueError: not a scorer.
    """
    file = existing(path)
    content = file.read_bytes()
    try:
        with file.open("rb") as opened, np.load(opened) as arrays:
            about = json.loads(str(arrays["about"]))
            if about.pop("format") != FORMAT:
                raise KeyError
            rest = {name: arrays[name] for name in arrays.files if name not in ("about", "vocabulary")}
            vocabulary, calibration = arrays["vocabulary"], tuple(map(float, about.pop("calibration")))
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile):
        raise ValueError(f"{path}: not a toxicity scorer; python -m imitation_jax.toxicity makes one") from None
    scorer = Scorer(vocabulary, rest, about, hashlib.sha256(content).hexdigest())
    scorer.calibration = calibration
    return scorer


# ----------------------------------------------------------------------------------------------------------------------
# Training
# ----------------------------------------------------------------------------------------------------------------------


def train(texts: Sequence[str], targets_NA: np.ndarray, config: ConfigDict) -> Scorer:
    """Fits the model to soft targets by cross-entropy; the same input gives the same scorer on one kind of machine.

    Args:
      texts: N of them.
      targets_NA: (N, A) in [0, 1], the first column toxicity; nan where an attribute is not known.
      config: see configs/toxicity.py.
    """
    everything = np.concatenate([grams(word) for text in texts for word in words(text)])
    vocabulary = np.unique(everything)
    features = Features(texts, vocabulary)
    N, A = targets_NA.shape
    size = min(config.batch_size, N)
    rng = np.random.default_rng(config.seed)
    plan = [rows for _ in range(config.epochs) for rows in np.split(rng.permutation(N)[: N // size * size], N // size)]
    most = tuple(max(sizes) for sizes in zip(*(features.sizes(rows) for rows in plan), strict=True))
    step, members, state = _learner(config, len(vocabulary), A, size, len(plan))
    key = jax.random.key(config.seed + 1)
    for number, rows in enumerate(progress(plan, desc="training the scorer", unit="step")):
        targets_TA = targets_NA[rows].astype(np.float32)
        keys = jax.random.fold_in(key, number)
        members, state = step(members, state, features.batch(rows, size, most), targets_TA, keys)
    rounded = {name: np.asarray(array).astype(np.float16) for name, array in members.items()}
    return Scorer(vocabulary, rounded, {})


def _learner(config: ConfigDict, known: int, attributes: int, texts: int, steps: int) -> tuple[Callable, Params, Any]:
    keys = jax.random.split(jax.random.key(config.seed), config.members)
    members = jax.vmap(lambda key: init(key, known, attributes, config.dimension, config.hidden))(keys)
    optimizer = optax.adam(optax.cosine_decay_schedule(config.learning_rate, steps))
    weight_A = jnp.array([1.0] + [config.other_attributes] * (attributes - 1))

    def loss(params: Params, batch: dict, targets_TA: jax.Array, key: jax.Array) -> jax.Array:
        logits_TA = forward(params, batch, texts, (key, config.gram_dropout, config.word_dropout))
        told_TA = jnp.isfinite(targets_TA)
        losses_TA = optax.sigmoid_binary_cross_entropy(logits_TA, jnp.where(told_TA, targets_TA, 0.0))
        return (losses_TA * told_TA * weight_A).sum() / texts

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(members, state, batch, targets_TA, key):
        each = jax.vmap(jax.grad(loss), in_axes=(0, None, None, 0))
        gradient = each(members, batch, targets_TA, jax.random.split(key, config.members))
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(members, updates), state

    return step, members, optimizer.init(members)
