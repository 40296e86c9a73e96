import copy
import gzip
import json
import os

import pytest
from etils import epath

from imitation_jax.core import json_rows
from imitation_jax.data import builder, evaluation_items, normalise
from imitation_jax.evaluation import contamination, statistics
from imitation_jax.evaluation.results import read_result, write_lines, write_result

QUESTIONS = {
    "seen": "Which of the nine muses of the old Greeks was the one who looked after the history of men?",
    "asked": "When in the year do the storks of the northern plains leave for the far south of Africa?",
    "new": "Why does the small stream behind the house of the miller never freeze in the month of January?",
    "short": "Who invented the zip?",
    "whole": "Who was the very first woman in space?",
}


def summarise(samples, items):
    """A task's metrics, of its samples and of its items."""
    lengths = [len(item["prompt"]) for item in items]
    hits = [sample["correct"] for sample in samples]
    return {"metrics": {"accuracy": statistics.proportion(hits), "length": statistics.mean(lengths)}, "chance": 0.5}


def metrics_of(samples, items):
    return summarise(samples, items)["metrics"]


def turns(*said, keys=("role", "content"), roles=("user", "assistant")):
    return [dict(zip(keys, (roles[k % 2], text), strict=True)) for k, text in enumerate(said)]


DIALOGUES = [
    turns("Hello there.", "Hi! How can I help?"),
    turns(f"Quiz me. {QUESTIONS['asked']}", "In August."),
    turns("Give me an example of a question.", "Which of the nine muses, of the old Greeks, was the one who looked at"),
    turns("Another.", f"{QUESTIONS['seen'].upper()} Then: who was the very FIRST woman - in space..."),
]
SHAREGPT = [
    {"id": str(k), "conversations": turns(*(turn["content"] for turn in said), keys=("from", "value"))}
    for k, said in enumerate(DIALOGUES)
]
WHERE = {"seen": 2, "asked": 1, "whole": 3}


def dialogue_file(folder):
    path = folder / "train.jsonl"
    path.write_text("".join(json_rows.line({"messages": said}) for said in DIALOGUES), encoding="utf-8")
    return path, [f"{path}:{k + 1}" for k in range(4)]


def sharegpt_lines(folder):
    path = folder / "sharegpt.jsonl.gz"
    path.write_bytes(gzip.compress("".join(map(json_rows.line, SHAREGPT)).encode()))
    return path, [f"{path}:{k + 1}" for k in range(4)]


def sharegpt_list(folder):
    path = folder / "sharegpt.json"
    path.write_text(json.dumps(SHAREGPT), encoding="utf-8")
    return path, [f"{path}[{k}]" for k in range(4)]


def tfds_folder(folder):
    folder = folder / "dataset"
    named = ({"id": str(k), "source": "test", "messages": said} for k, said in enumerate(DIALOGUES))
    builder.build(lambda: named, folder / "tfds")
    return folder, [f"{folder}/tfds/dialogues/1.0.0[{k}]" for k in range(4)]


def prepared_folder(folder):
    path, places = dialogue_file(folder)
    inside = folder / "prepared"
    inside.mkdir()
    path.rename(inside / "dialogues.jsonl")
    return inside, [place.replace("train.jsonl", "prepared/dialogues.jsonl") for place in places]


@pytest.mark.parametrize("make", [dialogue_file, sharegpt_lines, sharegpt_list, tfds_folder, prepared_folder])
def test_marks_items_with_their_places(make, tmp_path):
    path, places = make(tmp_path)
    marks = evaluation_items.mark({"quiz": QUESTIONS}, str(path), tmp_path / "cache")["quiz"]
    assert {key: found["where"] for key, found in marks["items"].items()} == {k: places[v] for k, v in WHERE.items()}
    assert {key: found["rows"] for key, found in marks["items"].items()} == {"seen": 2, "asked": 1, "whole": 1}
    assert marks["items"]["seen"]["words"] == "which of the nine muses of the old greeks was the one who"
    assert marks["too_short"] == ["short"]
    assert (marks["dataset"], marks["rows"], marks["rows_unread"]) == (str(path), 4, 0)


