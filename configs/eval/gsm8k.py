"""GSM8K, five worked examples, greedy.

    python -m imitation_jax.evaluate --config=configs/eval/gsm8k.py --config.data=test.jsonl \
        --config.shots_data=train.jsonl --model=orbax:RUN --workdir=RUN

`gsm8k.py:chat` asks a chat model without examples, `gsm8k.py:lm_eval` draws examples and ends answers as lm-eval does.
Rows have question and answer, whose last line is "#### " and the number. Expected on the 1,319 questions (LLaMA paper,
eight shots): LLaMA-7B 0.110, LLaMA-13B 0.178; standard error 0.01.
"""

from imitation_jax.evaluation import config as evaluation


def get_config(variant: str = ""):
    config = evaluation.of_model("gsm8k")
    config.data = ""
    config.shots_data = ""
    config.shots = 5
    config.shots_from = "seed"  # one draw for all; "first": the file's first rows; "lm_eval": a draw a question
    config.seed = 0  # which examples are drawn
    config.prompt = "lm_eval"  # or "instruction"
    config.max_new_tokens = 512
    config.chat = False  # ask in the model's chat template
    if variant == "chat":
        config.shots = 0
        config.prompt = "instruction"
        config.chat = True
    elif variant == "lm_eval":
        config.shots_from = "lm_eval"
        config.seed = 1234
        config.max_new_tokens = 256
    elif variant:
        raise ValueError(f"gsm8k.py:{variant}: the variants are chat and lm_eval")
    return config
