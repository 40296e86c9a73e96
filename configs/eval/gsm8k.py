"""GSM8K, five worked examples, greedy.

    python -m imitation_jax.evaluate --config=configs/eval/gsm8k.py --config.data=test.jsonl \
        --config.shots_data=train.jsonl --model=orbax:RUN --workdir=RUN

`gsm8k.py:chat` asks a chat model without examples, `gsm8k.py:lm_eval` draws examples and ends answers as lm-eval does.
Rows have question and answer, whose last line is "#### " and the number. Expected on the 1,319 questions (LLaMA paper,
eight shots): LLaMA-7B 0.110, LLaMA-13B 0.178; standard error 0.01.
"""

from imitation_jax.evaluation import config as evaluation


def get_config(variant: str = ""):
    return evaluation.of_task(
        "gsm8k",
        variant,
        chat={"shots": 0, "prompt": "instruction", "chat": True},
        lm_eval={"shots_from": "lm_eval", "seed": 1234, "max_new_tokens": 256},
    )