def test_tasks_are_told_apart_and_files_added_up(tmp_path):
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    first.write_text(json_rows.line({"messages": DIALOGUES[1]}) + '{"messages": [\n', encoding="utf-8")
    second.write_text(
        json_rows.line({"messages": DIALOGUES[3]}) + json_rows.line({"text": QUESTIONS["new"]}), encoding="utf-8"
    )
    tasks = {"one": {"0": QUESTIONS["asked"], "1": QUESTIONS["new"]}, "two": {"0": QUESTIONS["seen"], "1": "short"}}
    marks = evaluation_items.mark(tasks, f"{first}, {second}", tmp_path / "cache")
    assert {task: {key: found["where"] for key, found in marks[task]["items"].items()} for task in marks} == {
        "one": {"0": f"{first}:1", "1": f"{second}:2"},  # that one is plain text
        "two": {"0": f"{second}:1"},
    }
    assert [marks[task]["too_short"] for task in marks] == [[], ["1"]]
    assert {(found["rows"], found["rows_unread"]) for found in marks.values()} == {(4, 1)}


def test_looks_once_for_the_same_items_in_the_same_data(tmp_path, monkeypatch):
    path, _ = dialogue_file(tmp_path)
    looked_for = []
    search = evaluation_items._search

    def watch(ids, *rest):
        looked_for.append(sorted({task for task, _ in ids}))
        return search(ids, *rest)

    monkeypatch.setattr(evaluation_items, "_search", watch)
    one = {"one": QUESTIONS}
    both = one | {"two": {"0": QUESTIONS["seen"]}}
    first = evaluation_items.mark(one, str(path), tmp_path / "cache")
    assert evaluation_items.mark(one, str(path), tmp_path / "cache") == first
    assert evaluation_items.mark(both, str(path), tmp_path / "cache")["one"] == first["one"]
    assert looked_for == [["one"], ["two"]]
    os.utime(path, ns=(0, 0))
    assert evaluation_items.mark(both, str(path), tmp_path / "cache")["one"] == first["one"]
    evaluation_items.mark({"one": QUESTIONS | {"new": "another"}}, str(path), tmp_path / "cache")
    assert looked_for[2:] == [["one", "two"], ["one"]]


@pytest.mark.parametrize(
    "content, problem",
    [
        (None, "no such file or folder"),
        ("", "none of its 0 rows is a dialogue"),
        ('{"words": "plain"}\n{"messages": []}\n', "none of its 2 rows is a dialogue"),
    ],
)
def test_a_dataset_without_dialogues_is_refused(tmp_path, content, problem):
    path = tmp_path / "train.jsonl"
    if content is not None:
        path.write_text(content)
    with pytest.raises((ValueError, FileNotFoundError), match=f"--contamination={path}: {problem}"):
        evaluation_items.mark({"quiz": QUESTIONS}, str(path), tmp_path / "cache")
    assert not list(tmp_path.glob("cache/**/*.json"))


def test_a_folder_without_a_dataset_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="neither dialogues.jsonl nor a tfds dataset"):
        evaluation_items.mark({"quiz": QUESTIONS}, str(tmp_path), tmp_path / "cache")


@pytest.fixture
def quiz(tmp_path):
    """A finished result of the quiz, right on "seen" and "new": (result, path, samples' path, items)."""
    items = [{"id": key, "prompt": text} for key, text in QUESTIONS.items()]
    samples = [item | {"correct": item["id"] in ("seen", "new")} for item in items]
    path, samples_path = (epath.Path(tmp_path / name) for name in ("quiz.json", "quiz.samples.jsonl"))
    result = {"task": "quiz", **summarise(samples, items), "settings": {}, "fingerprint": "f", "n": 5}
    write_result(path, result)
    write_lines(samples_path, samples)
    return result, path, samples_path, items


