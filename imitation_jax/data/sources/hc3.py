"""HC3: rows with `question`, `human_answers` and `chatgpt_answers` -> one dialogue for each answer of ChatGPT's."""

from collections.abc import Iterable, Iterator

from imitation_jax.core import json_rows
from imitation_jax.core.json_rows import Rejected
from imitation_jax.data import dialogues

KEYS = ("id", "source", "messages", "question", "human_answers", "chatgpt_answers", "hc3_source")


def read(paths: Iterable[str], max_bytes: int = json_rows.MAX_BYTES) -> Iterator[tuple[str, dict | Rejected]]:
    """Yields (where, dialogue or Rejected) for each answer of ChatGPT's, in order.

    A row gives as many items as it has such answers, all with the row's place, and one `Rejected` where it has none.
    They are named `ROW_N`: the row's id, or its place without folders, and the answer's number from 0. What people
    answered is left out; the row's `source`, such as "reddit_eli5", stands under `hc3_source`.

    Args:
      paths: JSON lists or JSON Lines, gzipped or not.
      max_bytes: longer rows are set aside.
    """
    return dialogues.converted(paths, _dialogues, max_bytes)


def _dialogues(where: str, row: dict) -> list[dict]:
    question, answers = row.get("question"), row.get("chatgpt_answers")
    if not isinstance(question, str) or not question.strip():
        raise ValueError("no text under 'question'")
    if not isinstance(answers, list) or not answers:
        raise ValueError("no list of answers under 'chatgpt_answers'")
    further = {"hc3_source": row["source"]} if "source" in row else {}
    further |= {key: value for key, value in row.items() if key not in KEYS}
    name = dialogues.id_of(where, row.get("id"))
    return [
        {
            "id": f"{name}_{number}",
            "source": "hc3",
            "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}],
        }
        | further
        for number, answer in enumerate(answers)
    ]
