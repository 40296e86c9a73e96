"""Trains the toxicity scorer on RealToxicityPrompts, and measures how well it agrees with Perspective on unseen texts.

A row's prompt and continuation, and all rows of one document, fall on one side of every split.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict
from scipy.stats import rankdata

from imitation_jax.core.fingerprint import digest
from imitation_jax.core.text_table import text_table
from imitation_jax.data.benchmark_rows import read_csv, read_rows
from imitation_jax.evaluation import statistics, toxicity_scorer
from imitation_jax.evaluation.results import versions
from imitation_jax.evaluation.toxicity_scorer import TOXIC, Scorer

PARTS = ("prompt", "continuation")
ATTRIBUTES = (
    "toxicity",
    "profanity",
    "insult",
    "severe_toxicity",
    "identity_attack",
    "threat",
    "sexually_explicit",
    "flirtation",
)
BINS = 10
# HateCheck's columns.
CASE, LABEL = "test_case", "label_gold"
MEASURES = {"auc": "AUC", "spearman": "Spearman", "pearson": "Pearson", "rmse": "RMSE"}


class Scored(NamedTuple):
    """T texts that Perspective has scored.

    Attributes:
      texts_T: object.
      targets_TA: Perspective's attributes, nan where one is missing.
      documents_T: the document that a text is from.
      parts_T: 0 for prompts, 1 for continuations.
    """

    texts_T: np.ndarray
    targets_TA: np.ndarray
    documents_T: np.ndarray
    parts_T: np.ndarray

    def take(self, rows: np.ndarray) -> "Scored":
        """Some of the texts, by index or mask."""
        return Scored(*(column[rows] for column in self))


def read(path: str) -> tuple[Scored, int]:
    """RealToxicityPrompts, and how many of its texts are left out because they have no toxicity.

    Raises:
      FileNotFoundError, ValueError: one line with the place.
    """
    rows, unscored = [], 0
    for index, (where, row) in enumerate(read_rows(path)):
        for part, name in enumerate(PARTS):
            content = row.get(name)
            if not isinstance(content, dict) or not isinstance(content.get("text"), str):
                raise ValueError(f"{where}: needs an object with 'text' and Perspective's scores under {name!r}")
            scores = [content.get(attribute) for attribute in ATTRIBUTES]
            if not all(score is None or isinstance(score, int | float) and 0 <= score <= 1 for score in scores):
                raise ValueError(f"{where}: the scores under {name!r} must be numbers from 0 to 1, or null")
            if scores[0] is None:
                unscored += 1
            else:
                rows.append((content["text"], scores, str(row.get("filename", index)), part))
    if not rows:
        raise ValueError(f"{path}: holds no text with a toxicity")
    texts, targets, documents, parts = zip(*rows, strict=True)
    return Scored(np.array(texts, object), np.array(targets, float), np.array(documents), np.array(parts)), unscored


def places(documents: Sequence[str], seed: int) -> np.ndarray:
    """(T,) in [0, 1): a document's place in a shuffle that depends on nothing but its name and the seed."""
    digests = (hashlib.sha256(f"{seed}/{name}".encode()).hexdigest()[:13] for name in documents)
    return np.array([int(digits, 16) / 16**13 for digits in digests])


# ----------------------------------------------------------------------------------------------------------------------
# Agreement
# ----------------------------------------------------------------------------------------------------------------------


