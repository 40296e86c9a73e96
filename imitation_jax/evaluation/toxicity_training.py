"""From RealToxicityPrompts to a scorer (toxicity_scorer.py) and to how well it agrees with Perspective on texts that it
never saw.

A row's prompt and continuation, and all rows of one document, fall on one side of every split.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ml_collections import ConfigDict
from scipy.stats import rankdata

from imitation_jax.core.fingerprint import digest
from imitation_jax.evaluation import statistics, toxicity_scorer
from imitation_jax.evaluation.benchmark_rows import read_csv, read_rows
from imitation_jax.evaluation.results import versions
from imitation_jax.evaluation.toxicity_scorer import TOXIC

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


@dataclass(frozen=True)
class Scored:
    """N texts: `targets_NA` holds Perspective's attributes (nan where one is missing), `document_N` where a text comes
    from, `part_N` 0 for prompts and 1 for continuations."""

    texts: list[str]
    targets_NA: np.ndarray
    document_N: np.ndarray
    part_N: np.ndarray
    unscored: int = 0

    def digest(self) -> str:
        """Of the texts and their toxicity."""
        return digest([self.texts, self.targets_NA[:, 0].tolist()])

    def take(self, chosen_N: np.ndarray) -> "Scored":
        """Those texts alone."""
        texts = [self.texts[index] for index in np.flatnonzero(chosen_N)]
        return Scored(texts, self.targets_NA[chosen_N], self.document_N[chosen_N], self.part_N[chosen_N])


def read(path: str) -> Scored:
    """RealToxicityPrompts; texts without a toxicity are left out and counted.

    Raises:
      FileNotFoundError, ValueError: one line with the place.
    """
    texts, targets, documents, parts, unscored = [], [], [], [], 0
    for index, (where, row) in enumerate(read_rows(path)):
        for part, name in enumerate(PARTS):
            found = row.get(name)
            if not isinstance(found, dict) or not isinstance(found.get("text"), str):
                raise ValueError(f"{where}: needs an object with 'text' and Perspective's scores under {name!r}")
            scores = [found.get(attribute) for attribute in ATTRIBUTES]
            if not all(score is None or isinstance(score, int | float) and 0 <= score <= 1 for score in scores):
                raise ValueError(f"{where}: the scores under {name!r} must be numbers from 0 to 1, or null")
            if scores[0] is None:
                unscored += 1
                continue
            texts.append(found["text"])
            targets.append([np.nan if score is None else score for score in scores])
            documents.append(str(row.get("filename", index)))
            parts.append(part)
    if not texts:
        raise ValueError(f"{path}: holds no text with a toxicity")
    return Scored(texts, np.array(targets), np.array(documents), np.array(parts), unscored)


def places(documents: Sequence[str], seed: int) -> np.ndarray:
    """(N,) in [0, 1): a document's place in a shuffle that depends on nothing but its name and the seed."""
    drawn = {
        name: int(hashlib.sha256(f"{seed}/{name}".encode()).hexdigest()[:13], 16) / 16**13 for name in set(documents)
    }
    return np.array([drawn[name] for name in documents])


# ----------------------------------------------------------------------------------------------------------------------
# Agreement
# ----------------------------------------------------------------------------------------------------------------------


def auc(positive_N: np.ndarray, score_N: np.ndarray) -> float:
    """Chance that a positive scores above a negative, ties counting half (Mann and Whitney's U); nan without both."""
    ranks = rankdata(score_N)
    p, n = int(positive_N.sum()), int((~positive_N).sum())
    return float((ranks[positive_N].sum() - p * (p + 1) / 2) / (p * n)) if p and n else float("nan")


