"""Growth from seed tasks as in Self-Instruct (Wang et al. 2022, arXiv 2212.10560).

Each request shows seed tasks and some that came of earlier requests, and asks for more. A new one is taken if its
instruction is unlike all before: ROUGE-L below `config.most_alike`. Instruction, input and output come in one answer,
as Alpaca asked for them; the rows are prompts as well, so `collect` can ask for better outputs.
"""

import random
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from ml_collections import ConfigDict
from rouge_score import tokenize
from rouge_score.rouge_scorer import RougeScorer

from imitation_jax.clients import config as clients
from imitation_jax.core.comma_list import comma_list
from imitation_jax.data.prompt_files import fill, with_input
from imitation_jax.teacher import parsing
from imitation_jax.teacher.parsing import Avoid

NO_INPUT = {"", "none", "n/a", "<noinput>", "noinput", "(none)", "no input", "<none>"}
LABELS = ("instruction", "input", "output")


class Example(NamedTuple):
    """A task and its solution."""

    instruction: str
    input: str
    output: str

    def shown(self) -> str:
        """As requests show it."""
        return f"Instruction: {self.instruction}\nInput: {self.input or '<noinput>'}\nOutput: {self.output}"


class Tasks:
    """Requests that each show seeds and grown tasks, drawn from config.seed and the request's number."""

    requests = None
    unusable = ()

    def __init__(self, config: ConfigDict):
        clients.check_positive(config, "shown_seeds", "most_of_a_request")
        self._config, self.most_of_a_request = config, config.most_of_a_request
        seeds = [_seed(where, row) for where, row in parsing.read_rows(config.seeds, "seeds")]
        self._seeds = [seed for seed in seeds if len(seed.shown().split()) <= config.most_shown_words]
        if len(self._seeds) < config.shown_seeds:
            text = f"{len(self._seeds)} tasks of at most {config.most_shown_words} words"
            raise ValueError(f"{config.seeds}: {text}, too few to show {config.shown_seeds} of them")
        self._grown: list[Example] = []
        self._avoid, self._alike = Avoid(config.avoid), Alike(config.most_alike)
        for seed in seeds:
            self._alike.add(seed.instruction)
        self._skip = comma_list(config.skip_words.lower())
        self.messages(0, 0)

    def messages(self, number: int, size: int) -> list[dict]:
        """What request `number` asks, from what came of the first `size` rows."""
        draw = random.Random(f"{self._config.seed} {number}")
        shown = draw.sample(self._seeds, self._config.shown_seeds)
        grown = [task for task in self._grown[:size] if len(task.shown().split()) <= self._config.most_shown_words]
        shown += draw.sample(grown, min(self._config.shown_grown, len(grown)))
        draw.shuffle(shown)
        examples = "\n\n".join(task.shown() for task in shown)
        text = fill(self._config.prompt, examples=examples, count=self.most_of_a_request)
        return [{"role": "user", "content": text}]

    def read(self, number: int, answer: dict) -> Iterator[tuple[dict | str, str]]:
        """The tasks of an answer."""
        text = answer["output"]
        parts = parsing.labelled(text, LABELS)
        if not parts:
            yield text, "no task in the asked form"
        for place, part in enumerate(parts, 1):
            about = part.get("input", "")
            about = "" if about.lower().strip(" .") in NO_INPUT else about
            output = part.get("output", "").removesuffix("###").strip()
            task = Example(" ".join(part["instruction"].split()), about, output)
            cut = answer["finish_reason"] == "length" and place == len(parts)
            reason = parsing.CUT if cut else self._wrong(task)
            if not reason:
                self._alike.add(task.instruction)
                self._grown.append(task)
            yield {"instruction": with_input(task.instruction, task.input), "output": task.output}, reason

    def _wrong(self, task: Example) -> str:
        if not task.output:
            return "no output"
        words = task.instruction.lower().split()
        if not self._config.least_words <= len(words) <= self._config.most_words:
            return f"instruction not of {self._config.least_words} to {self._config.most_words} words"
        said = f" {' '.join(tokenize.tokenize(task.instruction, None))} "
        if any(f" {word} " in said for word in self._skip):
            return "asks for what no text can be"
        if self._avoid.holds([task.instruction, with_input(task.instruction, task.input)]):
            return parsing.AVOIDED
        return "too much like another" if self._alike.holds(task.instruction) else ""


class Alike:
    """Texts, and whether another one's ROUGE-L (F-measure, no stemming) with one of them reaches `most`."""

    def __init__(self, most: float):
        self._most, self._scorer = most, RougeScorer(["rougeL"])
        self._texts: list[tuple[str, Counter[str], int]] = []

    def add(self, text: str) -> None:
        """One more."""
        words = tokenize.tokenize(text, None)
        self._texts.append((text, Counter(words), len(words)))

    def holds(self, text: str) -> bool:
        """Whether it is too much like one of them."""
        words = tokenize.tokenize(text, None)
        count, size = Counter(words), len(words)
        for other, theirs, length in self._texts:
            # No subsequence is longer than what the two share, so most need no closer look.
            least = self._most * (size + length) / 2
            if min(size, length) < least or sum(min(n, theirs[word]) for word, n in count.items()) < least:
                continue
            if self._scorer.score(other, text)["rougeL"].fmeasure >= self._most:
                return True
        return False


def _seed(where: str, row: dict) -> Example:
    """One of a file in the form of Self-Instruct's seed_tasks.jsonl, or with instruction, input, output."""
    instances = row.get("instances")
    about = instances[0] if isinstance(instances, list) and instances and isinstance(instances[0], dict) else row
    texts = [row.get("instruction"), about.get("input") or "", about.get("output")]
    if not all(isinstance(text, str) for text in texts) or not texts[0].strip() or not texts[2].strip():
        raise ValueError(f"{where}: needs texts under 'instruction' and 'output', or an instance with 'output'")
    return Example(*(text.strip() for text in texts))
