"""MMLU (Hendrycks et al. 2021, arXiv 2009.03300): 57 subjects, four choices, five worked examples before each question.

The default prompt is lm-evaluation-harness's, letter for letter; `prompt="original"` is that of the original code, with
two spaces before the subject and questions as they are, white space around them included. A folder holds
`dev/<subject>_dev.csv` and `test/<subject>_test.csv`, either with the header `question,choice0,choice1,choice2,choice3,
answer` and answers 0 to 3, or as published: without a header, answers A to D.
"""

from collections import defaultdict

from etils import epath
from ml_collections import ConfigDict

from imitation_jax.core.comma_list import comma_list
from imitation_jax.core.fingerprint import DATA, Key, Keys
from imitation_jax.data import benchmark_rows
from imitation_jax.evaluation import choices, statistics
from imitation_jax.evaluation.config import CHAT, OF_MODEL
from imitation_jax.evaluation.results import Sample
from imitation_jax.evaluation.task import Row, correct

LETTERS = ("A", "B", "C", "D")
COLUMNS = ["question", "choice0", "choice1", "choice2", "choice3", "answer"]
SPACES_BEFORE_SUBJECT = {"lm_eval": " ", "original": "  "}
# As the original code groups them; lm-eval differs in one, it counts anatomy as STEM.
GROUPS = {
    "STEM": """abstract_algebra astronomy college_biology college_chemistry college_computer_science college_mathematics
        college_physics computer_security conceptual_physics electrical_engineering elementary_mathematics
        high_school_biology high_school_chemistry high_school_computer_science high_school_mathematics
        high_school_physics high_school_statistics machine_learning""".split(),
    "humanities": """formal_logic high_school_european_history high_school_us_history high_school_world_history
        international_law jurisprudence logical_fallacies moral_disputes moral_scenarios philosophy prehistory
        professional_law world_religions""".split(),
    "social sciences": """econometrics high_school_geography high_school_government_and_politics
        high_school_macroeconomics high_school_microeconomics high_school_psychology human_sexuality
        professional_psychology public_relations security_studies sociology us_foreign_policy""".split(),
    "other": """anatomy business_ethics clinical_knowledge college_medicine global_facts human_aging management
        marketing medical_genetics miscellaneous nutrition professional_accounting professional_medicine
        virology""".split(),
}
DEFINITIONS = {
    "scored": "' A' to ' D' after 'Answer:'; in chat 'A' to 'D' as the assistant's turn",
    "shots": "first rows",
    "groups": "of the original code, anatomy in other",
    "confidence": choices.DEFINITIONS["confidence"],
}

NAMES, NEEDS, PAIRED = ("mmlu",), choices.NEEDS, choices.PAIRED
KEYS = (
    OF_MODEL
    | CHAT
    | choices.BINS
    | Keys(
        data_dir=Key("", "folder of the published files", DATA),
        subjects=Key("", "comma-separated; all that the folder has where empty"),
        shots=Key(5, "worked examples before each question"),
        prompt=Key("lm_eval", "lm_eval; original: two spaces before the subject, and questions not stripped"),
    )
)
ROWS = (
    Row("knowledge", "mmlu", "accuracy", "MMLU, %", sample_value=correct, order=20),
    Row("knowledge", "mmlu", "accuracy_macro", "MMLU, mean over subjects, %", headline=False, order=20),
)
FULL_SIZE = {"mmlu": 14042}

ask = choices.ask


def read_csv(path: str) -> list[dict]:
    """Rows with `question`, `answers` (four) and `gold`, all as they are.

    Raises:
      FileNotFoundError, ValueError: no such file, not UTF-8, another header, a row of another length, a bad answer.
    """
    table = benchmark_rows.read_csv(path)
    if not table:
        raise ValueError(f"{path}: holds no questions")
    first = table[0][1]
    published = len(first) == len(COLUMNS) and first[-1] in LETTERS
    if not published and first != COLUMNS:
        raise ValueError(f"{path}:1: the header is {','.join(first)[:80]!r}, expected {','.join(COLUMNS)}")
    keys = LETTERS if published else ("0", "1", "2", "3")
    rows = []
    for where, (question, *answers, gold) in table if published else table[1:]:
        if gold not in keys:
            raise ValueError(f"{where}: answer {gold[:20]!r} is none of {', '.join(keys)}")
        rows.append({"question": question, "answers": answers, "gold": keys.index(gold)})
    if not rows:
        raise ValueError(f"{path}: holds no questions")
    return rows


