import random

import numpy as np
import pytest
from ml_collections import ConfigDict

from imitation_jax.evaluation import toxicity_scorer as scorer
from imitation_jax.evaluation.toxicity_training import auc

CONFIG = ConfigDict(
    {
        "seed": 0,
        "members": 2,
        "dimension": 8,
        "hidden": 8,
        "epochs": 12,
        "batch_size": 32,
        "learning_rate": 1e-2,
        "gram_dropout": 0.2,
        "word_dropout": 0.1,
        "other_attributes": 0.3,
    }
)
PLAIN = "the river begins high in mountains where snow melts every spring and farmers wait for water".split()
RUDE = ["scoundrel", "blockhead", "nincompoop"]


def sentences(count, seed):
    """Texts, half of them with a rude word somewhere, and their scores: toxicity, and an attribute half unknown."""
    draw = random.Random(seed)
    texts, targets = [], []
    for number in range(count):
        words = draw.choices(PLAIN, k=draw.randint(4, 12))
        rude = number % 2
        if rude:
            words.insert(draw.randrange(len(words)), draw.choice(RUDE) + draw.choice(["", "s", "!"]))
        texts.append(" ".join(words))
        targets.append([0.9 if rude else 0.1, np.nan if number % 4 < 2 else 0.8 * rude])
    return texts, np.array(targets)


@pytest.fixture(scope="module")
def trained():
    return scorer.train(*sentences(200, 0), CONFIG)


def test_it_learns_what_is_toxic_wherever_it_stands(trained):
    texts, targets = sentences(100, 1)
    found = trained.scores(texts)
    assert auc(targets[:, 0] > 0.5, found) == 1.0
    assert abs(found - targets[:, 0]).mean() < 0.1
    # A form that it never saw, and one rude word in a long text.
    assert trained.scores(["you NINCOMPOOPISH river"])[0] > 0.5
    long = " ".join(PLAIN * 20)
    plain, rude = trained.scores([long, long + " blockhead"])
    assert rude > 3 * plain


def test_a_score_does_not_depend_on_what_else_is_scored(trained):
    texts, _ = sentences(300, 2)
    together = trained.scores(texts)
    assert np.allclose(trained.scores(texts[::-1])[::-1], together, atol=1e-6)
    alone = np.array([trained.scores([text])[0] for text in texts[:20]])
    assert np.allclose(alone, together[:20], atol=1e-6)


def test_any_text_has_a_score(trained):
    odd = ["", " \n", "x" * 100_000, "漢字" * 50, "\ud800 lone surrogate", "☃ ☃", "a", "blockhead " * 5_000]
    found = trained.scores(odd)
    assert np.isfinite(found).all() and (0 <= found).all() and (found <= 1).all()
    assert len(trained.scores([])) == 0


def test_words_and_their_pieces():
    assert scorer.words("The  Fox's\tden\n") == ["the", "fox's", "den"]
    assert scorer.words("y" * 65) == ["y" * 30, "y" * 30, "y" * 5]
    shared = set(scorer.grams("blockheads")) & set(scorer.grams("blockhead"))
    assert len(shared) > 20 and not set(scorer.grams("fox")) & set(scorer.grams("den"))
    # The word's own n-gram leaves out what is no letter or digit.
    assert set(scorer.grams("fox!")) & set(scorer.grams("fox")) > set(scorer.grams("foxy")) & set(scorer.grams("fox"))


def test_batches_hold_each_text_apart():
    texts = ["one two three", "", "four"]
    vocabulary = np.unique(np.concatenate([scorer.grams(word) for text in texts for word in scorer.words(text)]))
    features = scorer.Features(texts, vocabulary)
    batch = features.batch(np.array([2, 1, 0]), texts=4)
    assert batch["text_W"][:7].tolist() == [0, 4, 4, 2, 2, 2, 4] and set(batch["text_W"][7:]) <= {4}
    of_four = vocabulary[batch["gram_G"][batch["word_G"] == 0] - 1]
    assert sorted(of_four) == scorer.grams("four").tolist()
    assert features.sizes(np.array([0, 1, 2]))[1] == 4 + 3
    assert not features.batch(np.array([1]), texts=1)["gram_G"].any()


def test_the_same_training_gives_the_same_file(trained, tmp_path):
    again = scorer.train(*sentences(200, 0), CONFIG)
    for number, each in enumerate((trained, again)):
        each.about = {"note": 1}
        each.save(tmp_path / f"{number}.npz")
    assert (tmp_path / "0.npz").read_bytes() == (tmp_path / "1.npz").read_bytes()
    assert trained.digest == again.digest and len(trained.digest) == 64


def test_calibration_finds_scale_and_shift(trained):
    texts, _ = sentences(200, 6)
    target_N = 1 / (1 + np.exp(-(0.5 * trained.logits(texts) - 1)))
    assert trained.calibrated(texts, target_N) == pytest.approx((0.5, -1.0), abs=1e-3)


def test_saved_and_loaded(trained, tmp_path):
    trained.about, trained.calibration = {"agreement": {"all": {"auc": 0.5}}}, (1.1, 0.1)
    trained.save(tmp_path / "folder" / "s.npz")
    loaded = scorer.load(str(tmp_path / "folder" / "s.npz"))
    texts, _ = sentences(50, 3)
    assert np.array_equal(loaded.scores(texts), trained.scores(texts))
    assert loaded.about == trained.about and loaded.digest == trained.digest
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["s.npz"]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"plain words", None])
def test_no_scorer_there(tmp_path, content):
    path = tmp_path / "s.npz"
    if content is None:
        np.savez(path, vocabulary=np.arange(3))
    else:
        path.write_bytes(content)
    with pytest.raises(ValueError, match="s.npz: not a toxicity scorer; python -m imitation_jax.toxicity makes one"):
        scorer.load(str(path))
    with pytest.raises(FileNotFoundError, match="no such file"):
        scorer.load(str(tmp_path / "none.npz"))
