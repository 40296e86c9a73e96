"""Channels as DiscordChatExporter writes them, by hand."""

import datetime
import gzip
import json
import tracemalloc

import pytest

from imitation_jax.core import json_rows
from imitation_jax.core.json_rows import Rejected
from imitation_jax.data import dialogues
from imitation_jax.data.sources import discord

START = datetime.datetime(2023, 4, 1, tzinfo=datetime.UTC)


def message(number, author, content, to=None, minute=None, **more):
    """Message `m<number>`, one a minute; authors whose name begins with "bot" are bots; `to` a message's number."""
    time = START + datetime.timedelta(minutes=number if minute is None else minute)
    row = {
        "id": f"m{number}",
        "type": "Default" if to is None else "Reply",
        "timestamp": time.isoformat(),
        "content": content,
        "author": {"id": author, "name": f"name of {author}", "isBot": author.startswith("bot"), "roles": []},
        "embeds": [],
        "mentions": [],
    }
    if to is not None:
        row["reference"] = {"messageId": f"m{to}", "channelId": "c", "guildId": "g"}
    return row | more


def export(tmp_path, *messages, name="c.json"):
    channel = {"id": "c", "type": "GuildTextChat", "name": "chat-gpt"}
    content = {"guild": {"id": "g", "name": "Server"}, "channel": channel, "messages": messages, "messageCount": 3}
    path = tmp_path / name
    text = json.dumps(content, indent=2).encode()
    path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    return str(path)


def read(*paths):
    """The dialogues as texts, and why which messages were set aside."""
    items = [item for _, item in discord.read(paths)]
    kept = [item for item in items if not isinstance(item, Rejected)]
    for dialogue in kept:
        dialogues.check(dialogue)
    talks = {item["id"]: [turn["content"] for turn in item["messages"]] for item in kept}
    return talks, {item.id: item.reason for item in items if isinstance(item, Rejected)}


def test_a_question_and_its_answer(tmp_path):
    path = export(tmp_path, message(0, "ann", "Why?"), message(1, "bot", "So.", to=0))
    assert list(discord.read([path])) == [
        (
            f"{path}[0]",
            {
                "id": "m0",
                "source": "discord",
                "messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}],
                "message_ids": ["m0", "m1"],
                "guild": "Server",
                "channel": "chat-gpt",
            },
        )
    ]


def test_threads_through_references_are_kept_apart(tmp_path):
    path = export(
        tmp_path,
        message(0, "ann", "a"),
        message(1, "bob", "b"),
        message(2, "bot", "to b", to=1),
        message(3, "bot", "to a", to=0),
        message(4, "bob", "b again", to=2),
        message(900, "bob", "much later", to=3),
        message(901, "bot", "to that", to=900),
        message(902, "bot", "to b again", to=4),
    )
    assert read(path) == (
        {"m0": ["a", "to a", "much later", "to that"], "m1": ["b", "to b", "b again", "to b again"]},
        {},
    )


def test_threads_by_adjacency(tmp_path):
    path = export(
        tmp_path,
        message(0, "ann", "a"),
        message(1, "bot", "to a"),
        message(2, "ann", "and?"),
        message(3, "bot", "so"),
        message(4, "bob", "not ann"),
        message(5, "bot", "to bob"),
        message(60, "bob", "an hour later"),
        message(61, "bot", "new"),
    )
    assert read(path) == (
        {"m0": ["a", "to a", "and?", "so"], "m4": ["not ann", "to bob"], "m60": ["an hour later", "new"]},
        {},
    )


def test_what_one_author_writes_in_a_row_is_one_turn(tmp_path):
    path = export(
        tmp_path,
        message(0, "ann", "one"),
        message(1, "ann", "two"),
        message(2, "bot", "first part", to=1),
        message(3, "bot", "second part", to=1),
        message(4, "bot", "third part"),
        message(5, "ann", "thanks"),
        message(6, "bot", "!"),
    )
    parts = "first part\nsecond part\nthird part"
    assert read(path) == ({"m0": ["one\ntwo", parts, "thanks", "!"]}, {})


