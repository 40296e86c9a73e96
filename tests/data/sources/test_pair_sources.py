"""Sources of questions with answers: Alpaca's, HC3's, and `messages` files."""

import gzip
import json

import pytest

from imitation_jax.core.json_rows import Rejected
from imitation_jax.data.sources import alpaca, hc3, messages


def dump(tmp_path, *rows, name="d.jsonl"):
    path = tmp_path / name
    text = json.dumps(rows, indent=1) if ".jsonl" not in name else "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return str(path)


def talk(question, answer):
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def read(source, *paths, **kwargs):
    return [item for _, item in source.read(paths, **kwargs)]


def reasons(items):
    return [item.reason for item in items if isinstance(item, Rejected)]


@pytest.mark.parametrize("name", ["d.json", "d.jsonl", "d.json.gz", "d.jsonl.gz"])
def test_alpaca_rows_of_each_kind_of_file(tmp_path, name):
    rows = [
        {"instruction": "Add", "input": "1 and 2", "output": "3", "text": "the whole prompt"},
        {"id": 5, "instruction": "Greet", "input": "", "output": "Hi", "source": "mine"},
        {"instruction": "Greet", "output": "Hi"},
    ]
    items = read(alpaca, dump(tmp_path, *rows, name=name))
    place = "{}:1" if "jsonl" in name else "{}[0]"
    assert items[0] == {
        "id": place.format(name),
        "source": "alpaca",
        "messages": talk("Add\n\n1 and 2", "3"),
        "text": "the whole prompt",
    }
    assert items[1] == {"id": "5", "source": "mine", "messages": talk("Greet", "Hi")}
    assert items[2]["messages"] == talk("Greet", "Hi")


def test_alpaca_rows_that_lack_something_are_set_aside_whole(tmp_path):
    bad = [{"id": "b", "instruction": " ", "output": "x"}, {"id": "b", "instruction": "x"}, {"instruction": 1}]
    bad += [{"instruction": "x", "output": "y", "input": ["z"]}, {"instruction": "\ud800", "output": "y"}]
    items = read(alpaca, dump(tmp_path, *bad, {"id": "b", "instruction": "q", "output": "a"}))
    assert [item.row for item in items[:-1]] == bad and items[0].id == "b"
    assert reasons(items) == [
        "no text under 'instruction'",
        "no text under 'output'",
        "no text under 'instruction'",
        "an 'input' that is not text",
        "content with half a surrogate pair, which UTF-8 cannot hold",
    ]
    assert items[-1]["id"] == "b"


def test_hc3_gives_one_dialogue_for_each_answer_of_chatgpts(tmp_path):
    row = {"question": "Why?", "human_answers": ["h"], "chatgpt_answers": ["a", "b"], "source": "finance", "index": 3}
    path = dump(tmp_path, row, row | {"id": "x"}, row | {"id": "x", "chatgpt_answers": ["c"]})
    found = list(hc3.read([path]))
    assert [where for where, _ in found] == [f"{path}:{n}" for n in (1, 1, 2, 2, 3)]
    items = [item for _, item in found]
    assert items[0] == {
        "id": "d.jsonl:1_0",
        "source": "hc3",
        "messages": talk("Why?", "a"),
        "hc3_source": "finance",
        "index": 3,
    }
    assert [item["id"] for item in items[1:]] == ["d.jsonl:1_1", "x_0", "x_1", "x_0#2"]
    assert items[1]["messages"] == talk("Why?", "b") and items[4]["original_id"] == "x_0"


def test_hc3_rows_and_answers_that_are_none_are_set_aside_alone(tmp_path):
    bad = [{"question": "q", "human_answers": ["h"]}, {"question": "q", "chatgpt_answers": []}]
    bad += [{"question": "", "chatgpt_answers": ["a"]}]
    mixed = {"id": "m", "question": "q", "chatgpt_answers": ["a", "", None, "b"]}
    path = dump(tmp_path, *bad, mixed)
    found = list(hc3.read([path]))
    assert [where.rpartition(":")[2] for where, _ in found] == ["1", "2", "3", "4", "4", "4", "4"]
    items = [item for _, item in found]
    assert [item.row for item in items[:3]] == bad
    assert reasons(items) == [
        "no list of answers under 'chatgpt_answers'",
        "no list of answers under 'chatgpt_answers'",
        "no text under 'question'",
        "empty assistant turn",
        "content that is not text",
    ]
    assert (items[3]["id"], items[6]["id"]) == ("m_0", "m_3")
    assert [(item.id, item.row) for item in items[4:6]] == [("m_1", mixed), ("m_2", mixed)]


def test_messages_of_several_files_get_ids_of_their_own(tmp_path):
    row = {"id": "a", "source": "s", "messages": talk("q", "a"), "score": [1]}
    first = dump(tmp_path, row, {"messages": talk("q", "a")}, {"id": "bad", "messages": []})
    second = dump(tmp_path, row, {"id": 7, "messages": talk("q", "a")}, name="e.json.gz")
    items = read(messages, first, second)
    assert items[0] == row
    assert [(item["id"], item["source"]) for item in items if isinstance(item, dict)] == [
        ("a", "s"),
        ("d.jsonl:2", "d.jsonl"),
        ("a#2", "s"),
        ("7", "e.json.gz"),
    ]
    assert reasons(items) == ["no messages"]


@pytest.mark.parametrize("source", [alpaca, hc3, messages])
def test_a_long_row_is_set_aside(tmp_path, source):
    big = {
        "instruction": "x" * 500,
        "output": "y",
        "question": "q",
        "chatgpt_answers": ["a"],
        "messages": talk("q", "a"),
    }
    small = big | {"instruction": "x"}
    items = read(source, dump(tmp_path, big, small), max_bytes=400)
    assert reasons(items) == ["row of more than 400 bytes"] and isinstance(items[1], dict)
