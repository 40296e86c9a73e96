"""Prepares dialogues: dumps in; dialogues.jsonl, rejected.jsonl, card/ and a tfds dataset out.

    python -m imitation_jax.prepare --config=configs/data/sharegpt.py --config.input=PATH[,PATH...] --output=DIR

Every row of the input is in dialogues.jsonl or, with its reason, in rejected.jsonl; card/card.json has the counts.
DIR must not exist; it appears when it is whole.
"""

from imitation_jax import command

CONFIG = command.define_config("configs/data/sharegpt.py")
OUTPUT = command.define_string("output", None, "Folder to write; it must not exist yet.", required=True)


def main() -> int:
    from imitation_jax.data.prepare import prepare

    prepare(CONFIG.value, OUTPUT.value)
    return 0


if __name__ == "__main__":
    command.run(main)
