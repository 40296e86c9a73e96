"""How much one set of answers looks like another: the automatic rows of Table 2 of "The False Promise of Imitating
Proprietary LLMs" (Gudibande et al. 2023, arXiv 2305.15717), between any two answer files, without a model.

The paper names the rows and gives the values, not the detectors. What is used here (also in each result's settings):

- List: some line starts, after at most three spaces, with `-`, `+`, `*` or a number with `.` or `)`, and then a space
  or the line's end: CommonMark's list item. Measured on alpaca_eval's 805 prompts: ChatGPT-0301 .371, Vicuna-13B .386,
  Alpaca-7B .092, text-davinci-003 .128; chosen for agreeing with shares that were known for these.
- Summary paragraph: the answer has two paragraphs or more (an empty line between them), the last one is no list, and it
  starts with a phrase that sums up ("Overall", "In summary", "Remember", "By following", ...: `SUMMARY`). The phrases
  come from how the last paragraphs of ChatGPT-0301 and -0613 begin on the same 805 prompts, so they suit ChatGPT. Of
  three detectors tried, ChatGPT-0613 agrees with ChatGPT-0301 by .35 (fewer phrases), .64 (this) and .90 (any last
  paragraph of eight words without a list); the paper's ceiling, on other prompts, is .55.
- `list_match`, `summary_match`: of the prompts where the reference has one, the share where the answer has one too.
- Unigram intersection: words shared as multisets, counted twice over the words of both (the F1 of unigrams; lower
  case, runs of letters and digits), mean over prompts. Chosen out of fourteen (seven formulas, two ways to split words)
  for lying nearest the paper's ceiling of 49.2: ChatGPT-0613 against ChatGPT-0301 gives .497 (F1 of sets .499; the
  fourteen span .28 to .62).
- Length correlation: Pearson's, of the numbers of words (split at white space).

An empty answer stays in: it has no list, shares no word, and is zero words long. A prompt whose reference is empty
cannot be compared and is set aside. Both are counted.
"""

import re
from collections import Counter
from collections.abc import Callable

import numpy as np
from ml_collections import ConfigDict

from imitation_jax.core.fingerprint import MODEL, Key, Keys
from imitation_jax.data import answer_files
from imitation_jax.data.benchmark_rows import read_rows
from imitation_jax.evaluation import statistics
from imitation_jax.evaluation.config import COMMON
from imitation_jax.evaluation.results import Sample
from imitation_jax.evaluation.shots import WORD
from imitation_jax.evaluation.task import AnyEngine, Needs, Row

LIST_ITEM = re.compile(r"^ {0,3}(?:[-+*]|\d{1,9}[.)])(?:[ \t]|$)", re.MULTILINE)
SUMMARY = re.compile(
    r"\W*(?:overall|in (?:summary|conclusion|short|brief|essence|general|sum|closing|the end)|"
    r"to (?:summari[sz]e|sum up|conclude|recap|wrap up)|summary|conclusion|in a nutshell|all in all|ultimately|"
    r"altogether|taken together|therefore|thus|so,? in|as a result|remember|by \w+ing|with these|"
    r"these are (?:just|only|some|a few)|all of these)\b",
    re.IGNORECASE,
)
PARAGRAPH_BREAK = re.compile(r"\n[ \t]*\n")
DEFINITIONS = {
    "list": LIST_ITEM.pattern,
    "summary": f"2 or more paragraphs, the last without a list item and starting with {SUMMARY.pattern}",
    "unigram": f"multiset F1 of {WORD.pattern} in lower case",
    "length": "words split at white space",
    "resamples": 2000,
}
NAMES, NEEDS, PAIRED = ("style",), Needs.ANSWERS, ()
KEYS = COMMON | Keys(
    answers=Key("", "file of a model's answers", MODEL), reference=Key("", "file of the teacher's answers")
)


def _where_reference_has(feature: str) -> Callable[[Sample], float | None]:
    return lambda sample: float(sample[feature][0]) if sample[feature][1] else None


ROWS = (
    Row("style", "style", "list_match", "Lists where the teacher does, %",
        sample_value=_where_reference_has("list"), order=10),
    Row("style", "style", "summary_match", "Summary paragraph where the teacher has one, %",
        sample_value=_where_reference_has("summary"), order=10),
    Row("style", "style", "unigram_intersection", "Words shared with the teacher, %",
        sample_value=lambda sample: sample["unigram_intersection"], order=10),
    Row("style", "style", "length_correlation", "Correlation of lengths with the teacher's", 1, 2, order=10),
)  # fmt: skip
FULL_SIZE = {}