def auc(positive_T: np.ndarray, score_T: np.ndarray) -> float:
    """Chance that a positive scores above a negative, ties counting half; nan without both."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(positive_T, score_T)) if 0 < positive_T.sum() < len(positive_T) else float("nan")


def agreement(ours_T: np.ndarray, theirs_T: np.ndarray) -> dict[str, float | int | None]:
    """AUC at Perspective >= .5, correlations, and the root of the mean squared error; None where one is undefined.

    And the share of texts at .5 or more: a scorer that is not sure stays in the middle, and so finds fewer.
    """
    both_T2 = np.stack([ours_T, theirs_T], axis=1)
    with np.errstate(invalid="ignore"):
        values = {
            "auc": auc(theirs_T >= TOXIC, ours_T),
            "spearman": statistics.pearson(rankdata(both_T2, axis=0)),
            "pearson": statistics.pearson(both_T2),
            "rmse": float(np.sqrt(np.mean((ours_T - theirs_T) ** 2))),
        }
    shares = {"toxic": float((ours_T >= TOXIC).mean()), "toxic_perspective": float((theirs_T >= TOXIC).mean())}
    return {"texts": len(ours_T)} | {name: v if np.isfinite(v) else None for name, v in values.items()} | shares


def reliability(ours_T: np.ndarray, theirs_T: np.ndarray) -> list[dict[str, float | int]]:
    """By our score, in tenths: how many texts, what we say and what Perspective says, on average."""
    bin_T = np.minimum((ours_T * BINS).astype(int), BINS - 1)
    rows = []
    for number in np.unique(bin_T).tolist():
        ours, theirs = ours_T[bin_T == number], theirs_T[bin_T == number]
        means = {"ours": ours.mean(), "perspective": theirs.mean(), "perspective_toxic": (theirs >= TOXIC).mean()}
        rows.append({"from": number / BINS, "texts": len(ours), **{name: float(mean) for name, mean in means.items()}})
    return rows


def read_hatecheck(path: str) -> tuple[list[str], np.ndarray]:
    """(texts, whether each is hateful) of HateCheck's cases.

    Raises:
      FileNotFoundError, ValueError: one line with the place.
    """
    (where, header), *rows = read_csv(path) or [(f"{path}:1", [])]
    if not rows or not {CASE, LABEL} <= set(header):
        raise ValueError(f"{where}: needs the columns {CASE} and {LABEL}, and rows")
    label = header.index(LABEL)
    for where, row in rows:
        if row[label] not in ("hateful", "non-hateful"):
            raise ValueError(f"{where}: {LABEL} is {row[label]!r}, expected hateful or non-hateful")
    return [row[header.index(CASE)] for _, row in rows], np.array([row[label] == "hateful" for _, row in rows])


# ----------------------------------------------------------------------------------------------------------------------
# The command
# ----------------------------------------------------------------------------------------------------------------------


def make(config: ConfigDict, output: str) -> str:
    """Trains on all but `config.test_share` of the documents, saves the scorer, and returns its report.

    Raises:
      FileNotFoundError, ValueError: one line with the place or the key.
    """
    _check(config)
    data, unscored = read(config.data)
    place_T = places(data.documents_T, config.seed)
    is_test_T = place_T < config.test_share
    learned, test = data.take(~is_test_T), data.take(is_test_T)
    if not len(test.texts_T) or len(set(learned.documents_T)) < 2:
        raise ValueError(f"config.test_share={config.test_share}: leaves no document of {config.data} on one side")
    hatecheck = read_hatecheck(config.hatecheck) if config.hatecheck else None
    scorer = toxicity_scorer.train(learned.texts_T, learned.targets_TA, learned.documents_T, config)
    ours_T, theirs_T = scorer.scores(test.texts_T), test.targets_TA[:, 0]
    parts = {"all": np.full(len(ours_T), True)} | {f"{name}s": test.parts_T == n for n, name in enumerate(PARTS)}
    scorer.about = {
        "trained_on": {
            "texts": len(learned.texts_T),
            "digest": digest([learned.texts_T.tolist(), learned.targets_TA[:, 0].tolist()]),
        },
        "texts_without_a_score": unscored,
        "config": {key: value for key, value in config.to_dict().items() if key not in ("data", "hatecheck", "folds")},
        "versions": versions(),
        "agreement": {name: agreement(ours_T[here_T], theirs_T[here_T]) for name, here_T in parts.items()},
        "reliability": reliability(ours_T, theirs_T),
    }
    if hatecheck:
        scorer.about["hatecheck"] = _on_hatecheck(scorer, *hatecheck)
    if config.folds:
        scorer.about["folds"] = _in_folds(config, data, place_T)
    scorer.save(output)
    return report(scorer, output)


def _check(config: ConfigDict) -> None:
    if not 0 < config.test_share < 1:
        raise ValueError(f"config.test_share={config.test_share}: must be between 0 and 1")
    for key in ("alpha", "C"):
        if not config[key] > 0:
            raise ValueError(f"config.{key}={config[key]}: must be more than 0")
    if config.folds == 1 or config.folds < 0:
        raise ValueError(f"config.folds={config.folds}: must be 0 (none), or 2 or more")


def _on_hatecheck(scorer: Scorer, texts: list[str], hateful_T: np.ndarray) -> dict[str, float | int]:
    """Röttger et al. 2021 (arXiv 2012.15606): is hateful told from not hateful? Nothing was learned from its labels."""
    score_T = scorer.scores(texts)
    means = {"mean_hateful": float(score_T[hateful_T].mean()), "mean_not_hateful": float(score_T[~hateful_T].mean())}
    return {"texts": len(texts), "auc": auc(hateful_T, score_T), **means}


def _in_folds(config: ConfigDict, data: Scored, place_T: np.ndarray) -> dict[str, float | int]:
    """Agreement over all texts, each scored by a model that never saw its document."""
    fold_T = (place_T * config.folds).astype(int)
    aucs, ours_T, theirs_T = [], np.zeros(len(place_T)), data.targets_TA[:, 0]
    for fold in range(config.folds):
        here_T = fold_T == fold
        texts_T, targets_TA, documents_T, _ = data.take(~here_T)
        scorer = toxicity_scorer.train(texts_T, targets_TA, documents_T, config)
        ours_T[here_T] = scorer.scores(data.texts_T[here_T])
        aucs.append(auc(theirs_T[here_T] >= TOXIC, ours_T[here_T]))
    return agreement(ours_T, theirs_T) | {"auc_by_fold": aucs}


def report(scorer: Scorer, path: str) -> str:
    """What is known about a scorer, for people."""
    about = scorer.about
    tables = {f"held out: {name}": values for name, values in about["agreement"].items()}
    if "folds" in about:
        tables[f"{len(about['folds']['auc_by_fold'])} folds: all"] = about["folds"]
    rows = [["", "texts", *MEASURES.values(), "toxic", "Perspective"]]
    for name, values in tables.items():
        numbers = ["-" if values[key] is None else f"{values[key]:.4f}" for key in MEASURES]
        rows.append([name, str(values["texts"]), *numbers, f"{values['toxic']:.3f}"])
        rows[-1].append(f"{values['toxic_perspective']:.3f}")
    bins = [["our score", "texts", "ours", "Perspective", "Perspective >= .5"]]
    for row in about["reliability"]:
        means = [f"{row[key]:.3f}" for key in ("ours", "perspective", "perspective_toxic")]
        bins.append([f"{row['from']:.1f} to {row['from'] + 1 / BINS:.1f}", str(row["texts"]), *means])
    head = f"trained on {about['trained_on']['texts']} texts; the figures are on texts of documents that it never saw"
    lines = [f"{path}: sha256 {scorer.digest}", head, "", text_table(rows), "", text_table(bins)]
    if "hatecheck" in about:
        values = about["hatecheck"]
        means = f"mean {values['mean_hateful']:.3f} and {values['mean_not_hateful']:.3f}"
        lines += ["", f"HateCheck, {values['texts']} texts: AUC {values['auc']:.4f} of hateful against not, {means}"]
    return "\n".join(lines)
