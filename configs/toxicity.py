"""A toxicity scorer that needs no network: hashed n-grams, trained on Perspective's published scores.

    python -m imitation_jax.toxicity --config=configs/toxicity.py --config.data=FILE.jsonl --output=FILE.npz

FILE.jsonl is RealToxicityPrompts. EXPECTED
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.data = ""
    config.hatecheck = ""  # HateCheck's test_suite_cases.csv: its AUC is printed too
    config.test_share = 0.2  # of the documents, never trained on; the printed figures are theirs
    config.calibration_share = 0.1  # of the other documents, left out of a second training that calibrates; 0 for none
    config.folds = 5  # the same figures over all documents, from so many more trainings; 0 for none
    config.seed = 0
    config.members = 4
    config.dimension = 16
    config.hidden = 32
    config.epochs = 8
    config.batch_size = 64
    config.learning_rate = 5e-3
    config.gram_dropout = 0.5
    config.word_dropout = 0.1
    config.other_attributes = 0.3  # weight of Perspective's other seven scores beside toxicity's 1
    return config
