"""Evaluation items and where they stand in training data.

An item is marked where 13 words in a row of its own text (no shots, no instructions) occur in a turn of a training
dialogue, whoever speaks; `ngrams.py` says what a word is and what holds for short texts. Every row that can be read
counts, also one that training would set aside.
"""

import glob
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from absl import logging
from etils import epath

from imitation_jax.core import json_rows
from imitation_jax.core.comma_list import comma_list
from imitation_jax.core.files import write_text
from imitation_jax.core.fingerprint import digest
from imitation_jax.core.json_rows import Rejected
from imitation_jax.core.progress import progress
from imitation_jax.data import builder, ngrams
from imitation_jax.data.benchmark_rows import read_rows

Marks = dict[str, Any]

DEFINITION = (
    f"{ngrams.WORDS} words in a row of the item in a training turn, or the whole of an item of "
    f"{ngrams.FEWEST_WORDS} to {ngrams.WORDS - 1} words; case, accents and punctuation ignored"
)


def texts_of_files(files: str, keys: str) -> dict[str, str]:
    """Of each row of evaluation data its own words, by its place: what training data are to be freed of.

    Args:
      files: paths, patterns or `tfds:NAME:SPLIT`, comma-separated, as `read_rows` takes them.
      keys: comma-separated; a row's text is what it holds under them, lists and tables of lists as well.

    Raises:
      FileNotFoundError, ValueError: no such file, or a row without any of the keys.
    """
    names = comma_list(keys)
    texts = {}
    for given in comma_list(files):
        for path in sorted(map(str, glob.glob(given))) or [given]:
            for where, row in read_rows(path):
                text = "\n".join(words for name in names if name in row for words in _words(row[name]))
                if not text.strip():
                    raise ValueError(f"{where}: has no text under {keys} (config.decontaminate.text_keys)")
                texts[where] = text
    return texts


def _words(value: object) -> list[str]:
    if isinstance(value, dict):
        value = list(value.values())
    return [text for part in value for text in _words(part)] if isinstance(value, list) else [str(value)]


def mark(texts: Mapping[str, Mapping[str, str]], dataset: str, cache_dir: Path) -> dict[str, Marks]:
    """Looks for the items of all tasks in one pass over the training set; what was looked for before is kept.

    Args:
      texts: task -> item id -> the item's own words.
      dataset: folder that prepare wrote, tfds folder, dialogue file or ShareGPT dump (gzipped or not), local or in a
        bucket; several with commas.
      cache_dir: local folder.

    Returns:
      Of each task: "dataset", "rows" (training rows), "rows_unread" (those without a readable turn), "too_short" (ids
      of items that cannot be marked), and "items", the marked ones: id -> "where" the first training row stands
      (`file:line`), how many "rows" hold it, and the "words" found first.

    Raises:
      FileNotFoundError, ValueError: no such dataset, or no dialogue in it.
    """
    sources = _sources(dataset)
    identity = [ngrams.FORMAT, [_state(file) for source in sources for file in builder.files(source)]]
    folder = Path(cache_dir) / "contamination"
    kept = {task: folder / f"{digest([identity, dict(items)])}.json" for task, items in texts.items()}
    todo = [(task, key) for task in texts for key in texts[task] if not kept[task].exists()]
    if todo:
        searched = _search(todo, [texts[task][key] for task, key in todo], sources, dataset)
        for task in dict.fromkeys(task for task, _ in todo):
            write_text(epath.Path(kept[task]), json.dumps(searched[task]))
    return {task: {"dataset": dataset} | json.loads(file.read_text()) for task, file in kept.items()}


def _search(ids: list[tuple[str, str]], texts: list[str], sources: list[epath.Path], dataset: str) -> dict[str, Marks]:
    index = ngrams.Ngrams(texts)
    places: list[dict | None] = [None] * len(ids)
    count = unread = 0
    read = progress(_read(sources), desc=f"looking for {len(ids):,} items in {dataset}", unit="row")
    for where, row, hits in ngrams.scan(index, read):
        count += 1
        if isinstance(row, Rejected):
            logging.log_first_n(logging.WARNING, "%s: %s", 5, where, row.reason)
        unread += isinstance(row, Rejected) or not ngrams.turns(row)
        for item, words in {item: hit.words for hit in reversed(hits) for item in hit.items}.items():
            places[item] = places[item] or {"where": where, "rows": 0, "words": words}
            places[item]["rows"] += 1
    if count == unread:
        raise ValueError(
            f"--contamination={dataset}: none of its {count} rows is a dialogue (a list of turns under 'messages' or "
            "'conversations') or a plain text (under 'text')"
        )
    logging.info("%s: %d of %d items stand in it (%d rows)", dataset, sum(map(bool, places)), len(ids), count)
    marks = {task: {"rows": count, "rows_unread": unread, "too_short": [], "items": {}} for task, _ in ids}
    for task, key in map(ids.__getitem__, index.too_short):
        marks[task]["too_short"].append(key)
    for (task, key), place in zip(ids, places, strict=True):
        if place:
            marks[task]["items"][key] = place
    return marks


def _sources(dataset: str) -> list[epath.Path]:
    """Files of rows and tfds folders."""
    sources = []
    for name in comma_list(dataset):
        path = epath.Path(name).expanduser()
        if not path.exists():
            raise FileNotFoundError(f"--contamination={name}: no such file or folder")
        if path.is_dir():
            lines = path / "dialogues.jsonl"
            path = lines if lines.exists() else builder.find(path)
        if path is None:
            raise FileNotFoundError(
                f"--contamination={name}: holds neither dialogues.jsonl nor a tfds dataset; give a folder that "
                "prepare wrote, or a file of dialogues"
            )
        sources.append(path)
    return sources


def _state(file: epath.Path) -> list:
    """Changes whenever the file does."""
    if "://" in str(file):
        stat = file.stat()
        return [str(file), stat.length, stat.mtime]
    stat = os.stat(file)
    return [str(file), stat.st_size, stat.st_mtime_ns]


def _read(sources: list[epath.Path]) -> Iterator[tuple[str, dict | Rejected]]:
    for source in sources:
        yield from builder.read(source) if source.is_dir() else json_rows.read(source)
