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
    config = evaluation.of_model("trivia_qa")
    config.data = ""
    config.shots_data = ""
    config.shots = 5
    config.shots_from = "seed"  # one draw for all; "first": the file's first rows; "lm_eval": a draw a question
    config.seed = 0  # which examples are drawn
    config.prompt = "llama"  # or "lm_eval"
    config.stops = "newline"  # or "lm_eval": newline, full stop, comma
    config.normalise = "official"  # or "lm_eval"
    config.max_new_tokens = 32
    config.chat = False  # ask in the model's chat template
    if variant == "zero_shot":
        config.shots = 0
    elif variant == "lm_eval":
        config.shots_from = config.prompt = config.stops = config.normalise = "lm_eval"
        config.shots = 0
        config.seed = 1234
        config.max_new_tokens = 256
    elif variant:
        raise ValueError(f"trivia_qa.py:{variant}: the variants are zero_shot and lm_eval")
    return config