def test_metrics_with_and_without_marked_items(tmp_path, quiz):
    result, path, samples_path, items = quiz
    dataset, places = dialogue_file(tmp_path)
    marks = evaluation_items.mark({"quiz": QUESTIONS}, str(dataset), tmp_path / "cache")["quiz"]
    before = copy.deepcopy(result)
    added = contamination.add(result, path, samples_path, items, marks, metrics_of)
    assert read_result(path) == added
    section = added.pop("contamination")
    assert added == result == before  # the fingerprint above all
    assert (section["n_clean"], section["n_contaminated"], section["n_too_short"]) == (2, 3, 1)
    assert section["metrics_clean"]["accuracy"]["value"] == 1 / 2
    assert section["metrics_contaminated"]["accuracy"]["value"] == 1 / 3
    assert section["metrics_contaminated"]["accuracy"]["n"] == 3
    lengths = [len(QUESTIONS[key]) for key in WHERE]
    assert section["metrics_contaminated"]["length"] == statistics.mean(lengths)
    assert {key: found["where"] for key, found in section["items"].items()} == {k: places[v] for k, v in WHERE.items()}
    assert contamination.metrics({**added, "contamination": section}) == {
        "accuracy (clean)": section["metrics_clean"]["accuracy"],
        "accuracy (contaminated)": section["metrics_contaminated"]["accuracy"],
        "length (clean)": section["metrics_clean"]["length"],
        "length (contaminated)": section["metrics_contaminated"]["length"],
    }
    assert contamination.metrics(before) == {}


def test_no_marked_item_and_then_another_dataset(tmp_path, quiz):
    result, path, samples_path, items = quiz
    dataset = tmp_path / "other.jsonl"
    dataset.write_text(json_rows.line({"messages": DIALOGUES[0]}))
    marks = evaluation_items.mark({"quiz": QUESTIONS}, str(dataset), tmp_path / "cache")["quiz"]
    added = contamination.add(result, path, samples_path, items, marks, metrics_of)
    nothing = {"value": None, "stderr": None, "n": 0}
    assert added["contamination"]["metrics_contaminated"] == {"accuracy": nothing, "length": nothing}
    assert added["contamination"]["metrics_clean"] == result["metrics"]
    written = os.stat(path).st_mtime_ns
    assert contamination.add(read_result(path), path, samples_path, items, marks, metrics_of) == added
    assert os.stat(path).st_mtime_ns == written  # nothing new, nothing written
    marks = evaluation_items.mark({"quiz": QUESTIONS}, str(dialogue_file(tmp_path)[0]), tmp_path / "cache")["quiz"]
    again = contamination.add(read_result(path), path, samples_path, items, marks, metrics_of)
    assert again["contamination"]["n_contaminated"] == 3


def test_real_prompts_in_real_dialogues(lent, tmp_path):
    """Issue 3's known fact: Koala's prompts are in ShareGPT, the questions of Natural Questions are not."""
    koala = {row["id"]: row["prompt"] for _, row in json_rows.read(lent("koala_test_set/koala_test_set.jsonl"))}
    asked = {where: row["question"] for where, row in json_rows.read(lent("nq_open/NQ-open.dev.jsonl"))}
    dump = lent("sharegpt/sharegpt_sample.jsonl.gz")
    marks = evaluation_items.mark({"koala": koala, "nq": asked}, str(dump), tmp_path / "cache")
    assert len(marks["koala"]["items"]) > 0
    assert marks["nq"]["items"] == {}
    read = dict(json_rows.read(dump))
    for found in marks["koala"]["items"].values():
        said = [turn["value"] for turn in read[found["where"]]["conversations"]]
        assert any(found["words"] in normalise.words(text) for text in said)
