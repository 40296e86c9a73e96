"""What of a text is form alone: texts that differ in nothing else come out equal.

`words` is for finding texts inside of others: only letters and digits count, as in appendix C of the GPT-3 paper (Brown
et al. 2020, arXiv 2005.14165). `query` is for telling whether two texts ask the same: signs inside of words count too.
"""

import functools
import itertools
import re
import unicodedata

DELETED = re.compile(r"[^\w\s]+|_+")  # all that is neither letter nor digit nor whitespace; "_" is the rest of \w
ASCII = "".join(map(chr, range(128)))
ASCII_TABLE = "".join(" " if char.isspace() else char.lower() for char in ASCII).encode() + bytes(128)
ASCII_DELETED = "".join(DELETED.findall(ASCII)).encode()
MARKS = "".join(".,;:!?…'\"`´“”‘’„«»‹›()[]{}<>*_~|-–—/\\" + "。、，；：！？「」『』（）【】¿¡")


def words(text: str) -> str:
    """Lower-cased words of letters and digits, with single spaces between.

    First decomposed by compatibility (NFKD), so that a full-width or accented letter, a ligature or a no-break space
    is the plain one; then all that is neither letter, digit nor whitespace is deleted: "Don’t" is "dont".
    """
    return " ".join(word_bytes(text).decode().split())


def word_bytes(text: str) -> bytes:
    """`words` in UTF-8; there may be more spaces."""
    if text.isascii():
        return text.encode().translate(ASCII_TABLE, ASCII_DELETED)
    if "\n" in text:  # no rule of Unicode reaches over a line's end, and most lines are ASCII
        return b" ".join(map(word_bytes, text.split("\n")))
    return " ".join(DELETED.sub("", unicodedata.normalize("NFKD", text).lower()).split()).encode()


@functools.lru_cache(32)  # two steps ask for the same dialogue's, one after the other
def query(text: str) -> str:
    """Lower case, single spaces, no punctuation at the ends of words, full-width letters and ligatures as plain ones.

    What stands inside a word stays ("2+2" is not "2-2"), and so does a text of nothing but punctuation.
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    words = text.casefold().split()
    return " ".join(filter(None, map(str.strip, words, itertools.repeat(MARKS)))) or " ".join(words)
