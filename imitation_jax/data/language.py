"""Which language the turns of a dialogue are in, code aside.

Function words tell most English turns at once; py3langid (naive Bayes over byte n-grams) tells the rest. Code blocks,
URLs and tags are taken out first, and a turn that then has too little text, or looks like code, tells nothing.
"""

import functools
import re
import string
from types import SimpleNamespace

from ml_collections import ConfigDict
from py3langid.langid import MODEL_FILE, LanguageIdentifier

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
CODE_SYMBOLS = 0.09  # of the characters; 1% of English turns have as many, 3 of 4 code blocks have more


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
    if 10 * foreign < letters and _count(raw, SYMBOLS) > CODE_SYMBOLS * (len(text) - text.count(" ")):
        return None
    best, probability = _detector().classify(text)
    if best != settings.keep and 1 - probability >= settings.probability:
        if dict(_detector().rank(text)).get(settings.keep, 0.0) >= settings.probability:
            return settings.keep
    return None if best == "zxx" else best  # zxx: no language at all


def others(dialogue: dict, settings: SimpleNamespace) -> list[str]:
    """The languages of the turns, but for those that are kept, if there are too many of them; else nothing.

    A dialogue none of whose turns tells a language is looked at as one text.
    """
    texts = [turn["content"] for turn in dialogue["messages"]]
    if settings.keep == "en":
        wanted = settings.least_turns * len(texts)  # then it is kept, whatever the other turns tell
        for text in texts:
            wanted -= _has_english_words(text[:GLANCED_AT])
            if wanted <= 0:
                return []
    told = [language for text in texts if (language := of_turn(text, settings))]
    if not told:
        told = [language for language in [of_turn("\n".join(texts), settings)] if language]
    foreign = [language for language in told if language != settings.keep]
    return foreign if len(told) - len(foreign) < settings.least_turns * len(told) else []


def _has_english_words(text: str) -> bool:
    words = text.lower().split()
    return sum(map(ENGLISH.__contains__, words)) >= max(LEAST_ENGLISH_WORDS, LEAST_ENGLISH_SHARE * len(words))


def _count(raw: bytes, wanted: bytes) -> int:
    return len(raw) - len(raw.translate(None, wanted))


@functools.cache
def _detector() -> LanguageIdentifier:
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
