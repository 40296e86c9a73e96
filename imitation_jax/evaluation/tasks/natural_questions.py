"""Natural Questions, open domain (Lee et al. 2019, arXiv 1906.00300): a short answer from memory after examples.

The default prompt is the LLaMA paper's, the answer ends with its line, and SQuAD's normalisation judges it. The variant
`lm_eval` asks what lm-evaluation-harness 0.4's `nq_open` asks, letter for letter, and differs so:

- Shots are drawn anew for each question, from one `random.Random(1234)`, and test questions among them are kept, but
  for the question itself. Here all questions share one draw without test questions: less noise between items, nothing
  leaks, and one prefix to compute. lm-eval draws from the train split (87,925 rows), so give it as shots_data.
- Answers end at "\\n", "." and ",", or after 256 tokens (32 here), and lose the white space around them.
- Exact match takes away articles only before a space and only as "a ", "The " etc., then case and ASCII punctuation,
  but leaves double spaces. lm-eval has no F1; the variant's is taken after the same normalisation.
- The question stands in the prompt as it is; here question marks at its end become one.

Where a prompt does not fit the model, lm-eval cuts off its first tokens; here shots are dropped first. lm-eval ends an
answer at the tokenizer's EOS; here at the end of the template's turn too, in SmolLM2 the same token.
"""

import functools
import re

from imitation_jax.core.fingerprint import Key, Keys
from imitation_jax.evaluation import generations, short_answers
from imitation_jax.evaluation.generations import Prompt
from imitation_jax.evaluation.task import Row, correct

PROMPTS = {
    "llama": short_answers.LLAMA,
    "lm_eval": Prompt("Answer these questions:\n\n", "Q: {question}?\nA:", " {answer}\n"),
}
LM_EVAL_IGNORES = re.compile(r"\b(?:The |the |An |A |The |a |an )")


def lm_eval(text: str) -> str:
    """What lm-eval's exact match compares."""
    return short_answers.lower_unpunctuated(LM_EVAL_IGNORES.sub("", text))


NORMALISE = {"squad": short_answers.squad, "lm_eval": lm_eval}
DEFINITIONS = {"prompts": PROMPTS, "stops": short_answers.STOPS, "judged": "best over the golds"}
NAMES, NEEDS, PAIRED = ("nq",), short_answers.NEEDS, short_answers.PAIRED
KEYS = short_answers.KEYS | Keys(
    shots=Key(3, "worked examples"), normalise=Key("squad", "before comparing; or lm_eval")
)
ROWS = (
    Row("knowledge", "nq", "exact_match", "Natural Questions, exact match, %", sample_value=correct, order=50),
    Row("knowledge", "nq", "f1", "Natural Questions, F1, %", headline=False, order=50),
    Row("knowledge", "nq_zero_shot", "exact_match", "Natural Questions, zero-shot, exact match, %",
        sample_value=correct, order=60),
    Row("knowledge", "nq_zero_shot", "f1", "Natural Questions, zero-shot, F1, %", headline=False, order=60),
)  # fmt: skip
FULL_SIZE = {"nq": 3610, "nq_zero_shot": 3610}


def parse(where: str, row: dict) -> dict:
    """One row.

    Raises:
      ValueError: naming the place and what is wrong there.
    """
    question, answers = generations.field(where, row, "question"), row.get("answer")
    if not isinstance(answers, list) or not answers or not all(isinstance(a, str) and a.strip() for a in answers):
        raise ValueError(f"{where}: needs a list of one or more texts under 'answer'")
    return {"question": question, "bare": short_answers.bare(question), "answer": answers[0], "gold": answers}


read = functools.partial(short_answers.read, parse=parse, prompts=PROMPTS, normalisations=NORMALISE)
ask = functools.partial(short_answers.ask, normalisations=NORMALISE)
summarise, text = short_answers.summarise, generations.text
