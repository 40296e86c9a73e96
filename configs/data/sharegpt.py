"""ShareGPT dumps -> clean dialogues.

Command:   python -m imitation_jax.prepare --config=configs/data/sharegpt.py --config.input=PATH --output=DIR
Hardware:  any CPU; memory stays below 1 GB whatever the size of the dump.
Time:      about 2,000 conversations a second on one core.
Expected:  every row in dialogues.jsonl or, with its reason, in rejected.jsonl; of real dumps about 2% are rejected.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    # Comma-separated paths or patterns: JSON lists or JSON Lines, .gz or not.
    config.input = ""
    # Longer rows are set aside; the longest real conversations have about 1 MB, and a tokenizer needs minutes and
    # gigabytes for a row of hundreds.
    config.max_row_bytes = 8 * 2**20
    return config