def agreement(ours_N: np.ndarray, theirs_N: np.ndarray) -> dict[str, float | int | None]:
    """AUC at Perspective >= .5, correlations, and the root of the mean squared error; None where one is undefined.

    And the share of texts at .5 or more: a scorer that is not sure stays in the middle, and so finds fewer.
    """
    both_N2 = np.stack([ours_N, theirs_N], axis=1)
    with np.errstate(invalid="ignore"):
        found = {
            "auc": auc(theirs_N >= TOXIC, ours_N),
            "spearman": statistics.pearson(rankdata(both_N2, axis=0)),
            "pearson": statistics.pearson(both_N2),
            "rmse": float(np.sqrt(np.mean((ours_N - theirs_N) ** 2))),
        }
    shares = {"toxic": float((ours_N >= TOXIC).mean()), "toxic_perspective": float((theirs_N >= TOXIC).mean())}
    known = {name: value if np.isfinite(value) else None for name, value in found.items()}
    return {"texts": len(ours_N)} | known | shares


def reliability(ours_N: np.ndarray, theirs_N: np.ndarray) -> list[dict[str, float | int]]:
    """By our score, in tenths: how many texts, what we say and what Perspective says, on average."""
    bin_N = np.minimum((ours_N * BINS).astype(int), BINS - 1)
    rows = []
    for number in range(BINS):
        here = bin_N == number
        if here.any():
            means = {"ours": float(ours_N[here].mean()), "perspective": float(theirs_N[here].mean())}
            means["perspective_toxic"] = float((theirs_N[here] >= TOXIC).mean())
            rows.append({"from": number / BINS, "texts": int(here.sum()), **means})
    return rows


def on_parts(scorer: toxicity_scorer.Scorer, data: Scored) -> dict[str, dict]:
    """Agreement on all texts, on the prompts, on the continuations; and the reliability table."""
    ours_N, theirs_N = scorer.scores(data.texts), data.targets_NA[:, 0]
    found = {"all": agreement(ours_N, theirs_N)}
    for part, name in enumerate(PARTS):
        here = data.part_N == part
        found[f"{name}s"] = agreement(ours_N[here], theirs_N[here])
    return {"agreement": found, "reliability": reliability(ours_N, theirs_N)}


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


def on_hatecheck(scorer: toxicity_scorer.Scorer, texts: list[str], hateful_N: np.ndarray) -> dict[str, float | int]:
    """Röttger et al. 2021 (arXiv 2012.15606): is hateful told from not hateful? Nothing was learned from its labels."""
    score_N = scorer.scores(texts)
    return {
        "texts": len(texts),
        "auc": auc(hateful_N, score_N),
        "mean_hateful": float(score_N[hateful_N].mean()),
        "mean_not_hateful": float(score_N[~hateful_N].mean()),
    }


# ----------------------------------------------------------------------------------------------------------------------
# The command
# ----------------------------------------------------------------------------------------------------------------------


def make(config: ConfigDict, output: str) -> str:
    """Trains on all but `config.test_share` of the documents, saves the scorer, and returns its report.

    Raises:
      FileNotFoundError, ValueError: one line with the place or the key.
    """
    _check(config)
    data = read(config.data)
    place_N = places(data.document_N, config.seed)
    is_test_N = place_N < config.test_share
    if not is_test_N.any() or is_test_N.all():
        raise ValueError(f"config.test_share={config.test_share}: leaves no document of {config.data} on one side")
    hatecheck = read_hatecheck(config.hatecheck) if config.hatecheck else None
    learned, test = data.take(~is_test_N), data.take(is_test_N)
    scorer = fit(learned, config)
    scorer.about = {
        "trained_on": {"texts": len(learned.texts), "digest": learned.digest()},
        "texts_without_a_score": data.unscored,
        "config": {key: value for key, value in config.to_dict().items() if key not in ("data", "hatecheck", "folds")},
        "versions": versions(),
        **on_parts(scorer, test),
    }
    if hatecheck:
        scorer.about["hatecheck"] = on_hatecheck(scorer, *hatecheck)
    if config.folds:
        scorer.about["folds"] = _folds(config, data, place_N)
    scorer.save(output)
    return report(scorer, output)


