"""MMLU (Hendrycks et al. 2021, arXiv 2009.03300): 57 subjects, four choices, five worked examples before each question.

The default prompt is lm-evaluation-harness's, letter for letter; `prompt="original"` has the two spaces before the
subject that the original code prints. A folder holds `dev/<subject>_dev.csv` and `test/<subject>_test.csv` with the
header `question,choice0,choice1,choice2,choice3,answer`.
"""

import csv
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

from ml_collections import ConfigDict

from imitation_jax.evaluation import statistics
from imitation_jax.evaluation.choices import score_choices
from imitation_jax.evaluation.prompts import encode_choices, with_shots_that_fit
from imitation_jax.evaluation.results import Sample
from imitation_jax.inference.engine import Engine
from imitation_jax.progress import progress

LETTERS = ("A", "B", "C", "D")
COLUMNS = ("question", "choice0", "choice1", "choice2", "choice3", "answer")
SPACES_BEFORE_SUBJECT = {"lm_eval": " ", "original": "  "}
DEFINITIONS = {
    "scored": "' A' to ' D' after 'Answer:'; in chat 'A' to 'D' as the assistant's turn",
    "shots": "first rows",
}


def read_csv(path: Path) -> list[dict]:
    """Rows with `question` (stripped), `choices` (four, as they are) and `gold`.

    Raises:
      FileNotFoundError, ValueError: no such file, not UTF-8, another header, a row of another length, a bad answer.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; data_dir needs dev/SUBJECT_dev.csv and test/SUBJECT_test.csv")
    rows = []
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            if tuple(header) != COLUMNS:
                raise ValueError(f"{path}:1: the header is {','.join(header)[:80]!r}, expected {','.join(COLUMNS)}")
            for row in reader:
                if len(row) != len(COLUMNS):
                    raise ValueError(f"{path}:{reader.line_num}: {len(row)} columns, expected {len(COLUMNS)}")
                if row[5] not in ("0", "1", "2", "3"):
                    raise ValueError(f"{path}:{reader.line_num}: answer {row[5][:20]!r} is none of 0, 1, 2, 3")
                rows.append({"question": row[0].strip(), "choices": row[1:5], "gold": int(row[5])})
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 ({error.reason} at byte {error.start})") from None
    if not rows:
        raise ValueError(f"{path}: holds no questions")
    return rows


def block(row: dict) -> str:
    """A question as every prompt shows it, up to `Answer:`."""
    lines = [f"{letter}. {choice}" for letter, choice in zip(LETTERS, row["choices"], strict=True)]
    return "\n".join([row["question"], *lines, "Answer:"])


def prompt(subject: str, shots: list[str], question: str, variant: str) -> str:
    """The whole context of a question, ending in `Answer:`."""
    about = f"about{SPACES_BEFORE_SUBJECT[variant]}{subject.replace('_', ' ')}."
    header = f"The following are multiple choice questions (with answers) {about}\n\n"
    return header + "".join(shots) + question


def read(config: ConfigDict) -> list[dict]:
    """The questions of the chosen subjects, each with its shots.

    Raises:
      FileNotFoundError, ValueError: see `read_csv`; an unknown subject or prompt, a folder without subjects.
    """
    if config.prompt not in SPACES_BEFORE_SUBJECT:
        raise ValueError(f"config.prompt={config.prompt!r}: expected {' or '.join(SPACES_BEFORE_SUBJECT)}")
    if config.shots < 0:
        raise ValueError(f"config.shots={config.shots}: must be 0 or more")
    folder = Path(config.data_dir).expanduser()
    found = sorted(path.name.removesuffix("_test.csv") for path in folder.glob("test/*_test.csv"))
    if not config.data_dir or not found:
        raise FileNotFoundError(
            f"config.data_dir={config.data_dir!r}: no test/SUBJECT_test.csv in it; name MMLU's folder"
        )
    subjects = [name.strip() for name in config.subjects.split(",") if name.strip()] or found
    for subject in subjects:
        if subject not in found:
            raise ValueError(f"config.subjects: no {subject!r} in {folder}; there are {', '.join(found)}")
    items = []
    for subject in dict.fromkeys(subjects):
        dev = read_csv(folder / "dev" / f"{subject}_dev.csv")[: config.shots] if config.shots else []
        if len(dev) < config.shots:
            raise ValueError(f"{folder}/dev/{subject}_dev.csv: {len(dev)} rows, config.shots={config.shots} needs more")
        shots = [f"{block(row)} {LETTERS[row['gold']]}\n\n" for row in dev]
        rows = read_csv(folder / "test" / f"{subject}_test.csv")
        for index, row in enumerate(rows[: config.limit or None]):
            items.append({"id": f"{subject}/{index}", "subject": subject, "shots": shots, **row})
    return items


def ask(engine: Engine, items: list[dict], config: ConfigDict, on_sample: Callable[[Sample], None]) -> None:
    """Scores ` A` to ` D` after each prompt."""
    limit = engine.config.max_position_embeddings

    def encoded(item: dict) -> tuple[Sample, list]:
        def encode(shots):
            context = prompt(item["subject"], shots, block(item), config.prompt)
            return encode_choices(engine, context, LETTERS, config.chat)

        pairs, shots = with_shots_that_fit(item["shots"], encode, limit)
        text = prompt(item["subject"], item["shots"][: max(0, shots)], block(item), config.prompt)
        sample = {"id": item["id"], "subject": item["subject"], "prompt": text, "choices": list(LETTERS)}
        return {**sample, "gold": item["gold"], "shots": shots}, pairs

    asked = progress(items, desc="tokenising", unit="question")
    score_choices(engine, (encoded(item) for item in asked), on_sample)


def summarise(samples: list[Sample], items: list[dict], config: ConfigDict) -> dict:
    """Micro accuracy (every question alike), macro accuracy (every subject alike), and each subject's own."""
    subjects = defaultdict(list)
    for sample in samples:
        subjects[sample["subject"]].append(sample["correct"])
    by_subject = {subject: statistics.proportion(hits) for subject, hits in subjects.items()}
    shots = Counter(sample["shots"] for sample in samples)
    return {
        "metrics": {
            "accuracy": statistics.proportion([sample["correct"] for sample in samples]),
            "accuracy_macro": statistics.macro(list(by_subject.values())),
        },
        "chance": 0.25,
        "subjects": by_subject,
        "counts": {
            "questions_with_fewer_shots": sum(count for k, count in shots.items() if k < config.shots),
            "shots_dropped": sum((config.shots - max(0, k)) * count for k, count in shots.items()),
            "questions_cut": shots[-1],
        },
    }
