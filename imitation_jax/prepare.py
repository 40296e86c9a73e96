"""Prepares dialogues: dumps in; dialogues.jsonl, rejected.jsonl, card/ and a tfds dataset out.

    python -m imitation_jax.prepare --config=configs/data/sharegpt.py --config.input=PATH[,PATH...] --output=DIR

configs/data/ has a file for each format, sharegpt_mix.py for several together, and heldout_prompts.py, which selects
evaluation prompts. Every row of the input is in dialogues.jsonl or, with the step that dropped it and the reason, in
rejected.jsonl; card/index.html shows what came through each step and what is left. --config.steps=NAME,NAME... chooses
the steps: exact_duplicates, near_duplicates, language, error_replies, keywords, repetition, length, personal_data, and
decontaminate, which drops dialogues that hold an item of --config.decontaminate.files. --config.runner=DirectRunner (or
another) does them on Apache Beam. DIR must not exist; it appears when it is whole.
"""

from imitation_jax.core import command

CONFIG = command.define_config("configs/data/sharegpt.py")
OUTPUT = command.define_string("output", None, "Folder to write; it must not exist yet.", required=True)


def main() -> int:
    config = CONFIG.value
    if "training" in config:  # as in heldout_prompts.py
        from imitation_jax.data import heldout

        heldout.select(config, OUTPUT.value)
        return 0
    from imitation_jax.data.prepare import prepare

    prepare(config, OUTPUT.value)
    return 0


if __name__ == "__main__":
    command.run(main)
