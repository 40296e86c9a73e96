"""ShareGPT dumps -> clean dialogues, as in the paper: English ones, and each query once.

Command:   python -m imitation_jax.prepare --config=configs/data/sharegpt.py --config.input=PATH --output=DIR
Hardware:  any CPU; memory grows to about 1 GB for a million dialogues.
Time:      about 1,000 conversations a second on one core.
Expected:  every row in dialogues.jsonl or, with its step and reason, in rejected.jsonl; card/index.html has the funnel.
           The paper came from ~90K to ~50K; of dumps that others have cleaned before about 7% are rejected.

sharegpt.py:unfiltered drops refusals and moralising too, as the lineage's "unfiltered" sets do, by a list of phrases.
"""

from imitation_jax.data import prepare


def get_config(variant: str = ""):
    config = prepare.get_config("sharegpt")
    config.steps = "error_replies,repetition,language,exact_duplicates,near_duplicates"
    if variant == "unfiltered":
        config.steps = "error_replies,keywords,repetition,language,exact_duplicates,near_duplicates"
    elif variant:
        raise ValueError(f"sharegpt.py:{variant}: the variant is unfiltered")
    return config
