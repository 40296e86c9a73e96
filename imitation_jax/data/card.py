"""The data card: card/index.html, one page without network, and card/card.json, the same numbers.

All of it comes from dialogues.jsonl and the counts of what was set aside, so the same data give the same card. Where
there are more queries than are looked at, those looked at are spread evenly over the file, and the card says how many.
"""

import collections
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from ml_collections import ConfigDict

from imitation_jax.core.progress import progress
from imitation_jax.data import categories
from imitation_jax.data.cleaning import language
from imitation_jax.data.nearest import nearest
from imitation_jax.tokenizers.tokenizer import Tokenizer, load_tokenizer

TEMPLATE = Path(__file__).with_name("card.html")
BATCH = 1000  # dialogues tokenised at once
SHOWN_LANGUAGES = 8
SHOWN_TURNS = 4
SHOWN_CHARACTERS = 400  # of a turn
# What the paper tells of ShareGPT, to stand beside: nearest other query, and the categories of 50 queries in percent.
PAPER_BLEU = 8
PAPER_CATEGORIES = dict(zip(categories.CATEGORIES, (31, 16, 16, 8, 6, 4, 2, 14, 2), strict=True))


def get_config() -> ConfigDict:
    """What a data config holds under `config.card`."""
    config = ConfigDict()
    # A tokenizer (folder or file) to count tokens with; without one the card counts words.
    config.tokenizer = ""
    # The nearest other query (BLEU) is looked for among the first queries of this many dialogues; 0 leaves it out.
    # On one core 10,000 take about 10 s, 50,000 about a minute.
    config.nearest_queries = 20_000
    # Language and category are guessed for the first queries of this many dialogues; 0 leaves them out.
    config.guessed_queries = 5_000
    # How many dialogues are shown, cut short; 0 shows none, so that the card can be passed on where the data cannot.
    config.samples = 6
    return config


class Writer:
    """Writes the cards of a data config, which their pages show; reads `config.card` and `config.language`, if any.

    Raises:
      FileNotFoundError, ValueError: `config.card.tokenizer` cannot be read.
    """

    def __init__(self, config: ConfigDict):
        self._settings = config.get("card") or get_config()
        self._language = config.get("language") or language.get_config()
        name = self._settings.tokenizer
        self._tokenizer = load_tokenizer(name) if name else None
        # The card is about the data, not about the machines.
        self._shown = {key: value for key, value in config.to_dict().items() if not key.startswith("runner")}

    def write(self, folder: Path, counts: Mapping[str, Any], dialogues: Path) -> dict:
        """Writes `folder`/card.json and `folder`/index.html about the dialogues that were kept; returns card.json.

        The card is `counts`, and behind it what is measured in `dialogues` itself: "turns" (messages of each role),
        "histogram_turns_per_dialogue", "histogram_characters_below", "length" (tokens or words), "languages",
        "categories" and "nearest_query". So the caller counts only what the file does not hold any more. Texts of the
        data stand in the page alone.

        Args:
          folder: where to write; made if it is not there.
          counts: "rows", "dialogues", "rejected", "reasons" ({reason: rows}, most common first) and "funnel"
            ([{"step": name, "rows": rows that are left after it}, ...], the first is what was read); more keys are
            kept, and of those "input" (paths), "sources" ({name: dialogues}) and a step's "changed" (rows) are shown.
          dialogues: dialogues.jsonl, whole.
        """
        measured, samples = _measure(dialogues, counts["dialogues"], self._settings, self._language, self._tokenizer)
        card = dict(counts) | measured
        environment = jinja2.Environment(
            autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
        )
        page = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
            card=card,
            charts=_charts(card),
            samples=samples,
            config=json.dumps(self._shown, indent=2, ensure_ascii=False, default=str),
            paper_bleu=PAPER_BLEU,
            paper_categories=PAPER_CATEGORIES,
        )
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(card, indent=2, ensure_ascii=False) + "\n"
        for name, content in (("card.json", text), ("index.html", page)):
            # A path on disk may hold bytes that UTF-8 does not know.
            (folder / name).write_text(content, encoding="utf-8", errors="backslashreplace")
        return card


