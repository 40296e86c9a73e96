"""HellaSwag, no shots, lm-eval's prompt; `hellaswag.py:10_shot` with ten.

    python -m imitation_jax.evaluate --config=configs/eval/hellaswag.py --config.data=hellaswag_val.jsonl \
        --model=orbax:RUN --workdir=RUN
    python -m imitation_jax.evaluate --config=configs/eval/hellaswag.py:10_shot --config.data=hellaswag_val.jsonl \
        --config.shots_data=hellaswag_train.jsonl ...

Data are the published JSONL (10,042 questions to validate on), or tfds:hellaswag:validation, which lacks the two parts
of a context, so that the second keeps its small letter and numbers differ a little from lm-eval's. lm-eval's acc is
accuracy here, its acc_norm is accuracy_normalised, the one that is quoted. Expected: LLaMA-7B 0.761, LLaMA-13B 0.792
(LLaMA paper, no shots, normalised), guessing 0.25; standard error 0.004.
"""

from imitation_jax.evaluation import config as evaluation


def get_config(variant: str = ""):
    return evaluation.of_task("hellaswag", variant, **{"10_shot": {"shots": 10}})
