import json
from pathlib import Path

import pytest
from sacrebleu.metrics import BLEU

from imitation_jax.data import heldout
from imitation_jax.data.dialogues import check
from imitation_jax.data.prompt_files import read_prompts

TRAINING = [
    ["Write a short story about a dragon who is afraid of heights.", "Now make it rhyme, please."],
    ["What is the capital of Mongolia, and how many people live there?"],
    ["Why do cats purr when they are content?"],
]
FIT = [
    "How do I keep tomatoes fresh for longer in the summer?",
    "Explain why the moon looks larger near the horizon.",
    "Give three reasons for learning to play an instrument as an adult.",
    "Plan a weekend in Lisbon for a family with two small children.",
]
UNFIT = {
    "Write a Python function that reverses a list of numbers.": "coding",
    "Warum ist der Himmel am Abend oft so schön rot?": "language: de",
    "42 :-)": "language: tells none",
    "What is the capital of Mongolia, and how many people live in it?": "near a training query: BLEU 79.17 with 1",
    FIT[0]: "came before: 0",
}


@pytest.fixture
def config(write, tmp_path):
    """All of FIT, then all of UNFIT, then a row that is none, against TRAINING."""
    rows = [{"id": str(number), "instruction": text} for number, text in enumerate([*FIT, *UNFIT])]
    write(tmp_path / "prompts.jsonl", [*rows, {"id": "none"}])
    with open(tmp_path / "training.jsonl", "w") as file:
        for number, queries in enumerate(TRAINING):
            messages = [
                m
                for text in queries
                for m in ({"role": "user", "content": text}, {"role": "assistant", "content": "x"})
            ]
            file.write(json.dumps({"id": str(number), "source": "t", "messages": messages}) + "\n")
    config = heldout.get_config()
    config.input, config.training, config.n = str(tmp_path / "prompts.jsonl"), str(tmp_path / "training.jsonl"), 3
    return config


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_row_is_selected_or_rejected_with_its_reason(config, tmp_path):
    selection = heldout.select(config, str(tmp_path / "out"))
    chosen, rejected = lines(tmp_path / "out" / "prompts.jsonl"), lines(tmp_path / "out" / "rejected.jsonl")
    texts = [row["messages"][0]["content"] for row in chosen]
    assert len(texts) == 3 and texts == [text for text in FIT if text in texts]
    reasons = {row["id"]: row["reason"] for row in rejected}
    (left,) = set(map(str, range(4))) - {row["id"] for row in chosen}
    assert reasons.pop(left) == "fits, but was not drawn"
    assert reasons.pop("none").startswith("needs a text under")
    assert list(reasons.values()) == list(UNFIT.values())
    assert len(chosen) + len(rejected) == selection["rows"] == 10
    assert (selection["selected"], selection["fitting"], selection["training_queries"]) == (3, 4, 4)
    assert selection["reasons"]["coding"] == selection["reasons"]["near a training query"] == 1
    assert selection == json.loads((tmp_path / "out" / "selection.json").read_text())
    # What was compared says with what: the nearest turn of all in the training set.
    bleu, turns = BLEU(effective_order=True), [(str(i), text) for i, some in enumerate(TRAINING) for text in some]
    for row in [*chosen, next(row["row"] for row in rejected if row["id"] == left)]:
        scores = {text: bleu.sentence_score(row["messages"][0]["content"], [text]).score for _, text in turns}
        best = max(scores, key=scores.get)
        assert row["nearest"] == {"bleu": scores[best], "id": dict(map(reversed, turns))[best]}
        assert row["nearest"]["bleu"] <= 20


def test_seed_decides_what_is_drawn_and_the_output_is_a_file_of_prompts(config, tmp_path):
    drawn = set()
    for name, seed in (("a", 0), ("b", 0), *((f"s{seed}", seed) for seed in range(1, 6))):
        config.seed = seed
        heldout.select(config, str(tmp_path / name))
        drawn.add((tmp_path / name / "prompts.jsonl").read_text())
    assert (tmp_path / "a" / "prompts.jsonl").read_text() == (tmp_path / "b" / "prompts.jsonl").read_text()
    assert 1 < len(drawn) <= 4
    read = [item for _, item in read_prompts(str(tmp_path / "a" / "prompts.jsonl"))]
    assert [item["messages"][-1]["role"] for item in read] == ["user"] * 3
    for item in read:
        check(item | {"messages": [*item["messages"], {"role": "assistant", "content": "x"}]})


def test_the_threshold_is_a_setting_and_any_user_turn_counts(config, tmp_path):
    prompt = {"id": "two", "messages": [{"role": "user", "content": FIT[0]}, {"role": "assistant", "content": "x"}]}
    prompt["messages"].append({"role": "user", "content": "Why do cats purr when they are really content?"})
    Path(config.input).write_text(json.dumps(prompt) + "\n")
    config.n = 1
    with pytest.raises(ValueError, match="only 0 of 1 rows"):
        heldout.select(config, str(tmp_path / "out"))
    assert lines(tmp_path / "out.tmp" / "rejected.jsonl")[0]["reason"].endswith("with 2")
    config.most_bleu = 90.0
    heldout.select(config, str(tmp_path / "out"))
    assert lines(tmp_path / "out" / "prompts.jsonl")[0]["nearest"]["id"] == "2"
    assert not (tmp_path / "out.tmp").exists()


def test_the_same_id_in_two_files_is_two_prompts(config, tmp_path):
    other = tmp_path / "other.jsonl"
    other.write_text(
        json.dumps({"id": "0", "instruction": "Describe the smell of rain to somebody from a desert."}) + "\n"
    )
    config.input, config.n = f"{config.input},{other}", 5
    heldout.select(config, str(tmp_path / "out"))
    assert [row["id"] for row in lines(tmp_path / "out" / "prompts.jsonl")] == ["0", "1", "2", "3", "0#2"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"n": 5},
            "only 4 of 10 rows in .* fit, 5 are wanted: give more prompts or --config.n=4 .see .*rejected.jsonl",
        ),
        ({"n": 0}, "config.n=0: select at least one prompt"),
        ({"training": ""}, "config.training is empty"),
        ({"language": {"keep": "english"}}, "config.language.keep=english is not known; there are .* en, "),
        ({"training": "missing"}, "no data at missing"),
        ({"input": "missing"}, "config.input: no file missing"),
    ],
)
def test_what_cannot_be_selected_is_one_clear_line(config, tmp_path, change, message):
    config.update(change)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        heldout.select(config, str(tmp_path / "out"))
    assert "\n" not in str(error.value) and not (tmp_path / "out").exists()


def test_a_training_file_that_holds_no_dialogues_is_refused(config, tmp_path):
    config.training = config.input
    with pytest.raises(ValueError, match="has no user turn; give a folder that prepare wrote"):
        heldout.select(config, str(tmp_path / "out"))


def test_command(config, tmp_path, command):
    flags = [
        "--config=configs/data/heldout_prompts.py",
        f"--config.input={config.input}",
        f"--output={tmp_path / 'out'}",
    ]
    done = command("prepare", *flags, f"--config.training={config.training}", "--config.n=4")
    assert done.returncode == 0, done.stderr
    assert [row["id"] for row in lines(tmp_path / "out" / "prompts.jsonl")] == ["0", "1", "2", "3"]
    done = command("prepare", *flags, f"--config.training={config.training}")
    assert done.returncode == 1 and done.stderr.splitlines()[-1].endswith(
        "out exists: delete it, or give another folder"
    )
