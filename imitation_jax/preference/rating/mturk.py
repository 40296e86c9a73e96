"""The same ratings by way of Amazon Mechanical Turk: what a batch is made of, and what comes back.

`layout.html` is the design layout of a project, `hits.csv` the input of a batch (an assignment a rating, so set the
number of assignments to `ratings`), and a batch's results come back with all columns of its input. The columns `item`
and `first_is` are in no place of the layout, so workers do not see them; on top of `first_is`, which is drawn for each
row, the layout draws the order anew for each worker and sends it along as `order`.
"""

import calendar
import csv
import hashlib
import html
import io
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from etils import epath

from imitation_jax.core.files import existing, write_text
from imitation_jax.preference.rating.database import Store, Vote, choice_of, vote_of
from imitation_jax.preference.rating.rendering import rendered

LAYOUT = Path(__file__).with_name("mturk_layout.html")
QUESTION_BYTES = 65_535  # most of a HIT's HTML
WHEN = "%a %b %d %H:%M:%S UTC %Y"
FIELDS = ("instruction", "first", "second")
RESULT_FIELDS = tuple(
    """HITId AssignmentId WorkerId AssignmentStatus AcceptTime SubmitTime WorkTimeInSeconds Input.item Input.first_is
    Answer.order Answer.vote""".split()
)
CHOICES = {"first": 1, "equal": 2, "second": 3}
NAMES = {choice: name for name, choice in CHOICES.items()}


def write(store: Store, folder: str) -> str:
    """Writes layout.html, hits.csv and results.csv, and says how many rows they have."""
    root, settings, items, votes = epath.Path(folder).expanduser(), store.settings(), store.items(), store.votes()
    guidelines = _plain(rendered(settings["guidelines"], breaks=False))
    layout = LAYOUT.read_text(encoding="utf-8").replace("<!-- guidelines -->", guidelines)
    pairs = sum(item["expected"] is None for item in items)
    checks = pairs // (settings["check_every"] - 1) if settings["check_every"] else 0
    hits, long = [], []
    for item in items[: pairs + checks]:
        row = _row(item)
        too_long = len(layout) + sum(len(row[name]) for name in FIELDS) > QUESTION_BYTES
        (long if too_long else hits).append(row)
    write_text(root / "layout.html", layout)
    write_text(root / "hits.csv", _csv(("item", "first_is", *FIELDS), hits))
    write_text(root / "results.csv", _csv(RESULT_FIELDS, [_result(vote) for vote in votes]))
    said = (
        f"{folder}: {len(hits)} rows in hits.csv (set {settings['ratings']} assignments), {len(votes)} in results.csv"
    )
    if long:
        some = ", ".join(row["item"] for row in long[:5]) + (", ..." if len(long) > 5 else "")
        said += f"; {len(long)} pairs are longer than Mechanical Turk takes and left out of hits.csv: {some}"
    return said


def read_results(store: Store, path: str) -> str:
    """Adds the votes of a batch's results, and says how many; a file may be read twice.

    Raises:
      FileNotFoundError, ValueError: no such file, or one that is no results of these answers.
    """
    known, votes, counts = {item["id"] for item in store.items()}, [], Counter()
    for where, row in _rows(path):
        if row["Input.item"] not in known:
            raise ValueError(f"{where}: no item {row['Input.item'][:80]!r} here; is --db that of other answers?")
        choice = _choice(row)
        if row.get("AssignmentStatus") == "Rejected":
            counts["rejected"] += 1
        elif (
            choice is None
            or not (row["AssignmentId"].strip() and row["WorkerId"].strip())
            or row["Input.first_is"] not in ("a", "b")
            or row.get("Answer.order", "12") not in ("12", "21")
        ):
            counts["without a vote that can be read"] += 1
        else:
            a_first = (row["Input.first_is"] == "a") == (row.get("Answer.order", "12") == "12")
            voted = _seconds(row.get("SubmitTime", "")) or time.time()
            # The choice is of what the row calls first, wherever the worker saw it.
            vote = vote_of(choice, row["Input.first_is"] == "a")
            votes.append(
                {
                    "task": row["AssignmentId"],
                    "item": row["Input.item"],
                    "rater": row["WorkerId"],
                    "a_first": a_first,
                    "shown": _seconds(row.get("AcceptTime", "")) or voted,
                    "vote": vote,
                    "voted": voted,
                }
            )
    new, counts["cast before by the same rater"], counts["under the id of another vote"] = store.add(votes)
    return f"{path}: {new} votes added" + "".join(f", {count} {what}" for what, count in counts.items() if count)


