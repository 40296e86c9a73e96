"""TLDR-synthetic: one summary of each passage."""

from collections.abc import Iterator

from ml_collections import ConfigDict

from imitation_jax.data import dialogues, normalise
from imitation_jax.data.passages import PASSAGE_KEYS, passage_of
from imitation_jax.data.prompt_files import fill
from imitation_jax.teacher import parsing
from imitation_jax.teacher.parsing import Avoid


class Summaries:
    """A request a passage, in the order of the file; none for what repeats or stands in the evaluation set."""

    most_of_a_request = 1

    def __init__(self, config: ConfigDict):
        self._config, self._passages, self.unusable = config, [], []
        avoid, seen = Avoid(config.avoid), set()
        for where, row in parsing.read_rows(config.passages, "passages"):
            key = next((key for key in PASSAGE_KEYS if isinstance(row.get(key), str)), None)
            if key is None:
                raise ValueError(f"{where}: needs a text under {', '.join(PASSAGE_KEYS)}")
            passage, own = passage_of(row, key), dialogues.id_of(where, row.get("id"))
            same = normalise.words(passage)
            reason = "empty passage" if not same else "repeats a passage" if same in seen else ""
            if reason or avoid.holds([passage]):
                self.unusable.append(({"passage": own}, reason or parsing.AVOIDED))
                continue
            seen.add(same)
            self._passages.append((own, passage))
        self.requests = len(self._passages)
        if not self._passages:
            raise ValueError(f"{config.passages}: no passage left of {len(self.unusable)}: {self.unusable[:1]}")
        self.messages(0, 0)

    def messages(self, number: int, size: int) -> list[dict]:
        """What request `number` asks."""
        text = fill(self._config.prompt, passage=self._passages[number][1])
        return [{"role": "user", "content": text}]

    def read(self, number: int, answer: dict) -> Iterator[tuple[dict | str, str]]:
        """The summary."""
        own, passage = self._passages[number]
        row = {"instruction": answer["instruction"], "output": answer["output"].strip(), "passage": own}
        reason = parsing.CUT if answer["finish_reason"] == "length" else ""
        if not reason and len(row["output"]) >= len(passage):
            reason = "not shorter than the passage"
        yield row, reason
