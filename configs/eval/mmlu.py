"""MMLU, five shots, lm-eval's prompt.

    python -m imitation_jax.evaluate --config=configs/eval/mmlu.py --config.data_dir=DIR \
        --config.subjects=philosophy,virology --model=orbax:RUN --workdir=RUN

DIR holds dev/SUBJECT_dev.csv and test/SUBJECT_test.csv (header question,choice0..choice3,answer). No subjects means all
that DIR has: 57 with 14,042 questions. Expected accuracy over all: LLaMA-7B 0.351, LLaMA-13B 0.469 (LLaMA paper),
guessing 0.25; standard error 0.004.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.task = "mmlu"
    config.name = ""  # folder under eval/; the model's own name where empty
    config.role = ""  # base, student or teacher: which column of the report
    config.data_dir = ""
    config.subjects = ""  # comma-separated
    config.shots = 5
    config.prompt = "lm_eval"  # or "original", with two spaces before the subject
    config.chat = False  # ask in the model's chat template
    config.template = "model"  # the chat template: the model's own, "lineage", or a .jinja file
    config.limit = 0  # questions of each subject, 0 for all
    config.batch_size = 16
    config.compute_dtype = "float32"
    config.mesh = "fsdp=-1"
    return config
