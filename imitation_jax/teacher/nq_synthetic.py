"""NQ-synthetic: questions like Natural Questions' with short answers, grown from ten pairs."""

import json
import random
from collections.abc import Iterator

from ml_collections import ConfigDict

from imitation_jax.clients import config as clients
from imitation_jax.data import normalise
from imitation_jax.data.prompt_files import fill
from imitation_jax.teacher import parsing
from imitation_jax.teacher.parsing import Avoid

Pair = tuple[str, str]


class Questions:
    """Requests that each show some of the seed pairs, drawn anew from config.seed and the request's number."""

    requests = None
    unusable = ()

    def __init__(self, config: ConfigDict):
        clients.check_positive(config, "seed_pairs", "shown", "most_of_a_request")
        self._config, self.most_of_a_request = config, config.most_of_a_request
        pairs = [_seed(where, row) for where, row in parsing.read_rows(config.seeds, "seeds")]
        if len(pairs) < config.shown:
            raise ValueError(f"{config.seeds}: {len(pairs)} pairs, too few to show {config.shown} of them")
        count = min(config.seed_pairs, len(pairs))
        self._seeds = random.Random(f"{config.seed}").sample(pairs, count) if count < len(pairs) else pairs
        if count < config.shown:
            raise ValueError(f"config.seed_pairs={count}: fewer than config.shown={config.shown}")
        self._avoid = Avoid(config.avoid)
        self._seen = {normalise.words(question): "repeats a seed" for question, _ in self._seeds}
        self.messages(0, 0)

    def messages(self, number: int, size: int) -> list[dict]:
        """What request `number` asks."""
        shown = random.Random(f"{self._config.seed} {number}").sample(self._seeds, self._config.shown)
        examples = "\n\n".join(f"Question: {question}\nAnswer: {answer}" for question, answer in shown)
        text = fill(self._config.prompt, examples=examples, count=self.most_of_a_request)
        return [{"role": "user", "content": text}]

    def read(self, number: int, answer: dict) -> Iterator[tuple[dict | str, str]]:
        """The pairs of an answer."""
        text = answer["output"]
        pairs = pairs_of(text)
        if not pairs:
            yield text, "no question with its answer"
        for place, (question, short) in enumerate(pairs, 1):
            row = {"instruction": question, "output": short}
            cut = answer["finish_reason"] == "length" and place == len(pairs)
            reason = parsing.CUT if cut else self._wrong(question, short)
            if not reason:
                self._seen[normalise.words(question)] = "repeats a question"
            yield row, reason

    def _wrong(self, question: str, answer: str) -> str:
        if not normalise.words(question) or not answer:
            return "question or answer is empty"
        if len(question.split()) > self._config.most_question_words:
            return f"question of more than {self._config.most_question_words} words"
        if len(answer.split()) > self._config.most_answer_words:
            return f"answer of more than {self._config.most_answer_words} words"
        if seen := self._seen.get(normalise.words(question)):
            return seen
        return parsing.AVOIDED if self._avoid.holds([question, answer]) else ""


def pairs_of(text: str) -> list[Pair]:
    """(question in lower case, answer) of all that an answer holds, as labelled lines or as JSON."""
    parts = parsing.labelled(text, ("question", "answer"), ("q", "a")) or _json(text)
    lines = [[parsing.plain(parsing.first_line(part.get(key, ""))) for key in ("question", "answer")] for part in parts]
    return [(question.lower(), answer) for question, answer in lines]


def _json(text: str) -> list[dict[str, str]]:
    begin, end = text.find("["), text.rfind("]")
    try:
        values = json.loads(text[begin : end + 1])
    except (ValueError, RecursionError):
        return []
    rows = [{str(key).lower(): value for key, value in row.items()} for row in values if isinstance(row, dict)]
    return [row for row in rows if all(isinstance(row.get(key), str) for key in ("question", "answer"))]


def _seed(where: str, row: dict) -> Pair:
    question, answer = row.get("question"), row.get("answer")
    answer = answer[0] if isinstance(answer, list) and answer else answer
    if not all(isinstance(text, str) and text.strip() for text in (question, answer)):
        raise ValueError(f"{where}: needs texts under 'question' and 'answer', or a list of texts there")
    return question.strip(), answer.strip()