def _measure(
    dialogues: Path, count: int, settings: ConfigDict, detection: ConfigDict, tokenizer: Tokenizer | None
) -> tuple[dict, list[dict]]:
    """What the card says of a file of `count` dialogues, and those of them that it shows.

    Args:
      settings: as `get_config` makes it.
      detection: as `language.get_config` makes it.
      tokenizer: counts tokens; without it words (what stands between spaces) are counted.
    """
    roles, turns, characters, languages, kinds = (collections.Counter() for _ in range(5))
    length = collections.Counter()
    sizes: list[int] = []
    batch: list[list[dict]] = []
    queries, samples = [], []
    for number, dialogue in enumerate(progress(_read(dialogues), total=count, desc="measuring", unit="dialogue")):
        messages = dialogue["messages"]
        roles.update(message["role"] for message in messages)
        turns[len(messages)] += 1
        characters[_below(sum(len(message["content"]) for message in messages))] += 1
        batch.append(messages)
        if len(batch) == BATCH or number == count - 1:
            for own in _lengths(batch, tokenizer):
                length.update(own)
                sizes.append(own.total())
            batch = []
        query = next(message["content"] for message in messages if message["role"] == "user")
        if _chosen(number, settings.nearest_queries, count):
            queries.append(query)
        if _chosen(number, settings.guessed_queries, count):
            spoken = language.of_turn(query, detection)
            languages[spoken or "not told"] += 1
            kinds[categories.category(query, english=spoken in ("en", None))] += 1
        if _chosen(number, settings.samples, count):
            samples.append(_sample(dialogue))
    measured = {
        "turns": dict(roles.most_common()),
        "histogram_turns_per_dialogue": {str(key): turns[key] for key in sorted(turns)},
        "histogram_characters_below": {str(key): characters[key] for key in sorted(characters)},
        "length": {"unit": "tokens" if tokenizer else "words", "tokenizer": settings.tokenizer}
        | _summary(length, sizes),
        "languages": dict(languages.most_common()),
        "categories": {kind: kinds[kind] for kind in categories.CATEGORIES} if kinds else {},
        "nearest_query": _nearest(queries),
    }
    return measured, samples


def _read(dialogues: Path) -> Iterator[dict]:
    with open(dialogues, encoding="utf-8") as file:
        yield from map(json.loads, file)


def _chosen(number: int, wanted: int, count: int) -> bool:
    """Whether `number` is one of `wanted` that lie evenly among `count`."""
    return wanted >= count or (number + 1) * wanted // count > number * wanted // count


def _below(size: int) -> int:
    """The histograms' bins are powers of two, named by the first number that is in the next one."""
    return 1 << size.bit_length()


def _lengths(batch: list[list[dict]], tokenizer: Tokenizer | None) -> Iterator[collections.Counter]:
    """Of each dialogue the tokens or words of each role, without what a chat template adds."""
    texts = [message["content"] for messages in batch for message in messages]
    sizes = iter(map(len, tokenizer.encode_batch(texts) if tokenizer else map(str.split, texts)))
    for messages in batch:
        roles = collections.Counter()
        for message in messages:
            roles[message["role"]] += next(sizes)
        yield roles


def _summary(by_role: collections.Counter, sizes: list[int]) -> dict:
    bins = collections.Counter(map(_below, sizes))
    return {
        "total": by_role.total(),
        "by_role": dict(by_role.most_common()),
        "mean": round(float(np.mean(sizes)), 1),
        "median": float(np.median(sizes)),
        "longest": max(sizes),
        "histogram_below": {str(key): bins[key] for key in sorted(bins)},
    }


def _nearest(queries: list[str]) -> dict:
    """BLEU of each query's nearest other one; the histogram's bins are tens of percent, named by their upper end."""
    if len(queries) < 2:
        return {}
    bleu = nearest(queries).bleu
    bins = collections.Counter(np.minimum(bleu // 10, 9).astype(int).tolist())
    return {
        "queries": len(queries),
        "mean": round(float(bleu.mean()), 2),
        "median": round(float(np.median(bleu)), 2),
        "histogram_below": {str(10 * number + 10): bins[number] for number in range(10)},
    }


def _charts(card: dict) -> dict[str, dict[str, int]]:
    """What the page draws, as {name: count}: the histograms with names of their bins, and not every rare language."""
    turns = collections.Counter()
    for size, count in card["histogram_turns_per_dialogue"].items():
        turns[_below(int(size))] += count
    nearest_query = card["nearest_query"].get("histogram_below", {})
    languages = list(card["languages"].items())
    rare = languages[SHOWN_LANGUAGES:]
    if len(rare) > 1:
        languages[SHOWN_LANGUAGES:] = [(f"{len(rare)} others", sum(count for _, count in rare))]
    return {
        "turns": _ranges(turns),
        "length": _ranges({int(size): count for size, count in card["length"]["histogram_below"].items()}),
        "languages": dict(languages),
        "nearest": {f"{int(upper) - 10}–{upper}%": count for upper, count in nearest_query.items()},
    }


def _ranges(bins: Mapping[int, int]) -> dict[str, int]:
    """{size that a bin is below: count} -> {"4–7": count}, empty bins between full ones shown too."""
    uppers = [1 << power for power in range(64) if min(bins) <= 1 << power <= max(bins)]
    names = [f"{upper // 2:,}–{upper - 1:,}" if upper > 2 else f"{upper - 1}" for upper in uppers]
    return {name: bins.get(upper, 0) for name, upper in zip(names, uppers, strict=True)}


def _sample(dialogue: dict) -> dict:
    shown = [
        {"role": message["role"], "content": _cut(message["content"])} for message in dialogue["messages"][:SHOWN_TURNS]
    ]
    return {"id": dialogue["id"], "messages": shown, "messages_left_out": len(dialogue["messages"]) - len(shown)}


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS].rstrip() + " …"
