"""Trains the toxicity scorer that needs no network, on Perspective's published scores.

    python -m imitation_jax.toxicity --config=configs/toxicity.py --config.data=FILE.jsonl --output=FILE.npz

The data are RealToxicityPrompts (JSON Lines; prompts and continuations with their scores). Prints how the scorer agrees
with Perspective on held-out documents; the same figures are in the file. The task toxicity of evaluate takes it as
--config.scorer=FILE.npz.
"""

from imitation_jax.core import command

CONFIG = command.define_config("configs/toxicity.py")
OUTPUT = command.define_string("output", None, "The .npz file to write.", required=True)


def main() -> int:
    from imitation_jax.evaluation import toxicity_training

    print(toxicity_training.make(CONFIG.value, OUTPUT.value))
    return 0


if __name__ == "__main__":
    command.run(main)