def block(row: dict, variant: str) -> str:
    """A question as every prompt shows it, up to `Answer:`."""
    question = row["question"] if variant == "original" else row["question"].strip()
    lines = [f"{letter}. {answer}" for letter, answer in zip(LETTERS, row["answers"], strict=True)]
    return "\n".join([question, *lines, "Answer:"])


def read(config: ConfigDict) -> list[dict]:
    """The questions of the chosen subjects, each with its shots; see the top of choices.py.

    Raises:
      FileNotFoundError, ValueError: see `read_csv`; an unknown subject or prompt, a folder without subjects.
    """
    if config.prompt not in SPACES_BEFORE_SUBJECT:
        raise ValueError(f"config.prompt={config.prompt!r}: expected {' or '.join(SPACES_BEFORE_SUBJECT)}")
    choices.check(config)
    folder = epath.Path(config.data_dir).expanduser()
    present = sorted(path.name.removesuffix("_test.csv") for path in folder.glob("test/*_test.csv"))
    if not config.data_dir or not present:
        raise FileNotFoundError(
            f"config.data_dir={config.data_dir!r}: no test/SUBJECT_test.csv in it; name MMLU's folder"
        )
    subjects = comma_list(config.subjects) or present
    for subject in subjects:
        if subject not in present:
            raise ValueError(f"config.subjects: no {subject!r} in {folder}; there are {', '.join(present)}")
    items = []
    for subject in dict.fromkeys(subjects):
        about = f"about{SPACES_BEFORE_SUBJECT[config.prompt]}{subject.replace('_', ' ')}."
        header = f"The following are multiple choice questions (with answers) {about}\n\n"
        dev = read_csv(f"{folder}/dev/{subject}_dev.csv")[: config.shots] if config.shots else []
        if len(dev) < config.shots:
            raise ValueError(f"{folder}/dev/{subject}_dev.csv: {len(dev)} rows, config.shots={config.shots} needs more")
        shots = [f"{block(row, config.prompt)} {LETTERS[row['gold']]}\n\n" for row in dev]
        for index, row in enumerate(read_csv(f"{folder}/test/{subject}_test.csv")[: config.limit or None]):
            asked = {"header": header, "shots": shots, "prompt": block(row, config.prompt), "choices": list(LETTERS)}
            items.append({"id": f"{subject}/{index}", "subject": subject, **row, **asked})
    return items


def text(item: dict) -> str:
    """The question's own words: what contamination looks for in training data."""
    return "\n".join([item["question"], *item["answers"]])


def summarise(samples: list[Sample], items: list[dict], config: ConfigDict) -> dict:
    """Micro accuracy (every question alike), macro (every subject alike), calibration, and each group and subject."""
    subjects = defaultdict(list)
    for sample in samples:
        subjects[sample["subject"]].append(sample["correct"])
    by_subject = {subject: statistics.proportion(hits) for subject, hits in subjects.items()}
    groups = {
        group: [hit for subject in members for hit in subjects.get(subject, ())] for group, members in GROUPS.items()
    }
    return {
        "metrics": {
            "accuracy": statistics.proportion([sample["correct"] for sample in samples]),
            "accuracy_macro": statistics.macro(list(by_subject.values())),
            "calibration_error": choices.calibration_error(samples, config.calibration_bins),
        },
        "chance": 0.25,
        "groups": {group: statistics.proportion(hits) for group, hits in groups.items() if hits},
        "subjects": by_subject,
        "counts": choices.counts(samples, items),
    }
