"""Reads the verdict in a judge's reply, or why there is none.

Nothing is guessed: one form is asked for, on the last line, and what is not in that form, or in it twice with different
values, is no verdict.
"""

import re
from typing import NamedTuple

# No judge writes so much; what is longer is not even looked at.
MOST_CHARACTERS = 100_000

VERDICT = re.compile(r"^[^\w\n<>]*verdict[^\w\n<>]*:(.*)$", re.IGNORECASE | re.MULTILINE)
AROUND = " \t\r*_`\"'.[]()\N{LEFT DOUBLE QUOTATION MARK}\N{RIGHT DOUBLE QUOTATION MARK}"
WORDS = {
    "ranking": {"1": 1.0, "answer 1": 1.0, "2": 0.0, "answer 2": 0.0, "tie": 0.5},
    "tone": {"yes": 1.0, "no": 0.0},
}
NUMBER = r"(\d{1,3}(?:\.\d{1,3})?)"
TWO_NUMBERS = re.compile(rf"^[ \t*_`]*{NUMBER},?[ \t]+{NUMBER}[ \t\r*_`]*$", re.MULTILINE)
# As GPT-4 wrote in Vicuna's reviews of 2023 when it was to solve a problem first.
OWN_LINES = re.compile(rf"^Assistant ([12]): {NUMBER}$", re.MULTILINE)
LEAST, MOST = 1, 10


class Verdict(NamedTuple):
    """What one reply says.

    Attributes:
      first: 1 if the answer that was shown first is better, 0 if the other one, .5 for a tie; of the question about
        tone 1 for yes and 0 for no. None where there is no verdict.
      why: there is none; None where there is one.
      scores: of the first and the second answer, where scores were asked for.
    """

    first: float | None
    why: str | None = None
    scores: tuple[float, float] | None = None


def read(form: str, text: str, finish_reason: str | None = None) -> Verdict:
    """The verdict in a reply.

    Args:
      form: "ranking", "scores", "tone", or "review" as of 2023: scores on the first line.
      finish_reason: as the API gives it; a reply that was cut off has no verdict.
    """
    if not text.strip():
        return Verdict(None, "empty")
    if len(text) > MOST_CHARACTERS:
        return Verdict(None, "too long")
    if finish_reason == "length":
        return Verdict(None, "cut off")
    if form == "review":
        return _review(text)
    last = text.strip().rsplit("\n", 1)[-1]
    if not (TWO_NUMBERS if form == "scores" else VERDICT).match(last):
        return Verdict(None, "no verdict")
    return _scores(TWO_NUMBERS.findall(text)) if form == "scores" else _word(WORDS[form], text)


def _word(words: dict[str, float], text: str) -> Verdict:
    said = {word.strip(AROUND).lower() for word in VERDICT.findall(text)}
    meant = {words.get(word) for word in said}
    if None in meant:
        return Verdict(None, "no known verdict")
    if len(meant) > 1:
        return Verdict(None, "several verdicts")
    return Verdict(meant.pop())


def _review(text: str) -> Verdict:
    if numbers := TWO_NUMBERS.match(text.strip()):
        return _scores([numbers.groups()])
    lines = OWN_LINES.findall(text)
    if {which for which, _ in lines} != {"1", "2"}:
        return Verdict(None, "a score for one answer only" if lines else "no verdict")
    return _scores([(a, b) for one, a in lines for two, b in lines if (one, two) == ("1", "2")])


def _scores(texts: list[tuple[str, str]]) -> Verdict:
    pairs = {(float(first), float(second)) for first, second in texts}
    if len(pairs) > 1:
        return Verdict(None, "several verdicts")
    [(first, second)] = pairs
    if not (LEAST <= first <= MOST and LEAST <= second <= MOST):
        return Verdict(None, "a score out of range")
    return Verdict(1.0 if first > second else 0.0 if first < second else 0.5, scores=(first, second))
