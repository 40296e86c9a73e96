"""MMLU, five shots, lm-eval's prompt.

    python -m imitation_jax.evaluate --config=configs/eval/mmlu.py --config.data_dir=DIR \
        --config.subjects=philosophy,virology --model=orbax:RUN --workdir=RUN

DIR holds dev/SUBJECT_dev.csv and test/SUBJECT_test.csv, as published (no header) or with the header
question,choice0..choice3,answer. No subjects means all that DIR has: 57 with 14,042 questions. The result has accuracy
over all questions, over subjects (macro), by group and by subject, and the expected calibration error.
`mmlu.py:original` asks with the original code's prompt. Expected accuracy over all: LLaMA-7B 0.351, LLaMA-13B 0.469
(LLaMA paper), guessing 0.25; standard error 0.004.
"""

from imitation_jax.evaluation import config as evaluation


def get_config(variant: str = ""):
    return evaluation.of_task("mmlu", variant, original={"prompt": "original"})
