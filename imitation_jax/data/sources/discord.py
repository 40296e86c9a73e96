"""DiscordChatExporter's JSON, one channel a file -> dialogues of users with bots."""

import dataclasses
import datetime
import itertools
from collections import OrderedDict
from collections.abc import Iterable, Iterator

from imitation_jax.core import json_rows
from imitation_jax.core.json_rows import Rejected
from imitation_jax.data import dialogues

TYPES = ("Default", "Reply")  # the others are notices: somebody joined, a message was pinned
RIGHT_BEFORE = datetime.timedelta(minutes=10)
OPEN_MESSAGES = 5_000  # so many messages back can be replied to: what is older is done with, and memory bounded


def read(paths: Iterable[str], max_bytes: int = json_rows.MAX_BYTES) -> Iterator[tuple[str, dict | Rejected]]:
    """Yields (where, dialogue or Rejected) of the exported channels; every message is in exactly one of them.

    A bot's message answers the one that it references, or else the user's message right before it. A user's message
    goes on with the dialogue whose answer it references, or else that of the answer to the same user right before it,
    and begins one of its own where there is none. "Right before" is next to it and within ten minutes. What one author
    writes so in a row is one turn. Of several replies to one message the first counts.

    A dialogue has the first message's place and id, the `message_ids` of all its messages, `guild` and `channel`. The
    authors' names are left out, and so is the mention of a bot that a question begins with. An empty message of a bot
    is what its embeds describe. Dialogues come when they end, not in the order of their places.

    Args:
      paths: JSON files as exported, gzipped or not.
      max_bytes: longer messages are set aside.
    """
    seen: set[str] = set()
    for path in paths:
        read = json_rows.read_inside(path, "messages", max_bytes)
        where, head = next(read)
        if isinstance(head, Rejected):
            yield where, head
            continue
        about = {name: head[name].get("name") for name in ("guild", "channel") if isinstance(head.get(name), dict)}
        for item in _read_channel(read):
            if isinstance(item, Rejected):
                yield item.where, item
            else:
                place, dialogue = item
                yield place, dialogues.with_own_id(dialogue | about, seen)


@dataclasses.dataclass(frozen=True, eq=False)
class _Message:
    where: str
    row: dict
    number: int
    id: str
    author: str
    is_bot: bool
    time: datetime.datetime | None
    replies_to: str | None  # a message's id, "" if that is unknown
    text: str

    def rejected(self, reason: str) -> Rejected:
        return Rejected(self.where, self.id, reason, self.row)


Turns = list[list[_Message]]  # a user's and a bot's in turn


def _read_channel(read: Iterable[tuple[str, dict | Rejected]]) -> Iterator[tuple[str, dict] | Rejected]:
    threads = _Threads()
    for number, (where, row) in enumerate(read):
        if isinstance(row, Rejected):
            threads.last = None
            yield row
            continue
        try:
            threads.add(_message(where, number, row))
        except ValueError as error:
            threads.last = None
            yield Rejected(where, row.get("id"), str(error), row)
        for turns in threads.older_than(number - OPEN_MESSAGES):
            yield from _dialogue(turns)
    for turns in threads.older_than(None):
        yield from _dialogue(turns)


