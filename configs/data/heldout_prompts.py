"""Prompts -> those to evaluate with, as in the paper: 255 that are English, not coding, and near no training query.

Command:   python -m imitation_jax.prepare --config=configs/data/heldout_prompts.py --config.input=PROMPTS
           --config.training=DATASET --output=DIR
Hardware:  any CPU; about 1 GB of memory for every million words of prompts and 50,000 training queries.
Time:      on one core about 1,000 prompts a second for every 50,000 training queries, and 5 s for each 50,000.
Expected:  DIR/prompts.jsonl, which collect and evaluate take, and every other row in DIR/rejected.jsonl, with the BLEU
           and the id of its nearest training query. Coding is guessed by patterns (data/categories.py).
"""

from imitation_jax.data import heldout


def get_config():
    return heldout.get_config()
