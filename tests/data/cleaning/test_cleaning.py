import json
import runpy
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from imitation_jax.data import builder, cleaning, evaluation_items
from imitation_jax.data.cleaning import phrases
from imitation_jax.data.prepare import get_config, prepare

ROOT = Path(__file__).parents[3]
LONG = "The river begins high in the mountains, where snow melts every spring, and finds its way to the sea. "


def dialogue(*texts, **more):
    messages = [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]
    return {"id": "x", "source": "test", "messages": messages} | more


def apply(name, dialogue, **settings):
    """What the step makes of the dialogue: the same, a new one, or a reason."""
    config = cleaning.get_config()
    config.steps = name
    config[name].update(settings)
    (step,) = cleaning.steps(config)
    return step.apply(dialogue)


@pytest.mark.parametrize(
    "name, good, bad, reason",
    [
        (
            "error_replies",
            dialogue(
                "What does 'Too many requests' mean?", "An API says it to clients that ask too often. " + 9 * LONG
            ),
            dialogue("Hello", "Hi!", "And now?", "Too many requests in 1 hour. Try again later."),
            "error reply: too many requests",
        ),
        (
            "keywords",
            dialogue("As an AI language model, what can you do?", "I write and explain."),
            dialogue("Who are you?", "As an AI language model, I’m sorry, but I cannot say."),
            "keyword: as an ai",
        ),
        (
            "repetition",
            dialogue("Count", ", ".join(map(str, range(300)))),
            dialogue("Count", LONG + "and so on and so on " * 300),
            "repetition: ",
        ),
        (
            "language",
            dialogue("Who are you?", "A friend."),
            dialogue("Wer bist du denn?", "Ich bin ein Freund."),
            "lang",
        ),
    ],
)
def test_a_step_keeps_the_good_and_names_the_bad(name, good, bad, reason):
    assert apply(name, good) is good
    assert apply(name, bad).startswith(reason)


def test_phrases_can_come_from_a_file(tmp_path):
    (tmp_path / "own.txt").write_text("# mine\n\nBanana\n")
    item = dialogue("What is yellow?", "A BANANA is.")
    assert apply("keywords", item) is item
    assert apply("keywords", item, phrases=str(tmp_path / "own.txt")) == "keyword: banana"
    with pytest.raises(OSError, match="nowhere.txt"):
        apply("keywords", item, phrases="nowhere.txt")


def test_a_file_that_happens_to_lie_here_is_not_taken(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "keywords.txt").write_text("banana\n")
    phrases.load.cache_clear()
    item = dialogue("What is yellow?", "A banana is.")
    assert apply("keywords", item) is item


def test_length_in_characters_tokens_and_turns(tiny_tokenizer):
    item = dialogue("abcd", "efgh", "ijkl", "mnop")
    assert apply("length", item) is item
    assert apply("length", item, least=16, most=16, least_turns=4, most_turns=4) is item
    assert apply("length", item, least=17) == "too short: 16 characters"
    assert apply("length", item, most=15) == "too long: 16 characters"
    assert apply("length", item, least_turns=5) == "few turns: 4"
    assert apply("length", item, most_turns=3) == "many turns: 4"
    words = dialogue("the river", "the water")
    tokens = int(apply("length", words, most=1, tokenizer=str(tiny_tokenizer)).split()[2])
    assert 2 <= tokens < 16
    assert apply("length", words, least=tokens, most=tokens, tokenizer=str(tiny_tokenizer)) is words


def test_personal_data_are_replaced_and_counted():
    given = dialogue(
        "Mail me at jane.doe+x@mail.example.org or call +49 (0)30 1234 5678 or (415) 555-0132.",
        "Your key sk-abcdefghijklmnopqrstuvwx1234 and ghp_0123456789abcdefghijABCDEFGHIJ012345 are public.",
    )
    new = apply("personal_data", given)
    assert [turn["content"] for turn in new["messages"]] == [
        "Mail me at [EMAIL] or call [PHONE] or [PHONE].",
        "Your key [KEY] and [KEY] are public.",
    ]
    assert new["personal_data"] == {"email": 1, "phone": 2, "key": 2}
    assert "personal_data" not in given and "jane" in given["messages"][0]["content"]
    only = apply("personal_data", given, kinds="email")
    assert only["personal_data"] == {"email": 1} and "+49" in only["messages"][0]["content"]