class _Threads:
    """The dialogues that may go on."""

    def __init__(self):
        self.last: _Message | None = None  # the one before in the channel, if it is part of a dialogue
        self._of: dict[str, Turns] = {}  # by the ids of their messages
        self._open: OrderedDict[str, Turns] = OrderedDict()  # by the first one's id; what grew last is last

    def add(self, message: _Message) -> None:
        """Raises ValueError, in one line, if it belongs nowhere."""
        if message.id in self._of:
            raise ValueError("a message id that came before")
        turns = self._turns_of(message)
        if turns and turns[-1][-1].author == message.author:
            turns[-1].append(message)
        else:
            turns.append([message])
        self._of[message.id] = turns
        self._open[turns[0][0].id] = turns
        self._open.move_to_end(turns[0][0].id)
        self.last = message

    def older_than(self, number: int | None) -> Iterator[Turns]:
        """Takes out the dialogues without a message since `number`; all of them for None."""
        while self._open:
            first, turns = next(iter(self._open.items()))
            if number is not None and turns[-1][-1].number >= number:
                return
            del self._open[first]
            for message in itertools.chain(*turns):
                del self._of[message.id]
            yield turns

    def _turns_of(self, message: _Message) -> Turns:
        """The turns that the message adds to."""
        before = self._right_before(message)
        if message.replies_to is None:
            turns = self._of[before.id] if before else []
            # A bot goes on after itself and any user, a user after herself and her own answer.
            partners = {before.author, turns[-2][-1].author if len(turns) > 1 else ""} if before else set()
            if before and (message.author in partners or (message.is_bot and not before.is_bot)):
                return turns
        else:
            turns = self._of.get(message.replies_to)
            if turns is None:
                raise ValueError("a reply to a message that is not here")
            replied = next(m for m in itertools.chain(*turns) if m.id == message.replies_to)
            goes_on = before and before.author == message.author and before.replies_to == message.replies_to
            if goes_on and self._of[before.id] is turns:
                return turns
            if replied.is_bot != message.is_bot:
                if replied not in turns[-1]:
                    raise ValueError("another reply to a message that has one")
                return turns
        if message.is_bot:
            raise ValueError("a bot's message that answers nobody here")
        return []

    def _right_before(self, message: _Message) -> _Message | None:
        last = self.last
        near = last and last.time and message.time and abs(message.time - last.time) <= RIGHT_BEFORE
        return last if near and last is self._of[last.id][-1][-1] else None


def _message(where: str, number: int, row: dict) -> _Message:
    """Raises ValueError, in one line, if it can be no part of a dialogue."""
    author, kind = row.get("author"), row.get("type")
    if not isinstance(row.get("id"), str) or not row["id"]:
        raise ValueError("a message without an id")
    if kind not in TYPES:
        raise ValueError(f'a notice of type "{dialogues.shown(kind)}"')
    if not isinstance(author, dict) or not isinstance(author.get("id"), str):
        raise ValueError("a message without an author's id")
    is_bot = author.get("isBot") is True
    text = _text(row, is_bot)
    if not text:
        raise ValueError("a message without text")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("content with half a surrogate pair, which UTF-8 cannot hold") from None
    try:
        time = datetime.datetime.fromisoformat(row["timestamp"])
        time = time if time.tzinfo else time.replace(tzinfo=datetime.UTC)
    except (KeyError, TypeError, ValueError):
        time = None
    reference = row.get("reference")
    replied = reference.get("messageId") if isinstance(reference, dict) else None
    replies_to = replied if isinstance(replied, str) else "" if kind == "Reply" else None
    return _Message(where, row, number, row["id"], author["id"], is_bot, time, replies_to, text)


def _text(row: dict, is_bot: bool) -> str:
    text = row["content"].strip() if isinstance(row.get("content"), str) else ""
    if is_bot:
        embeds = row.get("embeds") if isinstance(row.get("embeds"), list) else []
        described = [embed.get("description") for embed in embeds if isinstance(embed, dict)]
        return text or "\n".join(part for part in described if isinstance(part, str)).strip()
    for mention in row.get("mentions") if isinstance(row.get("mentions"), list) else []:
        if isinstance(mention, dict) and mention.get("isBot") is True:
            for name in (mention.get("nickname"), mention.get("name")):
                text = text.removeprefix(f"@{name}").lstrip() if isinstance(name, str) and name else text
    return text


def _dialogue(turns: Turns) -> Iterator[tuple[str, dict] | Rejected]:
    """The dialogue, and its last question set aside if no bot answered that."""
    if not turns[-1][-1].is_bot:
        for message in turns[-1]:
            yield message.rejected("a message that no bot answered")
        turns = turns[:-1]
    if turns:
        messages = [
            {"role": "assistant" if turn[0].is_bot else "user", "content": "\n".join(message.text for message in turn)}
            for turn in turns
        ]
        ids = [message.id for message in itertools.chain(*turns)]
        first = turns[0][0]
        yield first.where, {"id": first.id, "source": "discord", "messages": messages, "message_ids": ids}
