"""Answers to a file of prompts: writes WORKDIR/eval/<model>/answers.jsonl (id, instruction, output, generator).

    python -m imitation_jax.evaluate --config=configs/eval/answers.py --config.prompts=FILE \
        --model=orbax:RUN --workdir=RUN

FILE is JSONL with instruction, prompt, text or messages, a JSON list (alpaca_eval), or a .txt file, a prompt a line.
Greedy by default, as the paper leaves decoding open and a greedy answer is the same on every machine; the lineage's
sampling is --config.temperature=0.7 --config.top_p=0.95. A killed run goes on where it was.
"""

from imitation_jax.evaluation import config as evaluation


def get_config():
    return evaluation.of_task("answers")