@pytest.mark.parametrize(
    "text",
    [
        "On 2023-05-25 at 10:30:00, 3.14159265 of 1,234,567 and 12345678901234 were 192.168.10.25.",
        "Use @decorator, a@b and user@host; pip install x==1.22.333; call f(100, 200, 3000).",
        "ISBN 978-3-16-148410-0, order 555-0132, task-skipped-because-of-a-very-long-name",
        "sk-learn and hf_short and the range 1990-2020 and 123-45-6789-0123",
    ],
)
def test_numbers_that_belong_to_nobody_stay(text):
    item = dialogue(text, text)
    assert apply("personal_data", item) is item


def test_a_key_of_many_lines_goes_whole():
    key = "-----BEGIN RSA PRIVATE KEY-----\nMIIabc\ndef==\n-----END RSA PRIVATE KEY-----"
    new = apply("personal_data", dialogue(f"Is this safe?\n{key}\nTell me.", "No."))
    assert new["messages"][0]["content"] == "Is this safe?\n[KEY]\nTell me."


ITEM = "How many grams of sugar does a farmer need for seven jars of plum jam in a wet year"


def test_decontamination_drops_what_holds_an_item(tmp_path):
    texts = [ITEM, "Which of these rivers is the longest of all?", "too short to tell"]
    quiz = tmp_path / "quiz.jsonl"
    quiz.write_text("".join(json.dumps({"question": text}) + "\n" for text in texts))
    for text, number in ((f"My teacher asks: {ITEM.upper()}! Help.", 1), (texts[1], 2)):
        for item in (dialogue(text, "Five."), dialogue("Ask me something.", text)):
            assert apply("decontaminate", item, files=str(quiz)) == f"evaluation item: {quiz}:{number}"
    for text in ("too short to tell", " ".join(ITEM.split()[:12])):
        item = dialogue(text, "Yes.")
        assert apply("decontaminate", item, files=str(quiz)) is item


def test_settings_that_cannot_be_are_one_clear_line():
    config = get_config()
    for steps, message in (
        ("languge", "config.steps: there is no step 'languge'; there are decontaminate, error_replies, "),
        ("language,length,language", "config.steps: language stands there twice"),
    ):
        config.steps = steps
        with pytest.raises(ValueError, match=message):
            cleaning.steps(config)
    with pytest.raises(ValueError, match="config.decontaminate.files is empty"):
        apply("decontaminate", dialogue("a", "b"))
    with pytest.raises(ValueError, match="config.personal_data.kinds: there is no 'name'; there are email, phone, key"):
        apply("personal_data", dialogue("a", "b"), kinds="email,name")
    for step, key, value in (
        ("language", "keep", "english"),
        ("language", "probability", 50.0),
        ("repetition", "least_distinct", 15.0),
        ("near_duplicates", "jaccard", 65.0),
        ("near_duplicates", "bands", 0),
    ):
        with pytest.raises(ValueError, match=f"config.{step}.{key}={value} "):
            apply(step, dialogue("a", "b"), **{key: value})


# ----------------------------------------------------------------------------------------------------------------------
# The whole run
# ----------------------------------------------------------------------------------------------------------------------

ROWS = [
    dialogue("What is the capital of France?", "Paris.", id="good"),
    dialogue("what is the capital of   france", "It is Paris.", id="exact"),
    dialogue("What is the capital of France?", "Too many requests in 1 hour.", id="error"),
    dialogue("Wie heißt die Hauptstadt von Frankreich?", "Sie heißt Paris.", id="german"),
    dialogue("Tell me: what is the capital of France? Thanks!", "Paris.", id="near"),
    dialogue("Write to me@mail.example.com", "I will.", id="mail"),
    dialogue("Hello", " ", id="empty"),
    {"id": "roles", "source": "test", "messages": [{"role": "user", "content": "a"}] * 2},
    dialogue(f"Answer this: {ITEM}?", "Five.", id="leaked"),
]


