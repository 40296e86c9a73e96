"""Drops dialogues with too many turns in other languages, code aside.

Function words tell most English turns at once; py3langid (naive Bayes over byte n-grams) tells the rest. Code blocks,
URLs and tags are taken out first, and a turn that then has too little text, or looks like code, tells nothing.
"""

import functools
import re
import string
from types import SimpleNamespace

from ml_collections import ConfigDict
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from imitation_jax.data.cleaning import check_shares

GLANCED_AT = 400  # characters in which function words are looked for
READ = 2_000  # characters of a turn that are looked at if they do not tell
CLASSIFIED = 500  # of what is left of them
FENCED = re.compile(r"```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)|\$\$.*?(?:\$\$|\Z)", re.DOTALL)
NO_LANGUAGE = re.compile(r"`[^`\n]*`|(?:https?://|www\.)\S+|</?[a-zA-Z][^<>\n]{0,300}>")
SYMBOLS = b'{}()[];=<>_/\\|#$&%+@^~`"'
LETTERS = string.ascii_letters.encode()
FOREIGN_LETTER = re.compile(r"[^\W\d_a-zA-Z]")
# Frequent in English, and no words of the other languages that are written without accents.
ENGLISH = frozenset(
    "the and that for with you this are not what how can my your which from have would there their they about when "
    "will should does these those because could make more other some into than then them its it's were been".split()
)
LEAST_ENGLISH_WORDS = 3
LEAST_ENGLISH_SHARE = 0.12
FEW_TURNS = 3
CODE_SYMBOLS = 0.09  # of the characters; 1% of English turns have as many, 3 of 4 code blocks have more
CODE_LINE = re.compile(
    r"\s*(?:@\w|\$ |//|/\*|<[a-zA-Z/!]|#include|(?:def|class|import|return|elif|else|try|except|function|const|let|var"
    r"|public|private|static|void|int|SELECT|INSERT|UPDATE|DELETE|CREATE|FROM|WHERE|git|pip|npm|sudo|docker)\b)"
    r"|.*(?:[;{}\[(=>]|\w\(.*\):?)\s*\Z"
)


def get_config() -> ConfigDict:
    """What a data config holds under `config.language`."""
    config = ConfigDict()
    # ISO 639-1 code of the language that is kept.
    config.keep = "en"
    # A dialogue is kept if at least this share of the turns that tell a language are in that one.
    config.least_turns = 0.5
    # A turn is in that language if the detector gives it this probability: code and names leave it unsure.
    config.probability = 0.1
    # Turns with fewer letters tell nothing; a letter that is not of the Latin alphabet counts as four.
    config.least_letters = 20
    return config


def make(settings: SimpleNamespace) -> functools.partial:
    """The step. Raises ValueError where a setting cannot be."""
    check_shares("language", settings, "least_turns", "probability")
    check(settings)
    return functools.partial(_apply, settings=settings)


def _apply(dialogue: dict, settings: SimpleNamespace) -> dict | str:
    strangers = others(dialogue, settings)
    if not strangers:
        return dialogue
    most = max(sorted(set(strangers)), key=strangers.count)
    return f"language: {most}, {len(strangers)} turns not {settings.keep}"


def check(settings: SimpleNamespace) -> None:
    """Raises ValueError where `keep` is no language that the detector knows: no turn would be in it."""
    known = sorted({*_detector().labels} - {"zxx"})
    if settings.keep not in known:
        raise ValueError(f"config.language.keep={settings.keep} is not known; there are {', '.join(known)}")


def of_turn(text: str, settings: SimpleNamespace) -> str | None:
    """The language of a turn, an ISO 639-1 code, or None where it tells none."""
    if settings.keep == "en" and _has_english_words(text[:GLANCED_AT]):
        return "en"
    text = text[:READ]
    if "`" in text or "~~~" in text or "$$" in text:
        text = FENCED.sub(" ", text)
    text = NO_LANGUAGE.sub(" ", text)[:CLASSIFIED]
    raw = text.encode("utf-8", "replace")
    foreign = 0 if text.isascii() else len(FOREIGN_LETTER.findall(text))
    letters = foreign + _count(raw, LETTERS)
    if letters + 3 * foreign < settings.least_letters:
        return None
    if settings.keep == "en" and _has_english_words(text):
        return "en"
    if 10 * foreign < letters and _is_code(text, raw):
        return None
    best, probability = _detector().classify(text)
    if best != settings.keep and 1 - probability >= settings.probability:
        if dict(_detector().rank(text)).get(settings.keep, 0.0) >= settings.probability:
            return settings.keep
    return None if best == "zxx" else best  # zxx: no language at all


def others(dialogue: dict, settings: SimpleNamespace) -> list[str]:
    """The languages of the turns, but for those that are kept, if there are too many of them; else nothing.

    Where fewer than three turns tell a language, and it is not that one, the whole text has a say as one more turn.
    """
    texts = [turn["content"] for turn in dialogue["messages"]]
    spoken, unclear = [], texts
    if settings.keep == "en":
        unclear = []
        for text in texts:
            (spoken if _has_english_words(text[:GLANCED_AT]) else unclear).append(text)
            if len(spoken) >= settings.least_turns * len(texts):
                return []
        spoken = ["en"] * len(spoken)
    for done, text in enumerate(unclear):
        if spoken and spoken.count(settings.keep) >= settings.least_turns * (len(spoken) + len(unclear) - done):
            return []  # whatever the other turns tell
        if language := of_turn(text, settings):
            spoken.append(language)
    if len(spoken) < FEW_TURNS and _too_few(spoken, settings) and (whole := of_turn("\n".join(texts), settings)):
        spoken.append(whole)
    return [language for language in spoken if language != settings.keep] if _too_few(spoken, settings) else []


def _too_few(spoken: list[str], settings: SimpleNamespace) -> bool:
    return not spoken or spoken.count(settings.keep) < settings.least_turns * len(spoken)


def _has_english_words(text: str) -> bool:
    words = text.lower().split()
    return sum(map(ENGLISH.__contains__, words)) >= max(LEAST_ENGLISH_WORDS, LEAST_ENGLISH_SHARE * len(words))


def _is_code(text: str, raw: bytes) -> bool:
    if _count(raw, SYMBOLS) > CODE_SYMBOLS * (len(text) - text.count(" ")):
        return True
    lines = [line for line in text.split("\n") if line.strip()]
    return 2 * sum(CODE_LINE.match(line) is not None for line in lines) >= len(lines)


def _count(raw: bytes, wanted: bytes) -> int:
    return len(raw) - len(raw.translate(None, wanted))


@functools.cache
def _detector() -> LanguageIdentifier:
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
