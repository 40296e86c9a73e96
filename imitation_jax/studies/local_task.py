"""A local task's data: questions with gold answers as dialogues of one exchange, apart from the test questions."""

import json

from imitation_jax.core import json_rows
from imitation_jax.core.files import new_folder, write_text
from imitation_jax.data import normalise

NEAR = 0.75  # Jaccard index of two questions' words from which on they are near twins


def write(questions: str, test: str, shots: int, output: str) -> dict[str, int]:
    """Makes the folder `output`: shots.jsonl, the file's first rows that are no test questions, pairs.jsonl, dialogues
    of the others, and selection.json, the counts.

    Two questions are the same where they differ in case, accents or punctuation alone. So no pair is asked in the test,
    and none is among its worked examples. One that shares most of its words with a test question (Jaccard index of at
    least `NEAR`) is left out as well, as "who sang X" where the test asks "who sang X first".

    Args:
      questions: JSON Lines with `question` and `answer`, a list of texts, of which the first is trained on.
      test: the same, the questions that are kept out.
      shots: rows for worked examples.
      output: local folder that does not exist.

    Returns:
      The counts.

    Raises:
      OSError, ValueError: a file that cannot be read, a row without both, `output` exists; names the place.
    """
    asked = {normalise.words(question) for question, _ in _read(test)}
    asked_words = [frozenset(question.split()) for question in asked]
    counts = {"rows": 0, "in_test": 0, "near_test": 0, "repeated": 0, "shots": 0, "pairs": 0}
    seen: set[str] = set()
    with new_folder(output) as folder:
        examples, pairs = [], []
        for question, answers in _read(questions):
            counts["rows"] += 1
            same = normalise.words(question)
            if same in asked or same in seen:
                counts["in_test" if same in asked else "repeated"] += 1
                continue
            seen.add(same)
            words = frozenset(same.split())
            if any(len(words & other) >= NEAR * len(words | other) for other in asked_words):
                counts["near_test"] += 1
                continue
            if len(examples) < shots:
                examples.append({"question": question, "answer": answers})
                continue
            turns = [("user", question.strip().rstrip("? ") + "?"), ("assistant", answers[0].strip())]
            messages = [{"role": role, "content": content} for role, content in turns]
            pairs.append({"id": f"qa{counts['rows']}", "source": "questions", "messages": messages})
        counts |= {"shots": len(examples), "pairs": len(pairs)}
        for name, rows in (("shots", examples), ("pairs", pairs)):
            write_text(folder / f"{name}.jsonl", "".join(map(json_rows.line, rows)))
        write_text(folder / "selection.json", json.dumps(counts, indent=1) + "\n")
    return counts


def _read(path: str) -> list[tuple[str, list[str]]]:
    pairs = []
    for where, row in json_rows.read(path, strict=True):
        question, answers = row.get("question"), row.get("answer")
        texts = isinstance(answers, list) and answers and all(isinstance(text, str) for text in answers)
        if not isinstance(question, str) or not texts:
            raise ValueError(f"{where}: needs a text under 'question' and a list of texts under 'answer'")
        pairs.append((question, answers))
    return pairs
