"""Answers of a model behind this project's own server: no key, no cost, the same answers every time.

    python -m imitation_jax.serve --model=gguf:SmolLM2-135M-Instruct.Q4_1.gguf --port=8000
    python -m imitation_jax.collect --config=configs/teacher/local.py --prompts=FILE --output=FILE.jsonl

--config.model is the name that the server gives the model (GET /v1/models tells it), by default that of SmolLM2.
"""

from imitation_jax.teacher import config as teacher


def get_config():
    return teacher.local(teacher.get_config())
