"""The four automatic rows of the paper's style table, between two answer files; needs no model.

    python -m imitation_jax.evaluate --config=configs/eval/style.py --config.answers=RUN/eval/student/answers.jsonl \
        --config.reference=teacher.jsonl --workdir=RUN

Rows are matched by id, else by instruction. The ceiling is a second sample of the teacher against the first, with
--config.role=teacher. Expected on alpaca_eval's 805 prompts against ChatGPT-0301 (list / summary / unigrams / lengths):
ChatGPT-0613 .94 / .64 / .497 / .80, Vicuna-13B .86 / .45 / .448 / .72, Alpaca-7B .22 / .01 / .352 / .60.
"""

from imitation_jax.evaluation import config as evaluation


def get_config():
    return evaluation.of_task("style")
