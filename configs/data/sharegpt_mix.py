"""ShareGPT-Mix, the paper's broad imitation set: ShareGPT, HC3 and Discord bots together.

Command:   python -m imitation_jax.prepare --config=configs/data/sharegpt_mix.py --config.inputs.sharegpt=PATH
           --config.inputs.hc3=PATH --config.inputs.discord="PATH/*.json" --output=DIR
Hardware:  any CPU; memory grows to about 1 GB for a million dialogues.
Time:      about 1,000 dialogues a second on one core.
Expected:  the paper's ~50K dialogues, ~27K answers to ~24K questions, and 10K examples. What is asked twice is kept
           once, in the order above, so that HC3 gives one answer a question; who wants all of them prepares the sets
           one by one and mixes them in training. The card counts each set under `sources`.
"""

from ml_collections import ConfigDict

from imitation_jax.data import prepare


def get_config():
    config = prepare.get_config()
    del config.format, config.input
    config.inputs = ConfigDict({"sharegpt": "", "hc3": "", "discord": ""}, sort_keys=False)
    config.steps = "error_replies,repetition,language,exact_duplicates,near_duplicates"
    return config
