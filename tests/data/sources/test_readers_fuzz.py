"""Damaged files and odd rows for every reader: no error, no row unaccounted for, what was not touched arrives."""

import gzip
import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imitation_jax.core import json_rows
from imitation_jax.core.json_rows import Rejected
from imitation_jax.data import dialogues
from imitation_jax.data.prompt_files import read_prompts
from imitation_jax.data.sources import alpaca, discord, hc3, messages, sharegpt

ROWS = 12
# What tempts a reader: pieces of JSON inside of texts, line breaks of all kinds, HTML.
WORDS = ["one", "two", '"', "\\", "}", "]", '}, {"id": 1', "[", "{", ",", "\n", "\u2028", "é", "😀", "<div>", "\x00"]
PAGE = (
    '<div class="markdown prose"><p>{}</p><pre><div><span>python</span><button>Copy code</button></div><code>x</code>'
)
BYTES = [b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"\n", b"\x00", b"\xff", b"\xed\xa0\x80", b"1e999", b"</div>"]
BYTES += [b'"id": ', b"NaN", b"\\ud800", b"  ", b"[[[[[[[[", b'"}]', b"}}", b"]}", b'{"id": "r0", "messages": []}']


def words(draw, number):
    """A text with the row's mark in it."""
    return " ".join([*draw.choices(WORDS, k=draw.randint(0, 9)), f"mark{number}x", *draw.choices(WORDS, k=5)])


def of_messages(draw, number):
    turns = [("user", words(draw, number)), ("assistant", words(draw, number))] * draw.randint(1, 2)
    return {"id": f"r{number}", "source": "s", "messages": [{"role": role, "content": text} for role, text in turns]}


def of_sharegpt(draw, number):
    answer = PAGE.format(f"mark{number}x") + "</div>" if draw.random() < 0.3 else words(draw, number)
    turns = [("human", words(draw, number)), ("gpt", answer)] * draw.randint(1, 2)
    return {"id": f"r{number}", "conversations": [{"from": who, "value": text} for who, text in turns]}


def of_hc3(draw, number):
    answers = [words(draw, number) for _ in range(draw.randint(1, 2))]
    human = words(draw, "")
    return {"question": words(draw, number), "human_answers": [human], "chatgpt_answers": answers, "id": f"r{number}"}


def of_alpaca(draw, number):
    return {"instruction": words(draw, number), "input": "", "output": words(draw, number), "id": f"r{number}"}


def of_discord(draw, number):
    """Questions with their answers; a message is a row."""
    row = {"id": f"r{number}", "type": "Default", "timestamp": f"2023-04-01T00:{number:02}:00+00:00"}
    author = {"id": "7", "name": "bot", "isBot": True} if number % 2 else {"id": f"u{number}", "isBot": False}
    row |= {"content": words(draw, number), "author": author, "mentions": [{"id": "8", "name": "x", "isBot": True}] * 2}
    return row | ({"type": "Reply", "reference": {"messageId": f"r{number - 1}"}} if number % 2 else {})


def one(read):
    return lambda path: [item for _, item in read(str(path))]


def many(source):
    return lambda path: [item for _, item in source.read([str(path)])]


READERS = {
    "sharegpt": (of_sharegpt, many(sharegpt)),
    "hc3": (of_hc3, many(hc3)),
    "alpaca": (of_alpaca, many(alpaca)),
    "messages": (of_messages, many(messages)),
    "dialogues": (of_messages, one(dialogues.read)),
    "prompts": (lambda draw, number: of_alpaca(draw, number) | {"output": "no prompt"}, one(read_prompts)),
    "text": (lambda draw, number: words(draw, number).replace("\n", " "), one(read_prompts)),
    "discord": (of_discord, many(discord)),
}


