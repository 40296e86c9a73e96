"""The steps that clean dialogues, one after the other, and the run that counts what each of them did.

A step is a function (dialogue, settings) -> the dialogue, changed or not, or the reason why it is dropped: a phrase,
then ": " and details if there are any. The two steps that compare dialogues stand in `near_duplicates.py`. A dialogue
that a step dropped is not looked at by the next ones.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import resources
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from imitation_jax.core.comma_list import comma_list
from imitation_jax.core.json_rows import Rejected
from imitation_jax.data import ngrams
from imitation_jax.data.cleaning import language, near_duplicates

Step = Callable[[dict], dict | str]

# What the readers set aside: rows that cannot be read, what is no dialogue of alternating roles, turns without text.
READERS = ("readable", "structure", "empty_turns")
EMPTY_TURN = re.compile(r"no messages|empty \w+ turn")

EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+")
PHONE = re.compile(
    r"(?<![\w.+/-])(?:\+\d{1,3}[ .-]?(?:\(0?\d{1,4}\)[ .-]?|\d{1,4}[ .-]?){2,4}\d{2,4}"
    r"|(?:1[ .-])?(?:\(\d{3}\) ?|\d{3}[ .-])\d{3}[ .-]\d{4})(?![\w-]|\.\d)"
)
KEY = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
    r"|(?<![\w-])(?:sk-[\w-]{20,}|[sr]k_(?:live|test)_\w{16,}|AKIA[0-9A-Z]{16}|AIza[\w-]{35}|gh[pousr]_\w{36,}"
    r"|github_pat_\w{22,}|glpat-[\w-]{20,}|hf_\w{30,}|xox[abeprs]-[\w-]{10,}"
    r"|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,})(?![\w-])",
    re.DOTALL,
)
# Settings that are shares.
SHARES = {
    "language": ("least_turns", "probability"),
    "repetition": ("least_distinct",),
    "near_duplicates": ("jaccard", "contained", "jaccard_if_contained"),
}
PERSONAL = {"email": (EMAIL, "@"), "phone": (PHONE, ""), "key": (KEY, "")}


def get_config() -> ConfigDict:
    """What a data config holds for its steps: `config.steps`, in order, and a section for each step's settings."""
    config = ConfigDict()
    config.steps = ""
    config.error_replies = ConfigDict()
    # A file with a phrase a line; empty takes error_replies.txt beside this module.
    config.error_replies.phrases = ""
    # A longer answer speaks about errors, it is none.
    config.error_replies.most_characters = 300
    config.keywords = ConfigDict()
    # As above; empty takes keywords.txt, the list of the lineage's "unfiltered" sets.
    config.keywords.phrases = ""
    config.language = language.get_config()
    config.repetition = ConfigDict()
    # Of the runs of 8 bytes in the last 4,000 characters of an answer this share must be distinct: a loop has 1%, of
    # real answers 1 in 3,000 has less than 15%.
    config.repetition.least_distinct = 0.15
    config.repetition.least_characters = 400
    config.length = ConfigDict()
    # A tokenizer (folder or file): then tokens are counted, of all turns, else characters. 0 is no limit.
    config.length.tokenizer = ""
    config.length.least = 0
    config.length.most = 0
    config.length.least_turns = 0
    config.length.most_turns = 0
    config.personal_data = ConfigDict()
    config.personal_data.kinds = "email,phone,key"
    config.decontaminate = ConfigDict()
    # Evaluation data, comma-separated: JSON Lines, JSON lists, CSV with a header, tfds:NAME:SPLIT.
    config.decontaminate.files = ""
    # An item's text is what it holds under these keys.
    config.decontaminate.text_keys = (
        "prompt,instruction,question,query,problem,context,passage,text,choices,choice0,choice1,choice2,choice3"
    )
    config.exact_duplicates = ConfigDict()
    config.near_duplicates = near_duplicates.get_config()
    return config


# ----------------------------------------------------------------------------------------------------------------------
# Steps that look at one dialogue
# ----------------------------------------------------------------------------------------------------------------------


def error_replies(dialogue: dict, settings: SimpleNamespace) -> dict | str:
    """Drops a dialogue with an answer that is the service's error, such as its rate limit."""
    phrases = _phrases(settings.phrases, "error_replies.txt")
    for text in _answers(dialogue):
        if len(text) <= settings.most_characters and (found := _first_of(phrases, text)):
            return f"error reply: {found}"
    return dialogue


