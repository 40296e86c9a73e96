"""TinyLlama 1.1B.

    python -m imitation_jax.train --config=configs/tinyllama_1_1b.py --config.data.path=gs://BUCKET/DATA \
        --config.model.init=hf:DIR --workdir=gs://BUCKET/RUN

Slice: v5e:4x4, 16 chips, as fsdp=16; elsewhere give --config.mesh.
Estimated (how: `student` in training/config.py): 1.4 GiB a chip of 16; 0.38 s a step, 0.24 h for 150M tokens.
Variant: `tinyllama_1_1b.py:paper`, the letter of the paper: its optimiser, learning rate and warm-up.
"""

from imitation_jax.training import config as training


def get_config(variant=""):
    config = training.student("tinyllama_1_1b", variant)
    config.plan.topology = "v5e:4x4"
    return config