def written(draw, name):
    """A file's name, its bytes, and where in them each row stands."""
    make = READERS[name][0]
    made = [make(draw, number) for number in range(ROWS)]
    if name == "text":
        return "f.txt", *joined(b"", [row.encode() for row in made], b"\n", b"\n")
    dumps = json.JSONEncoder(ensure_ascii=draw.random() < 0.5).encode
    if name != "discord" and draw.random() < 0.4:
        return "f.jsonl", *joined(b"", [dumps(row).encode() for row in made], b"\n", b"\n")
    before, after = b"", b""
    if name == "discord":
        before, after = b'{"guild": {"id": "1", "name": "g"}, "messages": ', b', "messageCount": 12}'
    if draw.random() < 0.6:  # with line breaks, as Discord's exporter writes
        lines = json.JSONEncoder(ensure_ascii=False, indent=2).encode
        encoded = [lines(row).replace("\n", "\n    ").encode() for row in made]
        return "f.json", *joined(before + b"[\n    ", encoded, b",\n    ", b"\n  ]" + after)
    return "f.json", *joined(before + b"[", [dumps(row).encode() for row in made], b", ", b"]" + after)


def joined(before, encoded, between, after):
    content, places = bytearray(before), []
    for row in encoded:
        places.append((len(content), len(content) + len(row)))
        content += row + between
    return bytes(content[: len(content) - len(between)] + after), places


def damaged(draw, content, begin):
    """`content` with one to three pieces of it, behind `begin`, cut out, replaced, added to or doubled; and where."""
    touched = []
    for place in sorted((draw.randrange(begin, len(content)) for _ in range(draw.randint(1, 3))), reverse=True):
        size = draw.choice([0, 1, 1, 2, draw.randint(3, 40)])
        if touched and place + size > touched[-1][0]:
            continue
        piece = content[place : place + size]
        new = draw.choice([b"", draw.choice(BYTES), bytes([draw.randrange(256)]), piece + piece])
        content = content[:place] + new + content[place + size :]
        touched.append((place, place + size))
    return content, touched


def untouched(places, touched):
    """The rows that nothing reached, nor the separators beside them."""
    ends = [0, *(end for _, end in places)]
    begins = [*(begin for begin, _ in places[1:]), 1 << 60]
    return {
        number
        for number, (before, after) in enumerate(zip(ends, begins, strict=False))
        if all(stop <= before or start >= after for start, stop in touched)
    }


def checked(items, kind):
    """The kept items' messages as texts; looks at every item on the way."""
    kept = [item for item in items if not isinstance(item, Rejected)]
    for item in kept:
        asked = [*item["messages"], {"role": "assistant", "content": "a"}]
        dialogues.check({"messages": asked} if kind in ("prompts", "text") else item)
        json_rows.line(item).encode("utf-8")
    for item in items:
        if isinstance(item, Rejected):
            assert item.reason and "\n" not in item.reason
            assert json.loads(item.line())["where"] == item.where
    assert kind == "dialogues" or len({item["id"] for item in kept}) == len(kept)
    # A message of Discord's is a turn, elsewhere a row is a dialogue.
    parts = [turn for item in kept for turn in (item["messages"] if kind == "discord" else [item["messages"]])]
    return [json.dumps(part, sort_keys=True) for part in parts]


def set_aside_whole(items):
    """The ids of the rows that could be read, but not used."""
    return {item.row.get("id") for item in items if isinstance(item, Rejected) and isinstance(item.row, dict)}


