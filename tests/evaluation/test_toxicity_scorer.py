import json
import random

import numpy as np
import pytest
from ml_collections import ConfigDict

from imitation_jax.evaluation import toxicity_scorer as scorer
from imitation_jax.evaluation.toxicity_training import auc

CONFIG = ConfigDict({"alpha": 0.1, "C": 0.1, "seed": 0})
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


def train(texts, targets):
    return scorer.train(texts, targets, [str(number) for number in range(len(texts))], CONFIG)


@pytest.fixture(scope="module")
def trained():
    return train(*sentences(200, 0))


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
    assert scorer.words("\ud800x") == ["?x"]


def grams(word):
    """The buckets of a word's n-grams."""
    return set(scorer.Corpus([word]).bags(np.ones(1)).indices)


def test_words_that_look_alike_share_n_grams():
    assert len(grams("blockheads") & grams("blockhead")) > 20 and not grams("fox") & grams("den")
    assert grams("fox!") & grams("fox") and not grams("")


def test_a_bag_is_the_sum_of_its_words():
    corpus = scorer.Corpus(["one two", "", "two one one"])
    assert corpus.count_T.tolist() == [2, 1, 3] and corpus.text_W.tolist() == [0, 0, 1, 2, 2, 2]
    bags = corpus.bags(np.array([2, 1, 1, 1, 1, 1])).toarray()
    assert not bags[1].any() and np.allclose(bags[0], bags[2])


def test_features_by_hand():
    """One attribute; the words of the first text score 1, 3, 0, of the second -1."""
    corpus = scorer.Corpus(["a b c", "d"])
    found = corpus.features(np.array([[1.0], [3.0], [0.0], [-1.0]]))
    peak, three, mean, root, soft = found[:, :5].T
    assert peak.tolist() == [3, -1] and three.tolist() == [4, -1]
    assert mean == pytest.approx([4 / 3, -1]) and root == pytest.approx([4 / 3 * 3**0.5, -1])
    assert soft == pytest.approx([np.log((np.exp(0.5) + np.exp(1.5) + 1) / 3) / 0.5, -1])
    assert found[:, -2:].T == pytest.approx(np.array([[3**-0.5, 1], [np.log(3), 0]]))


def test_the_same_training_gives_the_same_file(trained, tmp_path):
    again = train(*sentences(200, 0))
    for number, each in enumerate((trained, again)):
        each.about = {"note": 1}
        each.save(tmp_path / f"{number}.npz")
    assert (tmp_path / "0.npz").read_bytes() == (tmp_path / "1.npz").read_bytes()
    assert trained.digest == again.digest and len(trained.digest) == 64


def test_saved_and_loaded(trained, tmp_path):
    trained.about = {"agreement": {"all": {"auc": 0.5}}}
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


def test_a_scorer_of_an_earlier_version_is_refused(tmp_path):
    about = {"format": "imitation_jax toxicity scorer 1", "calibration": [1.0, 0.0]}
    np.savez(tmp_path / "s.npz", about=json.dumps(about), vocabulary=np.arange(3))
    message = "s.npz: a toxicity scorer of another version; python -m imitation_jax.toxicity makes one"
    with pytest.raises(ValueError, match=message):
        scorer.load(str(tmp_path / "s.npz"))


def test_a_file_that_holds_objects_is_not_unpickled(tmp_path):
    np.savez(tmp_path / "s.npz", about=json.dumps({"format": scorer.FORMAT}), weights_RBA=np.array([{}]), head_F=0)
    with pytest.raises(ValueError, match="not a toxicity scorer"):
        scorer.load(str(tmp_path / "s.npz"))
