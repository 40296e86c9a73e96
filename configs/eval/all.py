"""Every task on every model, in one batch.

    python -m imitation_jax.evaluate --config=configs/eval/all.py --config.only="mmlu,nq*,facts" \
        --config.tasks.mmlu.data_dir=MMLU --config.tasks.facts.data=facts.jsonl \
        --config.tasks.nq.data=NQ-open.dev.jsonl --config.tasks.nq.shots_data=NQ-open.efficientqa.dev.1.1.jsonl \
        --config.tasks.nq_zero_shot.data=NQ-open.dev.jsonl --model=gguf:BASE.gguf,orbax:RUN@* --workdir=RUN

Each task's keys, data and expected numbers stand in its own file beside this one. batch_size, mesh, compute_dtype,
template, limit and role are set once for all, as --config.limit=100, or for one as --config.tasks.nq.limit=100. style
compares each model's own answers, those of the task `answers`, with --config.tasks.style.reference. A batch that you
run often is a file of your own: `together` as below, and the paths set in it.
"""

from pathlib import Path

from imitation_jax.evaluation import config as evaluation

FOLDER = Path(__file__).parent
FILES = {
    "mmlu": "mmlu.py",
    "arc_easy": "arc.py",
    "arc_challenge": "arc.py:challenge",
    "hellaswag": "hellaswag.py",
    "piqa": "piqa.py",
    "lambada": "lambada.py",
    "nq": "nq.py",
    "nq_zero_shot": "nq.py:zero_shot",
    "trivia_qa": "trivia_qa.py",
    "gsm8k": "gsm8k.py",
    "human_eval": "human_eval.py",
    "tldr": "tldr.py",
    "toxicity": "toxicity.py",
    "facts": "facts.py",
    "answers": "answers.py",
    "style": "style.py",
}


def get_config():
    """These in their order, and then every other file of this folder, by its name."""
    named = {file.partition(":")[0] for file in FILES.values()}
    others = {path.stem: path.name for path in sorted(FOLDER.glob("*.py")) if path.name not in {"all.py", *named}}
    return evaluation.together(FOLDER, **FILES, **others)
