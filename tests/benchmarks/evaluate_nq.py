"""Natural Questions 3-shot, greedy: lm-eval's hf back end against this project on 200 questions.

    python tests/benchmarks/evaluate_nq.py --reference-python=PYTHON_WITH_TORCH_AND_LM_EVAL

The task is lm-eval's nq_open, its stops included, with shots out of the EfficientQA questions: three others for every
question, as lm-eval draws them, so that there is nothing to share, or with --same-shots the first three for all. Our
side is the command `evaluate` with configs/eval/nq.py:lm_eval, or with --plug-in the lm-eval plug-in (in an interpreter
with imitation_jax[lm-eval]). Prints questions/s of both and how many texts equal, spaces around them aside.
"""

import functools
import json
import shutil
import sys
from pathlib import Path

from lm_eval_sides import cold, compare, flags, ours

FILES = {"train": "NQ-open.efficientqa.dev.1.1.jsonl", "validation": "NQ-open.dev.jsonl"}


def tasks_of(data: Path, same_shots: bool) -> tuple[dict[str, dict], dict[str, int]]:
    """(task files, rows of each)."""
    paths = {part: (data / "nq_open" / name).resolve() for part, name in FILES.items()}
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


def evaluate(ask: dict, scratch: Path, data: Path, same_shots: bool) -> dict:
    """What the command `evaluate` answers."""
    pool, questions = (str((data / "nq_open" / name).resolve()) for name in FILES.values())
    [(_, limit)] = ask["rows"].values()
    command = [sys.executable, "-m", "imitation_jax.evaluate", "--config=configs/eval/nq.py:lm_eval"]
    command += [f"--config.data={questions}", f"--config.shots_data={pool}", f"--config.limit={limit}"]
    command += [f"--config.shots_from={'first' if same_shots else 'lm_eval'}", f"--model=gguf:{ask['gguf']}"]
    wall, _ = cold([*command, f"--workdir={scratch / 'run'}"], scratch)
    [result] = scratch.glob("run/eval/*/nq.json")
    seconds = json.loads(result.read_text())["seconds"]
    samples = result.with_suffix(".samples.jsonl").read_text().splitlines()
    answers = {sample["id"]: [sample["prediction"]] for sample in map(json.loads, samples)}
    shutil.rmtree(scratch / "run")  # or the next round would find its answers there
    return {"wall": wall, "seconds": seconds, "answers": {"nq_local": answers}}


def main() -> None:
    parser = flags(__doc__, questions=200, reference_questions=200)
    parser.add_argument("--same-shots", action="store_true", help="the first three questions, for all")
    parser.add_argument("--plug-in", action="store_true", help="ours is the lm-eval plug-in")
    args = parser.parse_args()
    run = ours if args.plug_in else functools.partial(evaluate, data=args.data, same_shots=args.same_shots)
    found = compare(args, *tasks_of(args.data, args.same_shots), same_rows=True, run=run)
    mine, theirs = found["ours"]["nq_local"], found["reference"]["nq_local"]
    different = [document for document, [text] in theirs.items() if mine[document][0].strip() != text.strip()]
    print(f"texts compared: {len(theirs)}; different: {len(different)}")
    for document in different[:10]:
        print(f"  question {document}: {theirs[document][0]!r} (lm-eval), {mine[document][0]!r} (ours)")


if __name__ == "__main__":
    main()
