"""Llama 2 13B.

    python -m imitation_jax.train --config=configs/llama2_13b.py --config.data.path=gs://BUCKET/DATA \
        --config.model.init=hf:DIR --workdir=gs://BUCKET/RUN

Slice: v4:4x4x4, 64 chips, as fsdp=32 x tensor=2; elsewhere give --config.mesh.
Estimated (how: `student` in training/config.py): 3.8 GiB a chip of 32; 0.76 s a step, 0.49 h for 150M tokens.
Variant: `llama2_13b.py:paper`, the letter of the paper: its optimiser, learning rate and warm-up.
"""

from imitation_jax.training import config as training


def get_config(variant=""):
    config = training.student("llama2_13b", variant)
    config.mesh = "fsdp=-1,tensor=2"
    config.plan.topology = "v4:4x4x4"
    return config
