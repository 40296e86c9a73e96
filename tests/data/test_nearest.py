import gzip
import json
from random import Random

import numpy as np
import pytest
from sacrebleu.metrics import BLEU

from imitation_jax.data import nearest

HARD = [
    *("", " \n", "hi", "hi", "Hi", "hi hi hi", "a a a a a a", "a a a", "the", "of the", "b a b", "a b a"),
    "Write a poem about the sea, 3.5 lines long - no more & no less &amp; good.",
    "Write a poem about the sea, 3.5 lines long - no more & no less & good.",
    "写一首关于大海的诗",
    "für Größe",
    "x-\ny <skipped> 1-2, 3.4",
]


def brute(queries, references, same=False):
    bleu = BLEU(effective_order=True)
    return [
        [bleu.sentence_score(query, [other]).score * (not same or i != j) for j, other in enumerate(references)]
        for i, query in enumerate(queries)
    ]


def made_up(count, seed, words=12, longest=14):
    """Texts of few words, so that clipping, ties and every number of common n-grams occur."""
    random = Random(seed)
    vocabulary = "a b c the of write poem , . it's 3.5 x-y".split()[:words]
    return [" ".join(random.choices(vocabulary, k=random.randint(0, longest))) for _ in range(count)]


@pytest.mark.parametrize("texts", [HARD, made_up(60, 0), made_up(60, 1, words=2), made_up(80, 2, longest=60)])
def test_nearest_equals_sacrebleu_over_all_pairs(texts):
    pairs = brute(texts, texts, same=True)
    found = nearest.nearest(texts)
    np.testing.assert_array_equal(found.bleu, [max(row) for row in pairs])
    for number, (bleu, at) in enumerate(zip(*found, strict=True)):
        assert at != number and (pairs[number][at] == bleu if at >= 0 else bleu == 0)


def test_against_names_the_first_that_is_nearest_also_over_several_indices(monkeypatch):
    queries, training = HARD + made_up(40, 3), made_up(90, 4) + HARD
    pairs = brute(queries, training)
    for references in (nearest.REFERENCES, 13):
        monkeypatch.setattr(nearest, "REFERENCES", references)
        found = nearest.against(queries, training)
        np.testing.assert_array_equal(found.bleu, [max(row) for row in pairs])
        assert found.index.tolist() == [row.index(max(row)) if max(row) else -1 for row in pairs]
    monkeypatch.setattr(nearest, "REFERENCES", 13)
    np.testing.assert_array_equal(nearest.nearest(HARD).bleu, [max(row) for row in brute(HARD, HARD, same=True)])


def test_nothing_to_compare_with():
    for found in (nearest.nearest(["a b"]), nearest.against(["a b"], []), nearest.against(["a"], ["", " "])):
        assert (found.bleu.tolist(), found.index.tolist()) == ([0], [-1])
    assert nearest.nearest([]).bleu.shape == nearest.against([], ["a"]).index.shape == (0,)


def test_a_few_are_counted_and_not_all(monkeypatch):
    counted = 0
    count = nearest._Index._words_in_common

    def spy(self, references):
        nonlocal counted
        counted += len(references)
        return count(self, references)

    monkeypatch.setattr(nearest._Index, "_words_in_common", spy)
    random = Random(5)
    vocabulary = [f"w{int(random.paretovariate(1))}" for _ in range(10_000)]  # as unequal as words are
    texts = [" ".join(random.choices(vocabulary, k=random.randint(5, 60))) for _ in range(2000)]
    nearest.nearest(texts)
    assert 0 < counted < 2000 * 2000 / 10


def test_real_queries_equal_sacrebleu(lent):
    with gzip.open(lent("sharegpt/sharegpt_sample.jsonl.gz"), "rt", encoding="utf-8") as file:
        rows = [json.loads(line)["conversations"] for line in file]
    queries = [turn["value"] for row in rows for turn in row if turn["from"] == "human"]
    some = [query[:1500] for query in Random(0).sample(queries, 140)]
    # Not pytest's comparison: it would print the texts of a failure.
    assert (nearest.nearest(some).bleu == [max(row) for row in brute(some, some, same=True)]).all()
