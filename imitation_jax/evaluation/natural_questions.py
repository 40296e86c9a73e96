"""Natural Questions, open domain (Lee et al. 2019, arXiv 1906.00300): a short answer from memory after examples.

The prompt is the one of the LLaMA paper and of lm-evaluation-harness. An answer counts by SQuAD's exact match and F1
(Rajpurkar et al. 2016, arXiv 1606.05250), the best over the gold answers.
"""

import random
import re
import string
from collections import Counter
from collections.abc import Callable

from ml_collections import ConfigDict

from imitation_jax.evaluation import statistics
from imitation_jax.evaluation.prompts import encode_prompt, with_shots_that_fit
from imitation_jax.evaluation.results import Sample
from imitation_jax.evaluation.rows import read_rows, unique_ids
from imitation_jax.inference.engine import Engine, GenerateRequest, Generation

HEADER = "Answer these questions:\n\n"
# lm-eval also stops at "." and ",", which cuts answers such as "Washington, D.C." short (its issue 1381).
STOPS = {"newline": ("\n",), "lm_eval": ("\n", ".", ",")}
ARTICLES = re.compile(r"\b(?:a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)
DEFINITIONS = {
    "prompt": HEADER + "Q: {question}?\nA: {answer}\n",
    "judged": "SQuAD's normalisation, best over the golds",
}


def normalise(text: str) -> str:
    """SQuAD's: lower case, no ASCII punctuation, no articles, single spaces."""
    return " ".join(ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split())


def exact_match(prediction: str, golds: list[str]) -> bool:
    """Whether the prediction is one of the golds after `normalise`."""
    return normalise(prediction) in {normalise(gold) for gold in golds}


def f1(prediction: str, golds: list[str]) -> float:
    """Best harmonic mean of word precision and recall over the golds, after `normalise`."""
    return max(_f1(normalise(prediction).split(), normalise(gold).split()) for gold in golds)


def _f1(prediction: list[str], gold: list[str]) -> float:
    if not prediction or not gold:
        return float(prediction == gold)
    common = sum((Counter(prediction) & Counter(gold)).values())
    return 2 * common / (len(prediction) + len(gold))


def read_questions(path: str) -> list[dict]:
    """Rows with `id`, `question` and `gold`, a list of answers.

    Raises:
      FileNotFoundError, ValueError: one line with the place.
    """
    rows, places = [], []
    for index, (where, row) in enumerate(read_rows(path)):
        question, answers = row.get("question"), row.get("answer")
        if not isinstance(question, str) or not question.strip():
            raise ValueError(f"{where}: needs a text under 'question'")
        if not isinstance(answers, list) or not answers or not all(isinstance(a, str) and a.strip() for a in answers):
            raise ValueError(f"{where}: needs a list of one or more texts under 'answer'")
        rows.append({"id": str(row.get("id", index)), "question": question.strip(), "gold": answers})
        places.append((where, rows[-1]["id"]))
    unique_ids(places)
    return rows


def block(question: str) -> str:
    """A question as the prompt shows it; NQ's have no question mark."""
    return f"Q: {question.rstrip('?')}?\nA:"


def read(config: ConfigDict) -> list[dict]:
    """The test questions, each with the same shots: drawn by `config.seed` from `config.shots_data` without the test's.

    Raises:
      FileNotFoundError, ValueError: one line with the place; too few exemplars left.
    """
    if config.stops not in STOPS:
        raise ValueError(f"config.stops={config.stops!r}: expected {' or '.join(STOPS)}")
    if config.shots < 0 or config.max_new_tokens < 1:
        raise ValueError("config.shots must be 0 or more, config.max_new_tokens 1 or more")
    questions = read_questions(config.data)
    shots, overlap = [], 0
    if config.shots:
        pool = read_questions(config.shots_data)
        asked = {normalise(row["question"]) for row in questions}
        clean = [row for row in pool if normalise(row["question"]) not in asked]
        overlap = len(pool) - len(clean)
        if len(clean) < config.shots:
            raise ValueError(
                f"config.shots_data={config.shots_data!r}: {len(clean)} of {len(pool)} exemplars are no test "
                f"questions, config.shots={config.shots} needs more"
            )
        chosen = random.Random(config.seed).sample(clean, config.shots)
        shots = [f"{block(row['question'])} {row['gold'][0]}\n" for row in chosen]
    return [{**row, "shots": shots, "overlap": overlap} for row in questions[: config.limit or None]]


def ask(engine: Engine, items: list[dict], config: ConfigDict, on_sample: Callable[[Sample], None]) -> None:
    """Greedy answers, cut at the first stop."""
    limit = engine.config.max_position_embeddings - config.max_new_tokens
    drafts, requests = [], []
    for item in items:

        def encode(shots, item=item):
            return [(encode_prompt(engine, HEADER + "".join(shots) + block(item["question"]), config.chat), [])]

        [(ids, _)], shots = with_shots_that_fit(item["shots"], encode, limit)
        text = HEADER + "".join(item["shots"][: max(0, shots)]) + block(item["question"])
        drafts.append({"id": item["id"], "prompt": text, "gold": item["gold"], "shots": shots, "tokens": len(ids)})
        requests.append(GenerateRequest(ids, config.max_new_tokens, stop=STOPS[config.stops]))

    def collect(index: int, generation: Generation) -> None:
        draft = drafts[index]
        prediction = generation.text.strip()
        on_sample(
            {
                **draft,
                "prediction": prediction,
                "correct": exact_match(prediction, draft["gold"]),
                "f1": f1(prediction, draft["gold"]),
                "finish_reason": generation.finish_reason,
                "tokens": draft["tokens"] + len(generation.ids),
            }
        )

    engine.generate(requests, on_result=collect)


def summarise(samples: list[Sample], items: list[dict], config: ConfigDict) -> dict:
    """Exact match, F1, and what was dropped on the way."""
    return {
        "metrics": {
            "exact_match": statistics.proportion([sample["correct"] for sample in samples]),
            "f1": statistics.mean([sample["f1"] for sample in samples]),
        },
        "counts": {
            "exemplars_dropped_as_test_questions": items[0]["overlap"],
            "questions_with_fewer_shots": sum(sample["shots"] < config.shots for sample in samples),
            "answers_not_stopped": sum(sample["finish_reason"] == "length" for sample in samples),
            "answers_empty": sum(not sample["prediction"] for sample in samples),
        },
    }
