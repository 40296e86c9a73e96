"""MMLU 5-shot: lm-eval's hf back end against this project's plug-in on 10 subjects with prefixes of all lengths.

    python tests/benchmarks/evaluate_mmlu.py --reference-python=PYTHON_WITH_TORCH_AND_LM_EVAL

Runs in an interpreter with imitation_jax[lm-eval]. Prints questions/s of both, tokens forwarded against the distinct
ones and against EasyLM's scheme, and how the answers differ. Subjects are chosen by the length of their five shots.
"""

import csv
from pathlib import Path

from lm_eval_sides import compare, flags, print_choices

from imitation_jax.tokenizers.tokenizer import load_tokenizer

EASYLM_TOKENS = 4 * (1024 + 1024)  # a question of four options: each is one row of padded prompt and padded answer
TEMPLATE = "{{question.strip()}}\nA. {{choice0}}\nB. {{choice1}}\nC. {{choice2}}\nD. {{choice3}}\nAnswer:"


def read(path: Path) -> list[dict]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def description(subject: str) -> str:
    return f"The following are multiple choice questions (with answers) about {subject.replace('_', ' ')}.\n\n"


def shots(subject: str, data: Path) -> str:
    rows = read(data / "dev" / f"{subject}_dev.csv")[:5]
    blocks = []
    for row in rows:
        options = "\n".join(f"{letter}. {row[f'choice{i}']}" for i, letter in enumerate("ABCD"))
        blocks.append(f"{row['question'].strip()}\n{options}\nAnswer: {'ABCD'[int(row['answer'])]}\n\n")
    return description(subject) + "".join(blocks)


def main() -> None:
    parser = flags(__doc__, questions=100, reference_questions=6)
    parser.add_argument("--subjects", type=int, default=10)
    args = parser.parse_args()
    data = args.data / "mmlu"
    tokenizer = load_tokenizer(args.gguf)
    names = sorted(path.name.removesuffix("_test.csv") for path in (data / "test").glob("*_test.csv"))
    lengths = dict(zip(names, map(len, tokenizer.encode_batch([shots(name, data) for name in names])), strict=True))
    ordered = sorted(names, key=lengths.get)
    step = (len(ordered) - 1) / max(1, args.subjects - 1)
    subjects = [ordered[round(i * step)] for i in range(args.subjects)]
    print("subjects and tokens of their shots:", {name: lengths[name] for name in subjects})
    tasks = {
        subject: {
            "dataset_path": "csv",
            "dataset_kwargs": {
                "data_files": {part: str((data / part / f"{subject}_{part}.csv").resolve()) for part in ("dev", "test")}
            },
            "test_split": "test",
            "fewshot_split": "dev",
            "fewshot_config": {"sampler": "first_n"},
            "num_fewshot": 5,
            "output_type": "multiple_choice",
            "description": description(subject),
            "doc_to_text": TEMPLATE,
            "doc_to_choice": list("ABCD"),
            "doc_to_target": "answer",
            "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        }
        for subject in subjects
    }
    found = compare(args, tasks, {name: len(read(data / "test" / f"{name}_test.csv")) for name in subjects})
    if found["forwarded"] is not None:
        easylm = found["questions"] * EASYLM_TOKENS
        print(f"EasyLM's scheme forwards {easylm:,}: {easylm / found['forwarded']:.1f} times ours")
    print_choices(found)


if __name__ == "__main__":
    main()
