"""Answers of GPT-3.5 Turbo to a file of prompts.

    export OPENAI_API_KEY=...
    python -m imitation_jax.collect --config=configs/teacher/gpt_3_5_turbo.py --prompts=FILE --output=FILE.jsonl

With --dry_run it only says how many requests that is and what they cost. FILE is JSON Lines with id and messages or
instruction, or a .txt file with a prompt a line. The paper's teacher was the ChatGPT of early 2023, a model that is
served no more; any other is --config.model=NAME with its prices, and any OpenAI-compatible API
--config.url=https://HOST/v1 with --config.key=NAME_OF_VARIABLE. Give it your account's rate limits: as they stand here
it asks about 1,800 prompts of 90 tokens in ten minutes, which cost less than $3.
"""

from imitation_jax.teacher import config as teacher


def get_config():
    config = teacher.gpt_3_5_turbo(teacher.get_config())
    config.budget.dollars = 10.0
    return config
