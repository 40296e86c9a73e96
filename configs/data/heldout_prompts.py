"""Prompts -> those to evaluate with, as in the paper: 255 that are English, not coding, and near no training query.

Command:   python -m imitation_jax.prepare --config=configs/data/heldout_prompts.py --config.input=PROMPTS
           --config.training=DATASET --output=DIR
Hardware:  any CPU; about 1 GB of memory, as training queries are indexed 50,000 at a time.
Time:      on one core, for each 50,000 training queries 5 s and another second for every 1,000 prompts.
Expected:  DIR/prompts.jsonl, which collect and evaluate take, and every other row in DIR/rejected.jsonl, with the BLEU
           and the id of its nearest training query. Coding is guessed by patterns (data/categories.py).
"""

from imitation_jax.data import heldout


def get_config():
    return heldout.get_config()
