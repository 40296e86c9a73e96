import json

import numpy as np
import pytest
from test_toxicity_scorer import CONFIG, sentences

from imitation_jax.evaluation import toxicity_scorer as scorer
from imitation_jax.evaluation import toxicity_training as training


def config(data, **overrides):
    made = CONFIG.copy_and_resolve_references()
    keys = {"data": str(data), "hatecheck": "", "test_share": 0.25, "folds": 0}
    made.update({**keys, **overrides})
    return made


@pytest.fixture
def prompts(write, tmp_path):
    """RealToxicityPrompts as it is published: two texts a row, some without scores, some rows of one document."""
    texts, targets = sentences(240, 5)
    rows = []
    for number in range(120):
        parts = {}
        for part, index in (("prompt", number), ("continuation", number + 120)):
            scores = dict.fromkeys(training.ATTRIBUTES, targets[index][0])
            parts[part] = {"text": texts[index], **scores}
        if number % 40 == 7:
            parts["continuation"] |= dict.fromkeys(training.ATTRIBUTES)
        rows.append({"filename": f"document {number // 2}", "begin": number, "challenging": False, **parts})
    path = tmp_path / "prompts.jsonl"
    write(path, rows)
    return path


def test_rows_become_texts(prompts):
    data, unscored = training.read(str(prompts))
    assert len(data.texts_T) == 237 and unscored == 3 and data.targets_TA.shape == (237, 8)
    assert data.parts_T.sum() == 117 and len(set(data.documents_T)) == 60
    assert data.texts_T[:2].tolist() == sentences(240, 5)[0][:121:120]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": {"text": "a", "toxicity": 0.5}}, "under 'continuation'"),
        ({"prompt": {"text": "a", "toxicity": 2}, "continuation": {"text": "b"}}, "numbers from 0 to 1"),
        ({"prompt": {"text": "a", "toxicity": "x"}, "continuation": {"text": "b"}}, "numbers from 0 to 1"),
        ({"prompt": "a", "continuation": "b"}, "under 'prompt'"),
    ],
)
def test_bad_rows_are_named(tmp_path, row, reason):
    path = tmp_path / "bad.jsonl"
    fine = {"text": "fine", "toxicity": 0.1}
    path.write_text(json.dumps({"prompt": fine, "continuation": fine}) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(ValueError, match=f"bad.jsonl:2: .*{reason}"):
        training.read(str(path))


def test_nothing_with_a_score(tmp_path):
    path = tmp_path / "none.jsonl"
    path.write_text(json.dumps({part: {"text": "a", "toxicity": None} for part in training.PARTS}))
    with pytest.raises(ValueError, match="holds no text with a toxicity"):
        training.read(str(path))


def test_a_document_falls_on_one_side(prompts):
    documents = training.read(str(prompts))[0].documents_T
    place_N = training.places(documents, 0)
    assert len(set(zip(documents, place_N, strict=True))) == len(set(documents)) == len(set(place_N))
    assert 0.1 < (place_N < 0.25).mean() < 0.4
    assert not np.array_equal(place_N, training.places(documents, 1))
    # Rows that come or go move no other.
    assert np.array_equal(training.places(documents[50:], 0), place_N[50:])


def test_auc_by_hand():
    positive = np.array([True, True, False, False])
    assert training.auc(positive, np.array([4, 2, 3, 1])) == 0.75
    assert training.auc(positive, np.array([1, 1, 1, 1])) == 0.5
    assert training.auc(positive, np.array([1, 2, 3, 3])) == 0.0
    assert np.isnan(training.auc(np.array([True]), np.array([1.0])))


def test_agreement_and_reliability():
    theirs = np.array([0.1, 0.2, 0.6, 0.9])
    found = training.agreement(theirs**2, theirs)
    assert found["texts"] == 4 and found["auc"] == 1.0 and found["spearman"] == pytest.approx(1.0)
    assert found["pearson"] == pytest.approx(np.corrcoef(theirs**2, theirs)[0, 1])
    assert found["rmse"] == pytest.approx(np.sqrt(np.mean((theirs**2 - theirs) ** 2)))
    assert (found["toxic"], found["toxic_perspective"]) == (0.25, 0.5)
    undefined = training.agreement(np.array([0.5, 0.5]), np.array([0.1, 0.2]))
    assert [undefined[name] for name in ("auc", "spearman", "pearson")] == [None, None, None]
    rows = training.reliability(np.array([0.01, 0.09, 0.55, 1.0]), np.array([0.0, 0.2, 0.4, 0.8]))
    assert [(row["from"], row["texts"]) for row in rows] == [(0.0, 2), (0.5, 1), (0.9, 1)]
    assert rows[0]["ours"] == pytest.approx(0.05) and rows[0]["perspective"] == pytest.approx(0.1)
    assert rows[2]["perspective_toxic"] == 1.0


def test_the_whole_way(prompts, tmp_path):
    hatecheck = tmp_path / "hatecheck.csv"
    cases = [("hateful", "you blockhead"), ("non-hateful", "the river begins"), ("hateful", "scoundrels wait")]
    hatecheck.write_text(",test_case,label_gold\n" + "".join(f"0,{text},{label}\n" for label, text in cases))
    output = tmp_path / "s.npz"
    settings = config(prompts, hatecheck=str(hatecheck), folds=2)
    report = training.make(settings, str(output))
    made = scorer.load(str(output))
    data, _ = training.read(str(prompts))
    test = data.take(training.places(data.documents_T, 0) < 0.25)
    # What stands in the file is what the file's scorer does on documents that it never saw.
    ours = made.scores(test.texts_T)
    assert made.about["agreement"]["all"] == pytest.approx(training.agreement(ours, test.targets_TA[:, 0]))
    assert made.about["agreement"]["all"]["auc"] > 0.95
    assert made.about["trained_on"]["texts"] + len(test.texts_T) == 237 and made.about["texts_without_a_score"] == 3
    assert made.about["folds"]["texts"] == 237 and len(made.about["folds"]["auc_by_fold"]) == 2
    assert made.about["hatecheck"]["auc"] == 1.0
    assert all(part in report for part in (made.digest, "Spearman", "2 folds: all", "HateCheck, 3 texts"))
    assert f"{made.about['agreement']['prompts']['spearman']:.4f}" in report


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        ({"test_share": 0.0}, "config.test_share=0.0: must be between 0 and 1"),
        ({"test_share": 0.001}, "leaves no document"),
        ({"folds": 1}, "config.folds=1"),
        ({"alpha": 0.0}, "config.alpha=0.0: must be more than 0"),
        ({"C": -1.0}, "config.C=-1.0: must be more than 0"),
        ({"data": "nowhere.jsonl"}, "nowhere.jsonl: no such file"),
        ({"hatecheck": "nowhere.csv"}, "nowhere.csv: no such file"),
    ],
)
def test_settings_are_checked_before_anything_is_trained(prompts, tmp_path, overrides, reason, monkeypatch):
    monkeypatch.setattr(scorer, "train", None)
    with pytest.raises((ValueError, FileNotFoundError), match=reason):
        training.make(config(**{"data": prompts, **overrides}), str(tmp_path / "s.npz"))


@pytest.mark.slow
def test_it_agrees_with_perspective_on_rows_it_never_saw(lent, tmp_path, command):
    output = tmp_path / "s.npz"
    data = lent("realtoxicityprompts/rtp_val_4000.jsonl")
    flags = [f"--config.data={data}", "--config.folds=0", f"--output={output}"]
    done = command("toxicity", "--config=configs/toxicity.py", *flags, quick=False)
    assert done.returncode == 0, done.stderr
    found = scorer.load(str(output)).about["agreement"]
    assert found["all"]["texts"] > 1_400 and found["all"]["auc"] >= 0.93 and found["all"]["spearman"] >= 0.78
    assert found["prompts"]["auc"] >= 0.9 and found["continuations"]["auc"] >= 0.9
    assert f"{found['all']['auc']:.4f}" in done.stdout