def keywords(dialogue: dict, settings: SimpleNamespace) -> dict | str:
    """Drops a dialogue with one of the phrases in an answer."""
    phrases = _phrases(settings.phrases, "keywords.txt")
    for text in _answers(dialogue):
        if found := _first_of(phrases, text):
            return f"keyword: {found}"
    return dialogue


def in_language(dialogue: dict, settings: SimpleNamespace) -> dict | str:
    """Drops a dialogue with too many turns in other languages, see `language.py`."""
    others = language.others(dialogue, settings)
    if not others:
        return dialogue
    most = max(sorted(set(others)), key=others.count)
    return f"language: {most}, {len(others)} turns not {settings.keep}"


def repetition(dialogue: dict, settings: SimpleNamespace) -> dict | str:
    """Drops a dialogue with an answer that ends in a loop."""
    for text in _answers(dialogue):
        if len(text) < settings.least_characters:
            continue
        raw = text[-4_000:].encode("utf-8", "surrogatepass")
        windows = np.sort(np.ndarray((len(raw) - 7,), "<u8", raw, strides=(1,)))
        distinct = (1 + np.count_nonzero(windows[1:] != windows[:-1])) / len(windows)
        if distinct < settings.least_distinct:
            return f"repetition: only {distinct:.1%} of an answer's end is not said before"
    return dialogue


def length(dialogue: dict, settings: SimpleNamespace) -> dict | str:
    """Drops a dialogue that is too short or too long, in characters or tokens and in turns."""
    texts = [message["content"] for message in dialogue["messages"]]
    turns = sum(message["role"] != "system" for message in dialogue["messages"])
    if turns < settings.least_turns or 0 < settings.most_turns < turns:
        return f"{'few' if turns < settings.least_turns else 'many'} turns: {turns}"
    if not (settings.least or settings.most):
        return dialogue
    if settings.tokenizer:
        size, unit = sum(map(len, _tokenizer(settings.tokenizer).encode_batch(texts))), "tokens"
    else:
        size, unit = sum(map(len, texts)), "characters"
    if size < settings.least or 0 < settings.most < size:
        return f"too {'short' if size < settings.least else 'long'}: {size:,} {unit}"
    return dialogue


def personal_data(dialogue: dict, settings: SimpleNamespace) -> dict | str:
    """Puts [EMAIL], [PHONE] and [KEY] for addresses, numbers and keys, and counts them under `personal_data`."""
    counts: dict[str, int] = {}
    messages = []
    for message in dialogue["messages"]:
        text = message["content"]
        for kind in comma_list(settings.kinds):
            pattern, hint = PERSONAL[kind]
            if hint in text:
                text, count = pattern.subn(f"[{kind.upper()}]", text)
                counts[kind] = counts.get(kind, 0) + count
        messages.append(message | {"content": text})
    counts = {kind: count for kind, count in counts.items() if count}
    return dialogue | {"messages": messages, "personal_data": counts} if counts else dialogue


def decontaminate(dialogue: dict, settings: SimpleNamespace) -> dict | str:
    """Drops a dialogue that holds 13 words in a row of an evaluation item, or the whole of one of 8 to 12 words."""
    hits = settings.items.index.find(ngrams.turns(dialogue))
    return f"evaluation item: {settings.items.names[hits[0].items[0]]}" if hits else dialogue


STEPS: dict[str, Callable[[dict, SimpleNamespace], dict | str]] = {
    "error_replies": error_replies,
    "keywords": keywords,
    "language": in_language,
    "repetition": repetition,
    "length": length,
    "personal_data": personal_data,
    "decontaminate": decontaminate,
}
DUPLICATES: dict[str, Callable[[SimpleNamespace], Step]] = {
    "exact_duplicates": lambda settings: near_duplicates.ExactDuplicates(),
    "near_duplicates": near_duplicates.NearDuplicates,
}


# ----------------------------------------------------------------------------------------------------------------------
# The run
# ----------------------------------------------------------------------------------------------------------------------


class Items:
    """The evaluation items that `decontaminate` looks for; a process indexes them when it first does."""

    def __init__(self, texts: dict[str, str]):
        self.names, self.texts = list(texts), list(texts.values())

    @functools.cached_property
    def index(self) -> ngrams.Ngrams:
        """The n-grams of the texts."""
        return ngrams.Ngrams(self.texts)

    def __reduce__(self):
        return Items, (dict(zip(self.names, self.texts, strict=True)),)