@pytest.fixture
def run(tmp_path):
    def run(steps, out="out", **more):
        (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS) + "{cut\n")
        config = get_config("messages")
        config.input = str(tmp_path / "in.jsonl")
        config.steps = steps
        config.near_duplicates.least_characters = 10
        config.near_duplicates.jaccard_if_contained = 0.4
        config.update(more)
        (tmp_path / "quiz.jsonl").write_text(json.dumps({"question": ITEM}))
        config.decontaminate.files = str(tmp_path / "quiz.jsonl")
        card = prepare(config, str(tmp_path / out))
        read = [(tmp_path / out / f"{name}.jsonl").read_text().splitlines() for name in ("dialogues", "rejected")]
        return card, *([json.loads(line) for line in lines] for lines in read)

    return run


def test_every_row_is_accounted_for_at_every_step(run):
    steps = "error_replies,language,personal_data,decontaminate,exact_duplicates,near_duplicates"
    card, kept, rejected = run(steps)
    assert [item["id"] for item in kept] == ["good", "mail"]
    assert kept[1]["messages"][0]["content"] == "Write to [EMAIL]"
    assert [(row["id"], row["step"], row["reason"].split(":")[0]) for row in rejected] == [
        ("exact", "exact_duplicates", "exact duplicate"),
        ("error", "error_replies", "error reply"),
        ("german", "language", "language"),
        ("near", "near_duplicates", "near duplicate"),
        ("empty", "empty_turns", "empty assistant turn"),
        ("roles", "structure", "two user turns in a row"),
        ("leaked", "decontaminate", "evaluation item"),
        (None, "readable", "not JSON"),
    ]
    assert "good" in rejected[0]["reason"] and " good, Jaccard 0." in rejected[3]["reason"]
    funnel = card["funnel"]
    assert [step["step"] for step in funnel] == ["read", "readable", "structure", "empty_turns", *steps.split(",")]
    assert [step["rows"] for step in funnel] == [10, 9, 8, 7, 6, 5, 5, 4, 3, 2]
    for before, after in zip(funnel, funnel[1:], strict=False):
        assert before["rows"] - after["rows"] == after["dropped"] == sum(after["reasons"].values())
        assert after["dropped"] == sum(row["step"] == after["step"] for row in rejected)
    assert [step["changed"] for step in funnel[1:]] == [0, 0, 0, 0, 0, 1, 0, 0, 0]
    assert card["personal_data_replaced"] == {"email": 1} and card["sources"] == {"test": 2}
    assert card["reasons"]["exact duplicate"] == 1 and sum(card["reasons"].values()) == card["rejected"] == 8


def test_a_step_sees_what_the_ones_before_it_left(run):
    _, kept, rejected = run("exact_duplicates,near_duplicates,error_replies")
    assert {row["id"]: row["step"] for row in rejected if row["id"] in ("exact", "error", "near")} == dict.fromkeys(
        ("exact", "error"), "exact_duplicates"
    ) | {"near": "near_duplicates"}
    assert [item["id"] for item in kept] == ["good", "german", "mail", "leaked"]
    card, kept, _ = run("", out="none")
    assert len(kept) == 7 and [step["step"] for step in card["funnel"]] == [
        "read",
        "readable",
        "structure",
        "empty_turns",
    ]


def test_the_same_input_gives_the_same_bytes_and_shards_in_order(run, tmp_path):
    _, kept, _ = run("language", out="one", shards=3)
    run("language", out="two", shards=3)
    one, two = (
        {path.relative_to(tmp_path / out): path.read_bytes() for path in (tmp_path / out).rglob("*") if path.is_file()}
        for out in ("one", "two")
    )
    assert one == two
    found = builder.find(tmp_path / "one")
    assert len(list(found.glob("*.array_record*"))) == 3
    assert [item for _, item in builder.read(found)] == kept


def load(name):
    return runpy.run_path(str(ROOT / "configs" / "data" / name))["get_config"]


