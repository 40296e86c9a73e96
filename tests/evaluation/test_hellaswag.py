import pytest

from imitation_jax.evaluation.tasks import hellaswag

HOME = {
    "ind": 24,
    "activity_label": "Roof shingle removal",
    "ctx_a": "A man is sitting on a roof.",
    "ctx_b": "he",
    "ctx": "A man is sitting on a roof. he",
    "endings": ["is using wrap.", "is ripping  tiles off.", "holds a cube.", "starts pulling up roofing."],
    "label": "3",
}
WIKIHOW = {
    "activity_label": "Health",
    "ctx_a": "[header] How to sleep [title] Go to bed early. [step] Turn lights off.",
    "ctx_b": "",
    "endings": ["[title] Wait. [step] Rest.", "[substeps] Read.", "Run.", "Eat."],
    "label": 0,
}


def test_contexts_and_endings_are_cleaned_as_lm_eval_does(write, tmp_path, config_of, scripted, answer_all):
    engine = scripted(likes={"pulling up roofing.": -1.0})
    config = config_of("hellaswag", data=write(tmp_path / "h.jsonl", HOME, WIKIHOW))
    samples, found = answer_all(hellaswag, engine, config)
    assert samples[0]["prompt"] == "Roof shingle removal: A man is sitting on a roof. He"
    assert engine.asked[1] == "Roof shingle removal: A man is sitting on a roof. He is ripping tiles off."
    assert samples[0]["correct"] and samples[0]["gold"] == 3
    assert samples[1]["prompt"] == "Health: How to sleep. Go to bed early. Turn lights off."
    # Stripped before the brackets go, so the space behind one at the beginning stays.
    assert samples[1]["choices"] == [" Wait. Rest.", " Read.", "Run.", "Eat."]
    assert found["chance"] == 0.25


def test_rows_of_tfds_and_worded_ones(write, tmp_path, config_of):
    rows = [
        {"activity_label": "Roof", "context": "A man sits. he", "endings": ["a", "b"], "label": 1},
        {"query": "Roof: A man sits. He", "choices": ["a", "b"], "gold": 1},
    ]
    items = hellaswag.read(config_of("hellaswag", data=write(tmp_path / "h.jsonl", *rows)))
    assert [item["prompt"] for item in items] == ["Roof: A man sits. he", "Roof: A man sits. He"]
    assert [item["gold"] for item in items] == [1, 1]
    assert hellaswag.text(items[0]) == "Roof: A man sits. he\na\nb"


def test_ten_shots(write, tmp_path, config_of, scripted, answer_all):
    others = [HOME | {"ctx_a": f"Man {k} sits."} for k in range(12)]
    paths = {"data": write(tmp_path / "h.jsonl", HOME), "shots_data": write(tmp_path / "train.jsonl", *others)}
    [sample], _ = answer_all(hellaswag, scripted(), config_of("hellaswag", "10_shot", **paths))
    *shots, last = sample["prompt"].split("\n\n")
    assert len(set(shots)) == 10 and last == "Roof shingle removal: A man is sitting on a roof. He"
    assert all(shot.endswith("sits. He starts pulling up roofing.") for shot in shots)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (HOME | {"label": ""}, "0 to 3, not ''"),
        (HOME | {"ctx_b": None}, "needs texts under activity_label, ctx_a, ctx_b"),
        (HOME | {"endings": "['a']"}, "needs a list of texts under 'endings'"),
    ],
)
def test_bad_rows_are_named(write, tmp_path, config_of, bad, reason):
    with pytest.raises(ValueError, match=f"bad.jsonl:2: .*{reason}"):
        hellaswag.read(config_of("hellaswag", data=write(tmp_path / "bad.jsonl", HOME, bad)))