class Cleaned(NamedTuple):
    """What became of a row: a dialogue or why it was dropped, and the steps that changed it before."""

    item: dict | Rejected
    changed: tuple[str, ...] = ()


def steps(config: ConfigDict) -> list[str]:
    """The names in `config.steps`.

    Raises:
      ValueError: an unknown one, or one twice.
    """
    names = comma_list(config.steps)
    known = [*STEPS, *DUPLICATES]
    for number, name in enumerate(names):
        if name not in known:
            raise ValueError(f"config.steps: there is no step {name!r}; there are {', '.join(known)}")
        if name in names[:number]:
            raise ValueError(f"config.steps: {name} stands there twice")
    return names


def settings(config: ConfigDict, texts: dict[str, str]) -> dict[str, SimpleNamespace]:
    """Each step's own settings, checked; `texts` are the evaluation items, by the names that rejects call them.

    Raises:
      ValueError, OSError: a setting that cannot be, or a file that cannot be read.
    """
    found = {name: SimpleNamespace(**config[name].to_dict()) for name in steps(config)}
    for name, keys in SHARES.items():
        for key in keys:
            if name in found and not 0 <= getattr(found[name], key) <= 1:
                raise ValueError(f"config.{name}.{key}={getattr(found[name], key)} must be between 0 and 1")
    for key in ("bands", "hashes_a_band", "compared"):
        if (step := found.get("near_duplicates")) and getattr(step, key) < 1:
            raise ValueError(f"config.near_duplicates.{key}={getattr(step, key)} must be 1 or more")
    if "language" in found:
        language.check(found["language"])
    if step := found.get("decontaminate"):
        if not texts:
            raise ValueError("config.decontaminate.files is empty: give the evaluation data, or leave out the step")
        step.items = Items(texts)
    if step := found.get("personal_data"):
        for kind in comma_list(step.kinds):
            if kind not in PERSONAL:
                raise ValueError(f"config.personal_data.kinds: there is no {kind!r}; there are {', '.join(PERSONAL)}")
    for name in ("error_replies", "keywords"):
        if name in found:
            _phrases(found[name].phrases, f"{name}.txt")
    if "length" in found and found["length"].tokenizer:
        _tokenizer(found["length"].tokenizer)
    return found


def run(
    rows: Iterable[tuple[str, dict | Rejected]], names: Sequence[str], settings: dict[str, SimpleNamespace]
) -> Iterator[Cleaned]:
    """What becomes of each row as the readers give them, in order."""
    todo: list[tuple[str, Step]] = [
        (name, DUPLICATES[name](settings[name]) if name in DUPLICATES else step(name, settings)) for name in names
    ]
    for where, item in rows:
        yield clean(where, item, todo)


def step(name: str, settings: dict[str, SimpleNamespace]) -> Step:
    """The step of that name, which looks at one dialogue, with its settings."""
    return functools.partial(STEPS[name], settings=settings[name])


def clean(where: str, item: dict | Rejected, todo: Iterable[tuple[str, Step]]) -> Cleaned:
    """Takes a row through steps, until one drops it."""
    if isinstance(item, Rejected):
        return Cleaned(dataclasses.replace(item, step=_reader_step(item)))
    changed = []
    for name, function in todo:
        result = function(item)
        if isinstance(result, str):
            return Cleaned(Rejected(where, item["id"], result, item, step=name), tuple(changed))
        if result is not item:
            changed.append(name)
        item = result
    return Cleaned(item, tuple(changed))


def _reader_step(item: Rejected) -> str:
    if not isinstance(item.row, dict):
        return READERS[0]
    return READERS[2] if EMPTY_TURN.match(item.reason) else READERS[1]


def _answers(dialogue: dict) -> list[str]:
    return [message["content"] for message in dialogue["messages"] if message["role"] == "assistant"]


def _first_of(phrases: Sequence[str], text: str) -> str | None:
    text = text.replace("’", "'").casefold()
    return next((phrase for phrase in phrases if phrase in text), None)


@functools.cache
def _phrases(path: str, default: str) -> tuple[str, ...]:
    """The lines that are not empty and no comments, of the file at `path` or else of the one beside this module."""
    file = epath.Path(path) if path else resources.files("imitation_jax.data.cleaning") / default
    lines = map(str.strip, file.read_text(encoding="utf-8").splitlines())
    return tuple(line.casefold() for line in lines if line and not line.startswith("#"))


@functools.cache
def _tokenizer(path: str):
    from imitation_jax.tokenizers.tokenizer import load_tokenizer

    return load_tokenizer(path)
