"""MMLU, five shots, lm-eval's prompt.

    python -m imitation_jax.evaluate --config=configs/eval/mmlu.py --config.data_dir=DIR \
        --config.subjects=philosophy,virology --model=orbax:RUN --workdir=RUN

DIR holds dev/SUBJECT_dev.csv and test/SUBJECT_test.csv (header question,choice0..choice3,answer). No subjects means all
that DIR has: 57 with 14,042 questions. Expected accuracy over all: LLaMA-7B 0.351, LLaMA-13B 0.469 (LLaMA paper),
guessing 0.25; standard error 0.004.
"""

from imitation_jax.evaluation import config as evaluation


def get_config():
    config = evaluation.of_model("mmlu")
    config.data_dir = ""
    config.subjects = ""  # comma-separated
    config.shots = 5
    config.prompt = "lm_eval"  # or "original", with two spaces before the subject
    config.chat = False  # ask in the model's chat template
    return config
