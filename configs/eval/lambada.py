"""LAMBADA, no shots: is the last word of a passage what the model would write, and how likely is it?

    python -m imitation_jax.evaluate --config=configs/eval/lambada.py --config.data=lambada_openai.jsonl \
        --model=orbax:RUN --workdir=RUN

Data are JSONL or CSV with text, or with context and continuation. OpenAI's version of the test set (5,153 passages) is
lm-eval's lambada_openai; tfds:lambada:test is the set as first published, lm-eval's lambada_standard.
"""

from imitation_jax.evaluation import config as evaluation


def get_config():
    return evaluation.of_task("lambada")
