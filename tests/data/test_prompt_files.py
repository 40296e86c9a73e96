import gzip
import json

import pytest

from imitation_jax.core.json_rows import Rejected
from imitation_jax.data.prompt_files import read_prompts


def turn(content, role="user"):
    return {"role": role, "content": content}


def test_every_kind_of_row(write, tmp_path):
    path = write(
        tmp_path / "p.jsonl",
        {"id": "a", "instruction": "Translate", "input": "chat", "output": "x"},
        {"id": 7, "prompt": "Why?"},
        {"question_id": 8, "text": "How?"},
        {"messages": [turn("s", "system"), turn("q"), turn("a", "assistant"), turn("r"), turn("gold", "assistant")]},
    )
    assert [item for _, item in read_prompts(path)] == [
        {"id": "a", "messages": [turn("Translate\n\nchat")]},
        {"id": "7", "messages": [turn("Why?")]},
        {"id": "8", "messages": [turn("How?")]},
        {"id": "p.jsonl:4", "messages": [turn("s", "system"), turn("q"), turn("a", "assistant"), turn("r")]},
    ]


def test_a_json_list_reads_as_lines_do(tmp_path):
    path = tmp_path / "p.json"
    path.write_text(json.dumps([{"instruction": "one"}, {"instruction": "two"}], indent=1))
    assert [(item["id"], item["messages"]) for _, item in read_prompts(path)] == [
        ("p.json[0]", [turn("one")]),
        ("p.json[1]", [turn("two")]),
    ]


@pytest.mark.parametrize("opened", [open, gzip.open])
def test_lines_of_a_text_file(tmp_path, opened):
    path = tmp_path / ("p.txt.gz" if opened is gzip.open else "p.txt")
    with opened(path, "wb") as file:
        file.write('one\n\n [two] \r\n{"three": 3}\nca\u2028f\n'.encode() + b"\xff\n" + b"x" * 50 + b"\nlast")
    read = list(read_prompts(path, max_bytes=40))
    assert [where for where, _ in read] == [f"{path}:{n}" for n in (1, 3, 4, 5, 6, 7, 8)]
    kept = [item for _, item in read if not isinstance(item, Rejected)]
    assert [item["messages"][0]["content"] for item in kept] == ["one", "[two]", '{"three": 3}', "ca\u2028f", "last"]
    assert kept[1]["id"] == f"{path.name}:3"
    assert [item.reason for _, item in read if isinstance(item, Rejected)] == [
        "bytes that are not UTF-8",
        "row of more than 40 bytes",
    ]


def test_what_is_no_prompt_is_set_aside_with_its_reason(write, tmp_path):
    bad = {
        "not JSON": "{",
        "needs a text": {"id": "b", "question": "q"},
        "'messages' holds no user turn": {"id": "b", "messages": [turn("a", "assistant")]},
        "'messages' must be a list": {"id": "b", "messages": [turn(None)]},
        "two user turns in a row": {"id": "b", "messages": [turn("q"), turn("q")]},
        'unknown role "tool"': {"id": "b", "messages": [turn("x", "tool"), turn("q")]},
        "empty user turn": {"id": "b", "messages": [turn(" ")]},
    }
    path = write(tmp_path / "p.jsonl", *bad.values(), {"id": "good", "prompt": "p"})
    *rejected, (_, good) = read_prompts(path)
    assert good["id"] == "good"
    for number, (reason, (where, item)) in enumerate(zip(bad, rejected, strict=True), 1):
        assert item.reason.startswith(reason) and "\n" not in item.reason
        assert (where, item.where) == (f"{path}:{number}", f"{path}:{number}")
        assert item.id in ("b", None)


def test_repeated_ids_become_unique_the_same_way_each_time(write, tmp_path):
    path = write(tmp_path / "p.jsonl", *[{"id": "a", "prompt": str(n)} for n in range(3)])
    items = [item for _, item in read_prompts(path)]
    assert [(item["id"], item.get("original_id")) for item in items] == [("a", None), ("a#2", "a"), ("a#3", "a")]
    assert items == [item for _, item in read_prompts(path)]
