"""Natural Questions (open), three shots, greedy.

    python -m imitation_jax.evaluate --config=configs/eval/nq.py --config.data=NQ-open.dev.jsonl \
        --config.shots_data=NQ-open.efficientqa.dev.1.1.jsonl --model=orbax:RUN --workdir=RUN

`nq.py:zero_shot` asks without examples, `nq.py:lm_eval` asks and judges as lm-eval does (give it the train split as
shots_data). Both files are JSONL with question and answer, a list. Examples that are test questions are dropped and
counted. Expected exact match on the 3,610 questions, three shots (Table 1 of the paper): LLaMA-7B 0.17, LLaMA-13B
0.20, ChatGPT 0.31; standard error 0.007.
"""

from imitation_jax.evaluation import config as evaluation


def get_config(variant: str = ""):
    config = evaluation.of_model("nq")
    config.data = ""
    config.shots_data = ""
    config.shots = 3
    config.shots_from = "seed"  # one draw for all; "first": the file's first rows; "lm_eval": a draw a question
    config.seed = 0  # which examples are drawn
    config.prompt = "llama"  # or "lm_eval": the same, but the question as it is
    config.stops = "newline"  # or "lm_eval": newline, full stop, comma
    config.normalise = "squad"  # or "lm_eval"
    config.max_new_tokens = 32
    config.chat = False  # ask in the model's chat template
    if variant == "zero_shot":
        config.shots = 0
    elif variant == "lm_eval":
        config.shots_from = config.prompt = config.stops = config.normalise = "lm_eval"
        config.seed = 1234
        config.max_new_tokens = 256
    elif variant:
        raise ValueError(f"nq.py:{variant}: the variants are zero_shot and lm_eval")
    return config