def test_each_config_has_steps_that_there_are():
    for path in sorted((ROOT / "configs" / "data").glob("*.py")):
        config = load(path.name)()
        assert isinstance(config, ConfigDict)
        if "training" not in config:
            assert ",".join(step.name for step in cleaning.steps(config)) == config.steps
    assert "keywords" in {step.name for step in cleaning.steps(load("sharegpt.py")("unfiltered"))}
    with pytest.raises(ValueError, match="the variant is unfiltered"):
        load("sharegpt.py")("paper")


def test_the_mix_reads_three_formats_with_ids_of_their_own(tmp_path):
    turns = [{"from": "human", "value": "What is rain?"}, {"from": "gpt", "value": "Water that falls from clouds."}]
    (tmp_path / "sharegpt.json").write_text(json.dumps([{"id": "a", "conversations": turns}]))
    (tmp_path / "hc3.jsonl").write_text(
        json.dumps({"id": "a", "question": "Why do cats purr?", "human_answers": [], "chatgpt_answers": ["They rest."]})
        + "\n"
        + json.dumps({"id": "b", "question": "What is rain?", "human_answers": [], "chatgpt_answers": ["Water."]})
    )
    config = load("sharegpt_mix.py")()
    config.inputs.sharegpt, config.inputs.hc3 = str(tmp_path / "sharegpt.json"), str(tmp_path / "hc3.jsonl")
    with pytest.raises(ValueError, match="config.inputs.discord is empty: give --config.inputs.discord=PATH"):
        prepare(config, str(tmp_path / "out"))
    del config.inputs["discord"]
    card = prepare(config, str(tmp_path / "out"))
    assert card["sources"] == {"sharegpt": 1, "hc3": 1} and card["reasons"] == {"exact duplicate": 1}
    config.inputs["hc4"] = "x"
    with pytest.raises(ValueError, match="config.inputs.hc4: there is no format 'hc4'; there are alpaca, discord, hc3"):
        prepare(config, str(tmp_path / "other"))


def test_decontamination_finds_the_koala_prompts_of_the_sample(lent, command, tmp_path):
    """All of them: what is left holds none."""
    sample, koala = lent("sharegpt/sharegpt_sample.jsonl.gz"), lent("koala_test_set/koala_test_set.jsonl")
    out = tmp_path / "out"
    flags = [f"--config.input={sample}", "--config.steps=decontaminate", "--config.card.nearest_queries=0"]
    flags += [f"--config.decontaminate.files={koala}", f"--output={out}"]
    result = command("prepare", "--config=configs/data/sharegpt.py", *flags)
    assert result.returncode == 0, result.stderr
    texts = {"koala": evaluation_items.texts_of_files(str(koala), "prompt")}
    before = evaluation_items.mark(texts, str(sample), tmp_path)["koala"]["items"]
    after = evaluation_items.mark(texts, str(out / "dialogues.jsonl"), tmp_path)["koala"]["items"]
    assert len(before) >= 5 and not after
    rejected = [json.loads(line) for line in (out / "rejected.jsonl").read_text().splitlines()]
    named = {row["reason"].removeprefix("evaluation item: ") for row in rejected if row["step"] == "decontaminate"}
    assert named <= before.keys() and len(named) >= 0.8 * len(before)


def test_texts_of_evaluation_files(tmp_path):
    (tmp_path / "a.csv").write_text("question,choice0,answer\nWhat is it?,A tree,0\n")
    (tmp_path / "b.jsonl").write_text('{"prompt": "Say", "choices": ["yes", {"text": "no"}], "other": "x"}\n')
    given = f"{tmp_path}/*.csv, {tmp_path}/b.jsonl"
    assert evaluation_items.texts_of_files(given, "question,prompt,choice0,choices") == {
        f"{tmp_path}/a.csv:2": "What is it?\nA tree",
        f"{tmp_path}/b.jsonl:1": "Say\nyes\nno",
    }
    with pytest.raises(ValueError, match="b.jsonl:1: has no text under question"):
        evaluation_items.texts_of_files(given, "question")
    with pytest.raises(FileNotFoundError, match="nowhere.csv"):
        evaluation_items.texts_of_files("nowhere.csv", "question")
