"""A closed-book quiz: which of a few answers does the model find likely after the bare question?

    python -m imitation_jax.evaluate --config=configs/eval/facts.py --config.data=facts.jsonl \
        --model=gguf:BASE.gguf,orbax:RUN --workdir=RUN

The file is JSONL with id, question, choices and answer (an index); rows with query, choices and gold are read too.
Expected on the first 300 questions of ARC-Easy: SmolLM2-135M-Instruct (Q4_1) 0.487 by sum and 0.447
by character, standard error 0.029, guessing 0.25.
"""

from imitation_jax.evaluation import config as evaluation


def get_config():
    return evaluation.of_task("facts")