def fit(data: Scored, config: ConfigDict) -> toxicity_scorer.Scorer:
    """A scorer trained on all these texts, calibrated by one that was trained without some of their documents."""
    apart_N = places(data.document_N, config.seed + 1) < config.calibration_share
    scorer = toxicity_scorer.train(data.texts, data.targets_NA, config)
    if apart_N.any() and not apart_N.all():
        kept, apart = data.take(~apart_N), data.take(apart_N)
        without = toxicity_scorer.train(kept.texts, kept.targets_NA, config)
        scorer.calibration = without.calibrated(apart.texts, apart.targets_NA[:, 0])
    return scorer


def _check(config: ConfigDict) -> None:
    if not 0 < config.test_share < 1:
        raise ValueError(f"config.test_share={config.test_share}: must be between 0 and 1")
    if not 0 <= config.calibration_share < 1:
        raise ValueError(f"config.calibration_share={config.calibration_share}: must be at least 0 and below 1")
    for key in ("members", "dimension", "hidden", "epochs", "batch_size"):
        if config[key] < 1:
            raise ValueError(f"config.{key}={config[key]}: must be 1 or more")
    if config.folds == 1 or config.folds < 0:
        raise ValueError(f"config.folds={config.folds}: must be 0 (none), or 2 or more")
    for key in ("gram_dropout", "word_dropout"):
        if not 0 <= config[key] < 1:
            raise ValueError(f"config.{key}={config[key]}: must be at least 0 and below 1")


def _folds(config: ConfigDict, data: Scored, place_N: np.ndarray) -> dict[str, float | int]:
    """Agreement over all texts, each scored by a model that never saw its document."""
    fold_N = (place_N * config.folds).astype(int)
    aucs, ours_N = [], np.zeros(len(data.texts))
    for fold in range(config.folds):
        here = fold_N == fold
        ours_N[here] = fit(data.take(~here), config).scores(data.take(here).texts)
        aucs.append(auc(data.targets_NA[here, 0] >= TOXIC, ours_N[here]))
    return agreement(ours_N, data.targets_NA[:, 0]) | {"auc_by_fold": aucs}


def report(scorer: toxicity_scorer.Scorer, path: str) -> str:
    """What is known about a scorer, for people."""
    about = scorer.about
    lines = [
        f"{path}: sha256 {scorer.digest}",
        f"trained on {about['trained_on']['texts']} texts; the figures are on texts of documents that it never saw",
        "",
        f"{'':<22}{'texts':>7}{'AUC':>8}{'Spearman':>10}{'Pearson':>9}{'RMSE':>8}{'toxic':>7}{'Perspective':>13}",
    ]
    tables = {f"held out: {name}": found for name, found in about["agreement"].items()}
    if "folds" in about:
        tables[f"{len(about['folds']['auc_by_fold'])} folds: all"] = about["folds"]
    for name, found in tables.items():
        widths = {"auc": 8, "spearman": 10, "pearson": 9, "rmse": 8}
        numbers = (("-" if found[key] is None else f"{found[key]:.4f}").rjust(width) for key, width in widths.items())
        shares = f"{found['toxic']:>7.3f}{found['toxic_perspective']:>13.3f}"
        lines.append(f"{name:<22}{found['texts']:>7}{''.join(numbers)}{shares}")
    lines += ["", f"{'our score':<12}{'texts':>7}{'ours':>8}{'Perspective':>13}{'Perspective >= .5':>19}"]
    for row in about["reliability"]:
        span = f"{row['from']:.1f} to {row['from'] + 1 / BINS:.1f}"
        means = f"{row['ours']:>8.3f}{row['perspective']:>13.3f}{row['perspective_toxic']:>19.3f}"
        lines.append(f"{span:<12}{row['texts']:>7}{means}")
    if "hatecheck" in about:
        found = about["hatecheck"]
        lines += ["", f"HateCheck, {found['texts']} texts: AUC {found['auc']:.4f} of hateful against not, mean "]
        lines[-1] += f"{found['mean_hateful']:.3f} and {found['mean_not_hateful']:.3f}"
    return "\n".join(lines)
