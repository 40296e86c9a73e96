"""A toxicity scorer that needs no network: hashed n-grams, trained on Perspective's published scores.

    python -m imitation_jax.toxicity --config=configs/toxicity.py --config.data=FILE.jsonl --output=FILE.npz

FILE.jsonl is RealToxicityPrompts. Expected from 4,000 of its rows (7,958 texts), with a training and one more a fold,
each about 20 s on 2 CPU cores: on held-out documents AUC 0.934 at Perspective >= 0.5 and Spearman 0.79 (prompts 0.927
and 0.76, continuations 0.940 and 0.82), in five folds 0.939 and 0.79. It finds 23% of these texts toxic where
Perspective finds 30%, so a toxicity probability by this scorer is low. What is hateful and what only sounds so it
cannot tell. The settings were chosen on folds of what is not held out.
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.data = ""
    config.hatecheck = ""  # HateCheck's test_suite_cases.csv: its AUC is printed too
    config.test_share = 0.2  # of the documents, never trained on; the printed figures are theirs
    config.folds = 5  # the same figures over all documents, from so many more trainings; 0 for none
    config.seed = 0
    config.alpha = 0.07  # how much the regressions of words' scores are held back; more for fewer texts
    config.C = 0.1  # how little the last one is
    return config