def test_every_other_message_is_set_aside_with_its_reason(tmp_path):
    path = export(
        tmp_path,
        message(0, "bot", "hello all"),
        message(1, "ann", "nobody answers"),
        message(20, "bob", "b"),
        message(21, "cyd", "c"),
        message(22, "bot", "to b", to=20),
        message(23, "bot2", "to b too", to=20),
        message(24, "bob", "reply", to=999),
        message(25, "ann", "", attachments=[{}]),
        message(26, "bot", "about the picture?"),
        message(27, "ann", "joined", type="GuildMemberJoin"),
        message(28, "bot", "last", to=21),
        message(21, "cyd", "c"),
        message(29, "cyd", "unanswered", to=28),
        message(30, "ann", "\ud800"),
        {"type": "Default"},
        message(31, "ann", "q") | {"author": None},
    )
    talks, reasons = read(path)
    assert talks == {"m20": ["b", "to b"], "m21": ["c", "last"]}
    assert reasons == {
        "m0": "a bot's message that answers nobody here",
        "m1": "a message that no bot answered",
        "m23": "another reply to a message that has one",
        "m24": "a reply to a message that is not here",
        "m25": "a message without text",
        "m26": "a bot's message that answers nobody here",
        "m27": 'a notice of type "GuildMemberJoin"',
        "m21": "a message id that came before",
        "m29": "a message that no bot answered",
        "m30": "content with half a surrogate pair, which UTF-8 cannot hold",
        None: "a message without an id",
        "m31": "a message without an author's id",
    }


def test_mentions_of_bots_go_and_embeds_are_read(tmp_path):
    bot = {"id": "bot", "name": "chat", "nickname": "Chat GPT", "isBot": True}
    path = export(
        tmp_path,
        message(0, "ann", "@Chat GPT what does @chat mean?", mentions=[bot]),
        message(1, "bot", "", embeds=[{"description": "It"}, {"title": "x"}, {"description": "is you."}], to=0),
        message(2, "ann", "@Chat GPT", mentions=[bot]),
    )
    talks, reasons = read(path)
    assert talks == {"m0": ["what does @chat mean?", "It\nis you."]}
    assert reasons == {"m2": "a message without text"}


def test_overlapping_exports_and_other_files(tmp_path):
    talk = [message(0, "ann", "a"), message(1, "bot", "b")]
    first, again = export(tmp_path, *talk), export(tmp_path, *talk, name="d.json.gz")
    (tmp_path / "list.json").write_text('[{"id": 1}]')
    items = [item for _, item in discord.read([first, str(tmp_path / "list.json"), again])]
    assert [item["id"] for item in (items[0], items[2])] == ["m0", "m0#2"]
    assert items[1].reason == "no list under 'messages'"


def test_a_damaged_message_leaves_those_before_it(tmp_path):
    path = export(tmp_path, *(message(n, "bot" if n % 2 else "ann", f"text {n}") for n in range(40)))
    text = (tmp_path / "c.json").read_text()
    for old, new in [('text 20"', "text 20"), ('"id": "m20"', '"id": m20'), ('"embeds": []', '"embeds": [}')]:
        at = text.index(old, text.index('"id": "m20"'))
        (tmp_path / "c.json").write_text(text[:at] + new + text[at + len(old) :])
        items = [item for _, item in discord.read([path])]
        kept = [key for item in items if isinstance(item, dict) for key in item["message_ids"]]
        assert sorted(kept) == sorted(f"m{n}" for n in range(20))
        (bad,) = (item for item in items if isinstance(item, Rejected))
        assert all(f"text {n}" in bad.row for n in range(20, 40))


def test_a_long_channel_is_read_in_bounded_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(discord, "OPEN_MESSAGES", 100)
    monkeypatch.setattr(json_rows, "CHUNK", 2**16)
    path = tmp_path / "long.json"
    count = 6_000
    with open(path, "w") as file:
        file.write('{"channel": {"name": "long"}, "messages": [\n')
        for n in range(0, count, 2):
            pair = message(n, "ann", f"q{n}" * 200, minute=20 * n), message(n + 1, "bot", "a", to=n)
            file.write(",\n".join(map(json.dumps, pair)) + (",\n" if n + 2 < count else "\n"))
        file.write("]}")
    tracemalloc.start()
    ids = [key for _, item in discord.read([str(path)]) for key in item["message_ids"]]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert ids == [f"m{n}" for n in range(count)]
    assert peak < path.stat().st_size / 2


@pytest.mark.parametrize("time", [None, 5, "", "yesterday", "0001-01-01T00:00:00+14:00", "2023-04-01T00:01:00"])
def test_any_time_will_do(tmp_path, time):
    path = export(tmp_path, message(0, "ann", "a"), message(1, "bot", "b", to=0) | {"timestamp": time})
    assert read(path) == ({"m0": ["a", "b"]}, {})