def whole_text(items):
    return "\n".join(item.line() if isinstance(item, Rejected) else json.dumps(item) for item in items)


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("files", [60, pytest.param(10_000 // len(READERS), marks=pytest.mark.slow)])
def test_damage_stays_where_it_is(tmp_path, kind, files):
    read = READERS[kind][1]
    for seed in range(files):
        draw = random.Random(f"{kind} {seed}")
        name, content, places = written(draw, kind)
        path = tmp_path / name
        path.write_bytes(content)
        before = checked(read(path), kind)
        expected = [[text for text in before if f"mark{number}x" in text] for number in range(ROWS)]
        assert all(expected), (kind, seed)

        content, touched = damaged(draw, content, places[0][0])
        path.write_bytes(content)
        items = read(path)
        kept, out = checked(items, kind), whole_text(items)
        whole = untouched(places, touched)
        if name == "f.json":  # a list is read up to its damage
            whole = {number for number in whole if places[number][1] <= min(touched)[0]}
        for number in whole:
            # A message whose partner is damaged is part of no dialogue any more.
            alone = kind == "discord" and f"r{number}" in set_aside_whole(items)
            assert alone or set(expected[number]) <= set(kept), (kind, seed, number)
        for number in range(ROWS):
            assert f"mark{number}x" in out or f"mark{number}x".encode() not in content, (kind, seed, number)


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("files", [30, pytest.param(200, marks=pytest.mark.slow)])
def test_damage_to_a_packed_file_is_said(tmp_path, kind, files):
    read = READERS[kind][1]
    for seed in range(files):
        draw = random.Random(f"{kind} {seed}")
        name, content, _ = written(draw, kind)
        path = tmp_path / (name + ".gz")
        packed = gzip.compress(content, mtime=0)
        path.write_bytes(packed)
        before = read(path)
        assert not any(isinstance(item, Rejected) for item in before)
        packed, _ = damaged(draw, packed, 0)
        path.write_bytes(packed)
        items = read(path)
        checked(items, kind)
        assert items == before or any(isinstance(item, Rejected) for item in items), (kind, seed)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["user", "human"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "from", "value", "id", "isBot", "messageId", "description", "name"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
KEYS = ["id", "source", "messages", "conversations", "items", "question", "chatgpt_answers", "instruction", "input"]
KEYS += ["output", "prompt", "text", "question_id", "type", "timestamp", "author", "content", "embeds", "mentions"]
odd_rows = st.lists(st.dictionaries(st.sampled_from([*KEYS, "reference"]), values, max_size=6), max_size=6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("odd")


@settings(max_examples=150, deadline=None)
@given(odd_rows, st.sampled_from(["sharegpt", "alpaca", "messages", "dialogues", "prompts"]))
def test_any_json_gives_one_item_a_row(folder, made, kind):
    (folder / "f.jsonl").write_text("".join(map(json_rows.line, made)), encoding="utf-8")
    items = READERS[kind][1](folder / "f.jsonl")
    checked(items, kind)
    assert len(items) == len(made)


@settings(max_examples=150, deadline=None)
@given(odd_rows)
def test_any_json_is_accounted_for_where_rows_and_dialogues_differ(folder, made):
    path = folder / "f.jsonl"
    path.write_text("".join(map(json_rows.line, made)), encoding="utf-8")
    found = list(hc3.read([str(path)]))
    checked([item for _, item in found], "hc3")
    assert list(dict.fromkeys(where for where, _ in found)) == [f"{path}:{n + 1}" for n in range(len(made))]

    path = folder / "f.json"
    path.write_text(json.dumps({"messages": made}), encoding="utf-8")
    found = [item for _, item in discord.read([str(path)])]
    checked(found, "discord")
    assert sum(1 if isinstance(item, Rejected) else len(item["message_ids"]) for item in found) == len(made)


@settings(max_examples=150, deadline=None)
@given(
    st.text(max_size=60)
    | st.lists(st.sampled_from(["<p>", "</p>", "<", "<pre>", "<!--", "<![CDATA[", "&", "x", "</div>"])),
    st.booleans(),
)
def test_any_html_is_converted_or_left(folder, pieces, boxed):
    html = '<div class="markdown prose">' * boxed + "".join(pieces) + "</div>" * boxed
    row = {"id": "a", "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": html}]}
    (folder / "f.jsonl").write_text(json_rows.line(row), encoding="utf-8")
    items = READERS["sharegpt"][1](folder / "f.jsonl")
    checked(items, "sharegpt")
    assert len(items) == 1
