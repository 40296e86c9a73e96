"""NQ-synthetic, the data of the paper's local imitation: 6,000 questions like Natural Questions' with short answers.

    python -m imitation_jax.collect --config=configs/teacher/nq_synthetic.py --config.seeds=FILE \
        --config.avoid=NQ-open.dev.jsonl --output=nq_synthetic.jsonl

FILE holds question and answer a line, as NQ does; ten pairs of it are the seeds (the paper took them from NQ's
validation set). Each request shows five of them, drawn anew, and asks for more of the same at temperature 1. Left out,
with the reason in nq_synthetic.rejected.jsonl: pairs whose question came before or is a seed's (case and punctuation
aside), and what stands in config.avoid. Expected of a model like GPT-3.5: 6,000 pairs from 1,000 to 2,000 requests, a
dollar; the share of repetitions grows. `nq_synthetic.py:local` asks SmolLM2 behind `serve`, see local.py.

The prompt says in other words what the paper's says: questions and answers in a series, answers of a few words,
questions in lower case about what Wikipedia has articles on, and then the examples.
"""

from imitation_jax.teacher import config as teacher

PROMPT = """\
Write a series of questions with their answers. Answers are concise, a few words each. Questions are in lower case, \
and each is about an entity that Wikipedia could have an article on. For example:

{examples}

Now write {count} new questions with their answers, in the same form."""


def get_config(variant: str = ""):
    return teacher.grown(
        "nq",
        variant,
        local_target=200,
        source="nq_synthetic",
        budget={"dollars": 10.0},
        seeds="",
        target=6000,
        seed_pairs=10,  # of the file, drawn by config.seed where it has more
        shown=5,  # of them in a request
        most_of_a_request=10,  # pairs that a request asks for
        prompt=PROMPT,
        most_question_words=30,
        most_answer_words=10,
    )
