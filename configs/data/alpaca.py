"""Alpaca-style instructions (`instruction`, `input`, `output`) -> dialogues of one question and one answer.

Command:   python -m imitation_jax.prepare --config=configs/data/alpaca.py --config.input=PATH --output=DIR
Hardware:  any CPU.
Time:      about 5,000 rows a second on one core.
Expected:  of Alpaca's 52K some hundreds are rejected, most without an output or as duplicates.
"""

from imitation_jax.data import prepare


def get_config():
    config = prepare.get_config("alpaca")
    config.steps = "repetition,exact_duplicates,near_duplicates"
    return config