def _choice(row: dict[str, str]) -> int | None:
    """Of a column `Answer.vote`, or of one for each choice that is true or false; None where it is neither."""
    given = [name for name in CHOICES if row.get(f"Answer.vote.{name}", "").strip().lower() == "true"]
    if "Answer.vote" in row:
        given = [row["Answer.vote"].strip()]
    return CHOICES.get(given[0]) if len(given) == 1 else None


def _rows(path: str) -> Iterator[tuple[str, dict[str, str]]]:
    """("FILE:LINE", row) of every row; what a row lacks is ""."""
    needed = {"AssignmentId", "WorkerId", "Input.item", "Input.first_is"}
    with open(existing(path), encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, restval="")
        try:
            if missing := sorted(needed - set(reader.fieldnames or ())):
                raise ValueError(
                    f"{path}: no column {missing[0]!r}; give a batch's results as Mechanical Turk gives them"
                )
            for row in reader:
                yield f"{path}:{reader.line_num}", row
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path}:{reader.line_num}: not CSV in UTF-8 ({error})") from None


def _first_is(item: str) -> str:
    """Of the item alone, so that a second export says the same; workers never see it."""
    return "ab"[hashlib.sha256(item.encode()).digest()[0] % 2]


def _row(item: dict) -> dict[str, str]:
    first = _first_is(item["id"])
    shown = {
        "instruction": f"<pre>{html.escape(item['instruction'])}</pre>",
        "first": rendered(item[first]),
        "second": rendered(item["b" if first == "a" else "a"]),
    }
    return {"item": item["id"], "first_is": first} | {name: _plain(shown[name]) for name in FIELDS}


def _plain(text: str) -> str:
    """The same HTML in ASCII: Mechanical Turk takes no character of four bytes, and puts values in place of ${NAME}."""
    return text.encode("ascii", "xmlcharrefreplace").decode().replace("$", "&#36;")


def _result(vote: Vote) -> dict[str, str]:
    first = _first_is(vote.item)
    return {
        "HITId": vote.item,
        "AssignmentId": vote.task,
        "WorkerId": vote.rater,
        "AssignmentStatus": "Submitted",
        "AcceptTime": time.strftime(WHEN, time.gmtime(vote.shown)),
        "SubmitTime": time.strftime(WHEN, time.gmtime(vote.voted)),
        "WorkTimeInSeconds": str(round(vote.voted - vote.shown)),
        "Input.item": vote.item,
        "Input.first_is": first,
        "Answer.order": "12" if vote.a_first == (first == "a") else "21",
        "Answer.vote": NAMES[choice_of(vote.vote, first == "a")],
    }


def _csv(fields: tuple[str, ...], rows: list[dict[str, str]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fields)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _seconds(when: str) -> float | None:
    """Of Mechanical Turk's times, as "Mon Dec 02 13:04:59 PST 2019"."""
    words = when.split()
    if len(words) != 6:
        return None
    offset = {"PST": 8, "PDT": 7, "UTC": 0, "GMT": 0}.get(words[4])
    try:
        parsed = time.strptime(" ".join([*words[:4], words[5]]), "%a %b %d %H:%M:%S %Y")
    except ValueError:
        return None
    return None if offset is None else calendar.timegm(parsed) + 3600.0 * offset