def has_list(text: str) -> bool:
    """Whether the text holds a list item, see the module's docstring."""
    return bool(LIST_ITEM.search(text))


def has_summary(text: str) -> bool:
    """Whether the text ends with a paragraph that sums up, see the module's docstring."""
    paragraphs = [part.strip() for part in PARAGRAPH_BREAK.split(text.strip())]
    return len(paragraphs) > 1 and not has_list(paragraphs[-1]) and bool(SUMMARY.match(paragraphs[-1]))


def unigram_intersection(answer: str, reference: str) -> float:
    """F1 of the two texts' words as multisets, 0 to 1."""
    ours, theirs = Counter(WORD.findall(answer.lower())), Counter(WORD.findall(reference.lower()))
    total = ours.total() + theirs.total()
    return 2 * (ours & theirs).total() / total if total else 0.0


def read_answers(path: str) -> list[dict]:
    """See `answer_files.answers`; the file is recorded as read.

    Raises:
      FileNotFoundError, ValueError: one line with the place.
    """
    return answer_files.answers(read_rows(path))


def check(config: ConfigDict, asked: list[dict]) -> None:
    """Whether the reference can be read, and shares a prompt with what is asked where that is known.

    Args:
      asked: items of the task `answers`, or none.

    Raises:
      FileNotFoundError, ValueError: one line with the place or the key.
    """
    references = read_answers(config.reference)
    prompts = [{"id": item["id"], "instruction": item["instruction"]} for item in asked]
    if asked and not answer_files.match(prompts, references)[0]:
        raise ValueError(f"config.reference={config.reference!r}: shares no prompt with those of the task answers")


def read(config: ConfigDict) -> list[dict]:
    """One item a pair, with the counts of what found no pair in each.

    Raises:
      FileNotFoundError, ValueError: one line with the place; files that share no prompt.
    """
    answers, references = read_answers(config.answers), read_answers(config.reference)
    pairs, by, counts = answer_files.pairs(answers, references, (config.answers, config.reference))
    shared = {
        "generator": answer_files.generator_of(answers, config.answers),
        "reference": answer_files.generator_of(references, config.reference),
        "matched_by": by,
        "counts": counts,
    }
    items = []
    for row in pairs:
        pair = {"prompt": row["instruction"], "prediction": row["output"], "gold": row["reference"]}
        items.append({"id": row["id"], **pair, **shared})
    return items[: config.limit or None]


def text(item: dict) -> str:
    """The prompt."""
    return item["prompt"]


def ask(engine: AnyEngine | None, items: list[dict], config: ConfigDict, on_sample: Callable[[Sample], None]) -> None:
    """Asks no model: compares each pair."""
    for item in items:
        on_sample(compare(item))


def compare(item: dict) -> Sample:
    """A pair's own numbers; "correct" has no meaning here and is None."""
    ours, theirs = item["prediction"], item["gold"]
    return {
        "id": item["id"],
        "prompt": item["prompt"],
        "gold": theirs,
        "prediction": ours,
        "correct": None,
        "list": [has_list(ours), has_list(theirs)],
        "summary": [has_summary(ours), has_summary(theirs)],
        "unigram_intersection": unigram_intersection(ours, theirs),
        "words": [len(ours.split()), len(theirs.split())],
    }


def summarise(samples: list[Sample], items: list[dict], config: ConfigDict) -> dict:
    """Table 2's rows, and each detector's plain share in both files."""
    pairs = [sample for sample in samples if sample["gold"]]
    words = np.array([sample["words"] for sample in pairs], dtype=np.float64).reshape(-1, 2)

    def agreement(name):
        return statistics.proportion([sample[name][0] for sample in pairs if sample[name][1]])

    def share(name, side):
        return statistics.proportion([sample[name][side] for sample in pairs])

    return {
        "metrics": {
            "list_match": agreement("list"),
            "summary_match": agreement("summary"),
            "unigram_intersection": statistics.mean([sample["unigram_intersection"] for sample in pairs]),
            "length_correlation": statistics.bootstrap(statistics.pearson, words, resamples=DEFINITIONS["resamples"]),
            "list_share": share("list", 0),
            "list_share_reference": share("list", 1),
            "summary_share": share("summary", 0),
            "summary_share_reference": share("summary", 1),
            "words": statistics.mean([sample["words"][0] for sample in pairs]),
            "words_reference": statistics.mean([sample["words"][1] for sample in pairs]),
        },
        "reference": items[0]["reference"],
        "matched_by": items[0]["matched_by"],
        "counts": {
            **items[0]["counts"],
            "answers_empty": sum(not sample["prediction"] for sample in samples),
            "references_empty": len(samples) - len(pairs),
        },
    }
