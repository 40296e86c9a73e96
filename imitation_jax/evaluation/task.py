"""What every module in `tasks/` has: the protocol `Task`, what it may ask, and the lines that it adds to the report."""

import dataclasses
import enum
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from ml_collections import ConfigDict

from imitation_jax.core.fingerprint import Keys
from imitation_jax.evaluation.results import Sample
from imitation_jax.inference.requests import GenerateRequest, Generation, Score, ScoreRequest
from imitation_jax.tokenizers.chat_template import ChatTemplate
from imitation_jax.tokenizers.tokenizer import Tokenizer

Item = dict[str, Any]  # "id" and what the task needs to ask and to judge

KINDS = ("style", "preference", "knowledge", "toxicity")  # of rows, in the report's order


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of the report's tables: where its number stands and how it is shown.

    Attributes:
      kind: of `KINDS`.
      task: name of the result file.
      metric: of that result.
      label: ends with ", %" where percent are shown.
      scale, digits: shown is value * scale with so many decimal places.
      sample_value: a sample's own part, where the number is the mean of those; None of a sample that has none.
      headline: whether the paper's finding rests on it.
      order: of the tasks of one kind the lower comes first.
    """

    kind: str
    task: str
    metric: str
    label: str
    scale: float = 100
    digits: int = 1
    sample_value: Callable[[Sample], float | None] | None = None
    headline: bool = True
    order: int = 100

    def show(self, number: float) -> str:
        """The number as tables have it."""
        return f"{number * self.scale:.{self.digits}f}".replace("-", "\N{MINUS SIGN}")


def correct(sample: Sample) -> float:
    """A `sample_value`: 1 where the sample is correct."""
    return float(sample["correct"])


class Needs(enum.Enum):
    """What a task asks."""

    MODEL = "a model, whose chat template is used where config.chat says so"
    CHAT_MODEL = "a model with a chat template"
    ANSWERS = "no model: config.answers is a file of answers; of several tasks at once, each model's own answers"


class AnyEngine(Protocol):
    """What answers: `inference.engine.Engine`, or anything with the same methods.

    Attributes:
      config: the model's.
      chosen: the values picked for automatic settings (mesh, memory).
    """

    tokenizer: Tokenizer
    template: ChatTemplate | None
    config: Any
    chosen: dict[str, Any]

    def score(
        self, requests: Sequence[ScoreRequest], on_result: Callable[[int, Score], None] | None = None
    ) -> list[Score]: ...

    def generate(
        self, requests: Sequence[GenerateRequest], on_result: Callable[[int, Generation], None] | None = None
    ) -> list[Generation]: ...


class Task(Protocol):
    """A module of `tasks/`; what several have in common they take from choices.py, generations.py or short_answers.py.

    Attributes:
      NAMES: what `config.task` calls it.
      NEEDS: what it asks.
      KEYS: its config's keys with defaults, those that all tasks have among them (`config.OF_MODEL`).
      DEFINITIONS: what the code decides and the numbers depend on; stands in each result's settings.
      ROWS: its lines in the report.
      FULL_SIZE: by name of the result, how many items the published test set has, where the report says so.
      PAIRED: keys of a sample that are its scores (true, false or a number; None for no score), by which two models are
        compared; none where that makes no sense.
    """

    NAMES: Sequence[str]
    NEEDS: Needs
    KEYS: Keys
    DEFINITIONS: Mapping[str, Any]
    ROWS: Sequence[Row]
    FULL_SIZE: Mapping[str, int]
    PAIRED: Sequence[str]

    def read(self, config: ConfigDict) -> list[Item]:
        """The items, at least one, with different ids; all that a sample depends on is in them or in the config.

        Raises:
          ValueError, OSError: one line with the place in a file, or with the key as `config.KEY`.
        """

    def check(self, config: ConfigDict, asked: list[Item]) -> None:
        """Of a task that needs answers only: what can be refused before they are given.

        Args:
          asked: items of the task `answers`, or none where they were answered before.
        """

    def text(self, item: Item) -> str:
        """The item's own words, without shots and instructions: what is looked for in training data."""

    def ask(self, engine: AnyEngine, items: list[Item], config: ConfigDict, on_sample: Callable[[Sample], None]):
        """Asks about all items at once and hands on each one's sample as soon as it is judged, in any order."""

    def summarise(self, samples: list[Sample], items: list[Item], config: ConfigDict) -> dict[str, Any]:
        """ "metrics" by name, the first being the one that is quoted (see `statistics.Estimate`), and what else the
        result holds, such as "counts"; samples and items are in the same order."""
