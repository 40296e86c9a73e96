"""GSM8K (Cobbe et al. 2021, arXiv 2110.14168): grade-school word problems, answered with the way to the number.

Rows are those of the Hugging Face set: `question`, and `answer` whose last line is "#### " and the number. The prompt
`lm_eval` is lm-evaluation-harness's `gsm8k`, five worked examples out of the train split; `instruction` asks a chat
model without any. Two readings of what was written, lm-eval's, are both reported: strict, the first number after
"#### ", and flexible, the last number of all. They are compared as texts, without commas, dollars and a full stop at
the end. lm-eval draws new examples for each question (the variant `lm_eval`); here all questions share one draw.
"""

import re
from collections.abc import Callable

from ml_collections import ConfigDict

from imitation_jax.core.fingerprint import Key, Keys
from imitation_jax.evaluation import generations, statistics
from imitation_jax.evaluation.generations import Prompt
from imitation_jax.evaluation.results import Sample
from imitation_jax.evaluation.task import AnyEngine, Needs

PROMPTS = {
    "lm_eval": Prompt("", "Question: {question}\nAnswer:", " {answer}\n\n"),
    "instruction": Prompt(
        "",
        "{question}\n\nThink step by step. Then write, on a line of its own, #### and the final number, "
        "such as: #### 42",
        "\n\n{answer}\n\n",
    ),
}
STOPS = ("Question:", "</s>", "<|im_end|>")
STRICT = re.compile(r"#### (\-?[0-9\.\,]+)")
FLEXIBLE = re.compile(r"-?[$0-9.,]{2,}|-?[0-9]+")
NO_NUMBER = "[invalid]"
DEFINITIONS = {
    "prompts": PROMPTS,
    "stops": STOPS,
    "strict": f"first {STRICT.pattern}",
    "flexible": f"last {FLEXIBLE.pattern}",
    "judged": "same text without ',', '$' and a '.' at the end",
}
NAMES, NEEDS, PAIRED = ("gsm8k",), Needs.MODEL, ("correct", "correct_flexible")
KEYS = generations.KEYS | Keys(
    shots=Key(5, "worked examples"), prompt=Key("lm_eval", "or instruction"), max_new_tokens=Key(512, "of an answer")
)
ROWS, FULL_SIZE = (), {}


def number(text: str) -> str:
    """A number as it is compared."""
    return text.replace(",", "").replace("$", "").removesuffix(".")


def strict(text: str) -> str:
    """The first number after "#### ", or NO_NUMBER."""
    match = STRICT.search(text)
    return number(match[1]) if match else NO_NUMBER


def flexible(text: str) -> str:
    """The last number, or NO_NUMBER."""
    numbers = FLEXIBLE.findall(text)
    return number(numbers[-1]) if numbers else NO_NUMBER


def parse(where: str, row: dict) -> dict:
    """One row.

    Raises:
      ValueError: naming the place and what is wrong there.
    """
    question, answer = generations.field(where, row, "question"), generations.field(where, row, "answer")
    _, marker, last = answer.rpartition("#### ")
    if not marker or not last.strip():
        raise ValueError(f"{where}: 'answer' must end with '#### ' and the number")
    return {"question": question, "answer": answer, "gold": number(last.strip())}


def read(config: ConfigDict) -> list[dict]:
    """See `generations.read`."""
    return generations.read(config, parse, PROMPTS[generations.one_of(config, "prompt", PROMPTS)], spare=0)


def ask(engine: AnyEngine, items: list[dict], config: ConfigDict, on_sample: Callable[[Sample], None]) -> None:
    """Greedy solutions; "correct" is the strict reading's."""

    def judge(item: dict, text: str) -> Sample:
        prediction, last = strict(text), flexible(text)
        return {
            "output": text,
            "prediction": prediction,
            "correct": prediction == item["gold"],
            "prediction_flexible": last,
            "correct_flexible": last == item["gold"],
        }

    generations.answer(engine, items, config, on_sample, stop=STOPS, judge=judge)


def summarise(samples: list[Sample], items: list[dict], config: ConfigDict) -> dict:
    """Exact match by both readings, and what was dropped on the way."""
    return {
        "metrics": {
            "exact_match_strict": statistics.proportion([sample["correct"] for sample in samples]),
            "exact_match_flexible": statistics.proportion([sample["correct_flexible"] for sample in samples]),
        },
        "counts": {
            **generations.counts(samples, items, config),
            "answers_without_marker": sum(sample["prediction"] == NO_NUMBER for sample in samples),
        },
    }


text = generations.text
