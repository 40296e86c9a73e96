"""Data cards and contamination as tables, from `data/*/card/card.json` and the result files."""

import json
from collections.abc import Mapping, Sequence

from etils import epath

from imitation_jax.data.card import PAPER_BLEU, PAPER_CATEGORIES
from imitation_jax.reporting.model_results import ROWS, Model
from imitation_jax.reporting.report_tables import Entry, Table, entry


def data_cards(root: epath.Path, labels: Mapping[str, str]) -> Table | None:
    """A column a data set, the paper's ShareGPT last; None without a card. A damaged card is a column of gaps."""
    cards = {}
    for path in sorted([*(root / "data").glob("card/card.json"), *(root / "data").glob("*/card/card.json")], key=str):
        name = labels.get(path.parent.parent.name, path.parent.parent.name)
        cards[name] = _read(path)
    if not cards:
        return None
    unit = next((card["length"]["unit"] for card in cards.values() if card.get("length")), "tokens")
    rows = [
        ("rows read", [_count(card.get("rows")) for card in cards.values()], "90K"),
        ("dialogues kept", [_count(card.get("dialogues")) for card in cards.values()], "50K"),
        ("set aside", [_count(card.get("rejected")) for card in cards.values()], ""),
        ("user turns", [_count(card.get("turns", {}).get("user")) for card in cards.values()], ""),
        (unit, [_count(card.get("length", {}).get("total")) for card in cards.values()], ""),
        ("BLEU of the nearest other query, %", [_nearest(card) for card in cards.values()], str(PAPER_BLEU)),
    ]
    for category, share in PAPER_CATEGORIES.items():
        counts = [card.get("categories") or {} for card in cards.values()]
        shares = [Entry(f"{100 * own.get(category, 0) / sum(own.values()):.0f}") if own else None for own in counts]
        if any(shares):
            rows.append((f"queries: {category}, %", shares, str(share)))
    lines = tuple((label, (*numbers, Entry(theirs))) for label, numbers, theirs in rows)
    note = "Categories are guessed by patterns on the first query; the paper's are of 50 queries read by people."
    note += "".join(map(_kept_out, sorted((root / "data").glob("*/selection.json"), key=str)))
    return Table("data", "What the students were trained on", note, (*cards, "the paper's ShareGPT"), lines)


def _read(path: epath.Path) -> dict:
    try:
        card = json.loads(path.read_text())
    except ValueError:
        return {}
    return card if isinstance(card, dict) else {}


def _count(number: object) -> Entry | None:
    return Entry(f"{number:,}") if isinstance(number, int) else None


def _kept_out(path: epath.Path) -> str:
    """What of a local task's questions the test asks, too: see `studies.local_task`."""
    counts = _read(path)
    if "near_test" not in counts:
        return ""
    return (
        f" Of {counts['rows']:,} questions for the local task {counts['in_test']:,} are asked in the test and "
        f"{counts['near_test']:,} differ little from one that is; none of these was trained on."
    )


def _nearest(card: dict) -> Entry | None:
    nearest = card.get("nearest_query") or {}
    return Entry(f"{nearest['mean']:.1f}") if "mean" in nearest else None


def contamination(models: Sequence[Model]) -> Table | None:
    """A line a model and task whose items were looked for in the training data: each number with and without them."""
    lines = []
    for row in (row for row in ROWS if row.headline):
        for model in models:
            result = model.results.get(row.task, {})
            section = result.get("contamination")
            if not section:
                continue
            parts = [section.get(f"metrics_{name}", {}).get(row.metric) for name in ("clean", "contaminated")]
            numbers = [entry(row, estimate) for estimate in (model.estimate(row), *parts)]
            marked = Entry(f"{section['n_contaminated']:,} of {section['n_clean'] + section['n_contaminated']:,}")
            lines.append((f"{model.name}: {row.label}", (marked, *numbers)))
    if not lines:
        return None
    note = "An item is marked where 13 words in a row of it stand in a training dialogue."
    columns = ("marked items", "all items", "without the marked", "the marked alone")
    return Table("contamination", "Contamination", note, columns, tuple(lines))
