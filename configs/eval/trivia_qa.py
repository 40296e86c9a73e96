"""TriviaQA, closed book, five shots, greedy.

    python -m imitation_jax.evaluate --config=configs/eval/trivia_qa.py --config.data=unfiltered.nocontext.dev.jsonl \
        --config.shots_data=unfiltered.nocontext.train.jsonl --model=orbax:RUN --workdir=RUN

`trivia_qa.py:zero_shot` asks without examples, `trivia_qa.py:lm_eval` asks and judges as lm-eval does (zero shots, on
rc.nocontext). Rows have question and answer with value and aliases, as in the Hugging Face set's nocontext parts.
Expected exact match, zero and five shots (LLaMA paper, whose answers end at a full stop or comma too:
--config.stops=lm_eval): LLaMA-7B 0.500 and 0.563, LLaMA-13B 0.566 and 0.631; standard error 0.005.
"""

from imitation_jax.evaluation import config as evaluation


def get_config(variant: str = ""):
    theirs = dict.fromkeys(("shots_from", "prompt", "stops", "normalise"), "lm_eval")
    lm_eval = {**theirs, "shots": 0, "seed": 1234, "max_new_tokens": 256}
    return evaluation.of_task("trivia_qa", variant, zero_shot={"shots": 0}, lm_eval=lm_eval)
