"""SmolLM2-360M.

    python -m imitation_jax.train --config=configs/smollm2_360m.py --config.data.path=gs://BUCKET/DATA \
        --config.model.init=hf:DIR --workdir=gs://BUCKET/RUN

Slice: v5e:2x4, 8 chips, as fsdp=8; elsewhere give --config.mesh.
Estimated (how: `student` in training/config.py): 1.1 GiB a chip of 16; 0.3 s a step, 0.19 h for 150M tokens.
Variant: `smollm2_360m.py:paper`, the letter of the paper: its optimiser, learning rate and warm-up.
"""

from imitation_jax.training import config as training


def get_config(variant=""):
    config = training.student("smollm2_360m", variant, learning_rate=3e-4, template="model")
    config.plan.topology = "v5e:2x4"
    return config
