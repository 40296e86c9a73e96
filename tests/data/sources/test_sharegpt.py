import gzip
import json
import re

import pytest

from imitation_jax.core.json_rows import Rejected
from imitation_jax.data import dialogues
from imitation_jax.data.sources import sharegpt

H, G = {"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}


def read(tmp_path, *rows, name="d.json"):
    path = tmp_path / name
    path.write_text(json.dumps(rows) if name == "d.json" else "".join(json.dumps(row) + "\n" for row in rows))
    return [item for _, item in sharegpt.read([str(path)])]


@pytest.mark.parametrize("name", ["d.json", "d.jsonl"])
def test_roles_and_further_keys(tmp_path, name):
    (item,) = read(
        tmp_path,
        {
            "id": "t_0",
            "lang": "en",
            "conversations": [{"from": "system", "value": "s"}, H, G | {"markdown": None}],
        },
        name=name,
    )
    assert item == {
        "id": "t_0",
        "source": "sharegpt",
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": "a", "markdown": None},
        ],
        "lang": "en",
    }


def test_a_rows_own_messages_do_not_overwrite_the_converted_turns(tmp_path):
    other = {"messages": [{"role": "user", "content": "raw"}], "items": ["tag"], "leading_turn_dropped": "yes"}
    (item,) = read(tmp_path, {"id": "a", "conversations": [H, G]} | other)
    assert [message["content"] for message in item["messages"]] == ["q", "a"]
    assert item["items"] == ["tag"] and "leading_turn_dropped" not in item


@pytest.mark.parametrize("model", ["gpt", "chatgpt", "bing", "bard", "assistant"])
@pytest.mark.parametrize("key", ["conversations", "items", "messages"])
def test_names_of_the_model_and_of_the_turns(tmp_path, model, key):
    (item,) = read(tmp_path, {"id": "a", key: [{"from": "user", "value": "q"}, {"from": model, "value": "a"}]})
    assert [message["role"] for message in item["messages"]] == ["user", "assistant"]


def test_a_leading_model_turn_is_dropped_and_said_so(tmp_path):
    first, second, third = read(
        tmp_path,
        {"id": "a", "conversations": [G, H, G]},
        {"id": "b", "conversations": [{"from": "system", "value": "s"}, G, H, G]},
        {"id": "c", "conversations": [G]},
    )
    assert first["leading_turn_dropped"] and [m["role"] for m in first["messages"]] == ["user", "assistant"]
    assert second["leading_turn_dropped"] and [m["role"] for m in second["messages"]] == ["system", "user", "assistant"]
    assert isinstance(third, Rejected) and third.row == {"id": "c", "conversations": [G]}


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ([], "no messages"),
        (None, "no messages"),
        (["x"], "a message that is not an object"),
        ([H, {"from": "xyz", "value": "a"}], 'unknown role "xyz"'),
        ([H, {"from": ["gpt"], "value": "a"}], "unknown role \"['gpt']\""),
        ([H, {"value": "a"}], "a message without a role"),
        ([H, {"from": "gpt", "value": 5}], "content that is not text"),
        ([H, {"from": "gpt", "value": ""}], "empty assistant turn"),
        ([H, H, G], "two user turns in a row"),
        ([H, G, G], "two assistant turns in a row"),
        ([H], "no assistant turn"),
    ],
)
def test_what_is_set_aside_keeps_its_row_and_reason(tmp_path, turns, reason):
    row = {"id": "a", "conversations": turns}
    bad, good = read(tmp_path, row, {"id": "b", "conversations": [H, G]})
    assert (bad.reason, bad.id, bad.row) == (reason, "a", row)
    assert good["id"] == "b"


def test_repeated_and_missing_ids_become_unique(tmp_path):
    talk = {"conversations": [H, G]}
    items = read(tmp_path, {"id": "a"} | talk, {"id": "a#2"} | talk, {"id": "a"} | talk, talk, {"id": 7} | talk)
    assert [item["id"] for item in items] == ["a", "a#2", "a#3", "d.json[3]", "7"]
    assert [item.get("original_id") for item in items] == [None, None, "a", None, None]


def test_a_rejected_row_does_not_use_up_its_id(tmp_path):
    _, good = read(tmp_path, {"id": "a", "conversations": []}, {"id": "a", "conversations": [H, G]})
    assert good["id"] == "a"


def test_lent_sample_is_accounted_for_row_by_row(lent):
    path = lent("sharegpt/sharegpt_sample.jsonl.gz")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        raw = [json.loads(line) for line in file]
    read = list(sharegpt.read([str(path)]))
    assert [where for where, _ in read] == [f"{path}:{n + 1}" for n in range(len(raw))]
    kept = [item for _, item in read if isinstance(item, dict)]
    assert len({item["id"] for item in kept}) == len(kept) > 0.95 * len(raw)
    counters = 0
    for row, (_, item) in zip(raw, read, strict=True):
        texts = [turn["value"] for turn in row["conversations"]]
        if isinstance(item, dict) and "artefact_turns" in item:
            texts = [re.sub(r"\s*\n\s*(\d) / \1\s*\Z", "", text) for text in texts]
            counters += item["artefact_turns"]
        if isinstance(item, Rejected):
            assert item.row == row
        else:
            dialogues.check(item)
            texts = texts[item.get("leading_turn_dropped", False) :]
            same = [message["content"] for message in item["messages"]] == texts  # a diff would print the texts
            assert same, item["id"]
            assert "html_turns" not in item
    assert counters == 15
