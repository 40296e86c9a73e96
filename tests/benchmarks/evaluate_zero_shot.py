"""ARC-Easy, PIQA and LAMBADA without shots: lm-eval's hf back end against this project's plug-in.

    python tests/benchmarks/evaluate_zero_shot.py --reference-python=PYTHON_WITH_TORCH_AND_LM_EVAL

Runs in an interpreter with imitation_jax[lm-eval]. Nothing is shared among questions here. Prints questions/s of both,
tokens forwarded against those of the requests, and how the answers differ.
"""

from pathlib import Path

from lm_eval_sides import compare, flags, print_choices

FILES = {
    "arc_local": "arc_easy/arc_easy.jsonl",
    "piqa_local": "piqa/piqa_100.jsonl",
    "lambada_local": "lambada_openai/lambada_openai_100.jsonl",
}
CHOICES = {
    "output_type": "multiple_choice",
    "doc_to_text": "{{query}}\nAnswer:",
    "doc_to_choice": "{{choices}}",
    "doc_to_target": "gold",
}
WORD = {"output_type": "loglikelihood", "doc_to_text": "{{context}}", "doc_to_target": "{{continuation}}"}


def tasks_of(data: Path) -> tuple[dict[str, dict], dict[str, int]]:
    """(task files, rows of each)."""
    tasks, rows = {}, {}
    for name, file in FILES.items():
        path = (data / file).resolve()
        tasks[name] = {
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(path)}},
            "test_split": "test",
            **(WORD if name == "lambada_local" else CHOICES),
            "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        }
        rows[name] = sum(1 for _ in open(path, encoding="utf-8"))
    return tasks, rows


def main() -> None:
    args = flags(__doc__, questions=300, reference_questions=30).parse_args()
    print_choices(compare(args, *tasks_of(args.data)))


if __name__ == "__main__":
    main()
