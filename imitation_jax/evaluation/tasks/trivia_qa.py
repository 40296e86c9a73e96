"""TriviaQA, closed book (Joshi et al. 2017, arXiv 1705.03551): a trivia question from memory, many aliases count.

Rows are those of the Hugging Face and tfds sets without context: `question` and `answer` with `value` and `aliases`.
The LLaMA paper's numbers are on `unfiltered.nocontext` (validation, 11,313 rows), lm-eval's on `rc.nocontext` (17,944,
the web and the Wikipedia set, so that a question may come twice; ids are row numbers therefore).

The default prompt is the LLaMA paper's, and answers are judged by the official script's normalisation, which is
SQuAD's, but a space takes the place of punctuation. The variant `lm_eval` asks what lm-eval 0.4's `triviaqa` asks:
"Question: ..??" and an empty line between examples, whose answer is the first alias; everything else is as in
natural_questions.py, but its exact match keeps articles.
"""

import functools
import string

from imitation_jax.core.fingerprint import Key, Keys
from imitation_jax.evaluation import generations, short_answers
from imitation_jax.evaluation.generations import Prompt

PROMPTS = {"llama": short_answers.LLAMA, "lm_eval": Prompt("", "Question: {question}?\nAnswer:", " {alias}\n\n")}
# The script names these four quotation marks beside ASCII's.
TO_SPACES = {ord(mark): " " for mark in string.punctuation + "\u2018\u2019\u00b4`"}


def official(text: str) -> str:
    """The official script's normalisation: lower case, punctuation to spaces, no articles, single spaces."""
    return " ".join(short_answers.ARTICLES.sub(" ", text.lower().translate(TO_SPACES)).split())


NORMALISE = {"official": official, "lm_eval": short_answers.lower_unpunctuated}
DEFINITIONS = {"prompts": PROMPTS, "stops": short_answers.STOPS, "judged": "best over the aliases"}
NAMES, NEEDS, PAIRED = ("trivia_qa",), short_answers.NEEDS, short_answers.PAIRED
KEYS = short_answers.KEYS | Keys(
    shots=Key(5, "worked examples"), normalise=Key("official", "before comparing; or lm_eval")
)
ROWS, FULL_SIZE = (), {}


def parse(where: str, row: dict) -> dict:
    """One row; its number is its id.

    Raises:
      ValueError: naming the place and what is wrong there.
    """
    question, answer = generations.field(where, row, "question"), row.get("answer")
    if not isinstance(answer, dict) or not isinstance(answer.get("value"), str) or not answer["value"].strip():
        raise ValueError(f"{where}: needs an object with a text under 'value' under 'answer'; the test split has none")
    aliases = answer.get("aliases")
    if not isinstance(aliases, list) or not aliases or not all(isinstance(alias, str) for alias in aliases):
        raise ValueError(f"{where}: needs a list of one or more texts under 'aliases' of 'answer'")
    return {
        "question": question,
        "bare": short_answers.bare(question),
        "answer": answer["value"],
        "alias": aliases[0],
        "gold": aliases,
    }


read = functools.partial(short_answers.read, parse=parse, prompts=PROMPTS, normalisations=NORMALISE)
ask = functools.partial(short_answers.ask, normalisations=NORMALISE)
summarise, text = short_answers.summarise, generations.text
