"""HC3 (English): ChatGPT's answers to questions that people had answered, one dialogue for each answer.

Command:   python -m imitation_jax.prepare --config=configs/data/hc3.py --config.input=all.jsonl --output=DIR
Hardware:  any CPU.
Time:      about 5,000 answers a second on one core.
Expected:  the paper's ~27K responses to ~24K questions are the whole set, so that only answers that are no answer and
           equal questions go, and nothing is compared by likeness: its questions often share a frame.
"""

from imitation_jax.data import prepare


def get_config():
    config = prepare.get_config("hc3")
    config.steps = "error_replies,repetition,language"
    return config
