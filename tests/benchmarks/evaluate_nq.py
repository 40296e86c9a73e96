"""Natural Questions 3-shot, greedy: lm-eval's hf back end against this project's plug-in on 200 questions.

    python tests/benchmarks/evaluate_nq.py --reference-python=PYTHON_WITH_TORCH_AND_LM_EVAL

Runs in an interpreter with imitation_jax[lm-eval]. The task is lm-eval's nq_open, its stops included, with shots out of
the EfficientQA questions: three others for every question, as lm-eval draws them, so that there is nothing to share, or
with --same-shots the first three for all. Prints questions/s of both and how many texts equal.
"""

from pathlib import Path

from lm_eval_sides import compare, flags


def tasks_of(data: Path, same_shots: bool) -> tuple[dict[str, dict], dict[str, int]]:
    """(task files, rows of each)."""
    files = {"train": "NQ-open.efficientqa.dev.1.1.jsonl", "validation": "NQ-open.dev.jsonl"}
    paths = {part: (data / "nq_open" / name).resolve() for part, name in files.items()}
    task = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {part: str(path) for part, path in paths.items()}},
        "output_type": "generate_until",
        "training_split": "train",
        "validation_split": "validation",
        "num_fewshot": 3,
        "description": "Answer these questions:\n\n",
        "doc_to_text": "Q: {{question}}?\nA:",
        "doc_to_target": "{{answer}}",
        "fewshot_delimiter": "\n",
        "target_delimiter": " ",
        "generation_kwargs": {"until": ["\n", ".", ","], "do_sample": False, "temperature": 0.0},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }
    if same_shots:
        task["fewshot_config"] = {"sampler": "first_n"}
    with open(paths["validation"], encoding="utf-8") as lines:
        return {"nq_local": task}, {"nq_local": sum(1 for _ in lines)}


def main() -> None:
    parser = flags(__doc__, questions=200, reference_questions=200)
    parser.add_argument("--same-shots", action="store_true", help="the first three questions, for all")
    args = parser.parse_args()
    found = compare(args, *tasks_of(args.data, args.same_shots), same_rows=True)
    ours, theirs = found["ours"]["nq_local"], found["reference"]["nq_local"]
    different = [document for document, text in theirs.items() if ours[document] != text]
    print(f"texts compared: {len(theirs)}; different: {len(different)}")
    for document in different[:10]:
        print(f"  question {document}: {theirs[document][0]!r} (lm-eval), {ours[document][0]!r} (ours)")


if __name__ == "__main__":
    main()
