"""Asks a teacher: a file of prompts for its answers, or for new data grown from examples.

    python -m imitation_jax.collect --config=configs/teacher/gpt_3_5_turbo.py --prompts=FILE --output=FILE.jsonl
    python -m imitation_jax.collect --config=configs/teacher/nq_synthetic.py --config.seeds=FILE --config.avoid=FILE \\
        --output=FILE.jsonl

Prompts are JSON Lines or a list (id with messages, or with instruction), or a .txt file with one a line. The teacher is
any OpenAI-compatible API; its key stands in the environment variable that config.key names, and nowhere else. The
output is a file of dialogues to prepare or to train on, and an answer file as well, to compare with.

Every answer is on disk before another is waited for: the same command goes on after anything, and asks nothing twice.
No budget of the config is passed. Prompts that are refused stand in FILE.failed.jsonl with the reason. Exits 0 when
every prompt is answered or refused. configs/teacher/ also has tldr_synthetic.py and self_instruct.py.
"""

from imitation_jax.core import command

CONFIG = command.define_config("configs/teacher/gpt_3_5_turbo.py")
PROMPTS = command.define_string("prompts", "", "What to ask; nothing where the config makes its own prompts.")
OUTPUT = command.define_string("output", None, "JSON Lines file of the answers; it is added to.", required=True)
DRY_RUN = command.define_boolean("dry_run", "Only say how many requests that is and what they cost.")
RETRY = command.define_boolean("retry_refused", "Ask again what was refused, too.")


def main() -> int:
    config, output = CONFIG.value, OUTPUT.value
    if config.task == "answers":
        from imitation_jax.teacher import collect

        if not PROMPTS.value:
            raise ValueError("--prompts is required; --help tells more")
        given = (config, PROMPTS.value, output, RETRY.value)
        if DRY_RUN.value:
            print(collect.plan(*given))
        else:
            collect.collect(*given)
        return 0
    from imitation_jax.teacher import synthesis

    if PROMPTS.value:
        raise ValueError("--prompts: this config makes its own prompts")
    if DRY_RUN.value:
        print(synthesis.plan(config, output))
    else:
        synthesis.grow(config, output)
    return 0


if __name__ == "__main__":
    command.run(main)
