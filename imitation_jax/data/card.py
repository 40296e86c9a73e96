"""The data card: card/index.html, one page without network, and card/card.json, the same numbers."""

import json
from pathlib import Path

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """What a data config holds under `config.card`."""
    config = ConfigDict()
    # A tokenizer (folder or file) whose tokens are counted; without one the card counts words and characters.
    config.tokenizer = ""
    # The nearest other query is looked for among this many dialogues, spread evenly; 0 leaves it out.
    config.nearest_queries = 50_000
    # How many dialogues are shown, cut short; 0 shows none (the card can then be passed on with private data).
    config.samples = 6
    return config


def write(folder: Path, counts: dict, dialogues: Path, config: ConfigDict) -> dict:
    """Writes `folder`/card.json and `folder`/index.html about the dialogues that were kept, and returns card.json.

    The card is `counts`, unchanged and first, and what this measures in `dialogues` itself: "turns",
    "histogram_turns_per_dialogue", "histogram_characters_below", token counts, languages, nearest queries and
    categories. So the caller counts only what is not in the file any more.

    Args:
      folder: where to write; made if it is not there.
      counts: "input" (paths), "rows", "dialogues", "rejected", "reasons" ({reason: rows}, most common first) and
        "funnel" ([{"step": name, "rows": rows left after it}, ...], the first is what was read); further keys are kept.
      dialogues: dialogues.jsonl, whole.
      config: the data config; `config.card` as `get_config` makes it, or its defaults where it has none.
    """
    folder.mkdir(parents=True, exist_ok=True)
    card = dict(counts)
    (folder / "card.json").write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return card
