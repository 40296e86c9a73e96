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
    theirs = dict.fromkeys(("shots_from", "prompt", "stops", "normalise"), "lm_eval")
    lm_eval = {**theirs, "seed": 1234, "max_new_tokens": 256}
    return evaluation.of_task("nq", variant, zero_shot={"shots": 0}, lm_eval=lm_eval)
