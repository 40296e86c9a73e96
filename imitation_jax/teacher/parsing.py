"""Reads seed files, the labelled parts of a teacher's answer, and the evaluation sets that no grown row may repeat."""

import re
from collections.abc import Iterator, Sequence

from imitation_jax.core import json_rows
from imitation_jax.core.comma_list import comma_list
from imitation_jax.core.files import existing
from imitation_jax.data import normalise, prompt_files
from imitation_jax.data.ngrams import Ngrams
from imitation_jax.data.passages import PASSAGE_KEYS, passage_of

CUT = "cut off at max_tokens"
HEADING = re.compile(r"\n[ \t]*(?:#+|-{3,}|\*{3,}|={3,}|(?=task\b))[ \t]*(?:task)?[ \t]*\d*[.:]?\Z", re.IGNORECASE)
AVOIDED = "stands in the evaluation set"


def read_rows(paths: str, key: str) -> Iterator[tuple[str, dict]]:
    """Yields (where, row) of the files, with commas, that config.`key` names.

    Raises:
      ValueError: none is named, or a row that cannot be read.
      OSError: no such file.
    """
    names = comma_list(paths)
    if not names:
        raise ValueError(f"config.{key} is empty; give --config.{key}=FILE")
    for name in names:
        yield from json_rows.read(existing(name), strict=True)


class Avoid:
    """Texts of evaluation sets; holds what is the same text, or shares 13 words in a row (see data/ngrams.py)."""

    def __init__(self, paths: str):
        """Args:
          paths: JSON Lines or lists, with commas; "none" for none.

        Raises:
          ValueError: no file is named, or a row has no text to avoid.
        """
        if paths.strip() == "none":
            texts = []
        elif not paths.strip():
            raise ValueError("config.avoid is empty; name what the student will be evaluated on, or none")
        else:
            texts = [_evaluated(where, row) for where, row in read_rows(paths, "avoid")]
        self._same = {normalise.words(text) for text in texts}
        self._ngrams = Ngrams(texts)

    def holds(self, texts: Sequence[str]) -> bool:
        """Whether one of them is such a text."""
        return any(normalise.words(text) in self._same for text in texts) or bool(self._ngrams.find(texts))


def _evaluated(where: str, row: dict) -> str:
    for key in ("question", *PASSAGE_KEYS[:-1]):
        if isinstance(row.get(key), str) and row[key].strip():
            return row[key]
    try:
        messages = prompt_files.messages_of(row)
    except ValueError as error:
        raise ValueError(f"{where}: {error}, 'question' or {', '.join(PASSAGE_KEYS[:-1])}") from None
    text = messages[-1]["content"]
    return passage_of({"prompt": text}, "prompt")


def labelled(text: str, labels: Sequence[str], short: Sequence[str] = ()) -> list[dict[str, str]]:
    """The parts of an answer that has "Label: ..." lines; the first label begins a new part.

    Numbers, bullets and asterisks around a label are no matter, nor is its case. A label that its part has already is
    text.

    Args:
      labels: in the order in which they are asked for.
      short: other names of them, where parts are of one line each; then a label may stand inside a line too.
    """
    names = dict(zip([*labels, *short], [*labels] * 2, strict=False))
    end = r"[ \t]*\d*[*_ \t]*[:：][*_]*[ \t]*"
    pattern = rf"^[-*_#>\d.()\[\] \t]*(?P<name>{'|'.join(names)}){end}"
    if short:
        pattern += rf"|(?<=[ \t])[*_]*(?P<inside>{'|'.join(labels[1:])}){end}"
    parts: list[dict[str, str]] = []
    label, begin = "", 0
    for match in re.finditer(pattern, text, re.IGNORECASE | re.MULTILINE):
        name = names[(match["name"] or match["inside"]).lower()]
        if name != labels[0] and (not parts or name in parts[-1] or name == label):
            continue
        if label:
            parts[-1][label] = text[begin : match.start()].strip()
        if name == labels[0]:
            if label:
                parts[-1][label] = HEADING.sub("", parts[-1][label]).strip()
            parts.append({})
        label, begin = name, match.end()
    if label:
        parts[-1][label] = text[begin:].strip()
    return parts


def plain(line: str) -> str:
    """A short text without the quotes and asterisks around it."""
    return " ".join(line.split()).strip("*_`\"'“”‘’ ")


def first_line(text: str) -> str:
    """Its first line that is not blank."""
    return next((line for line in text.splitlines() if line.strip()), "")
