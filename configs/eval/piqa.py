"""PIQA, no shots, lm-eval's prompt.

    python -m imitation_jax.evaluate --config=configs/eval/piqa.py --config.data=tfds:piqa:validation \
        --model=orbax:RUN --workdir=RUN

Data are tfds' (array_record); the published dev.jsonl with dev-labels.lst beside it; or JSONL or CSV with goal, sol1,
sol2, label, or with query, choices and gold. 1,838 questions. Expected accuracy: LLaMA-7B 0.798, LLaMA-13B 0.801 (LLaMA
paper), guessing 0.5; standard error 0.009.
"""

from imitation_jax.evaluation import config as evaluation


def get_config():
    return evaluation.of_task("piqa")
