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
    config = teacher.gpt_3_5_turbo(teacher.get_config("nq"))
    config.source = "nq_synthetic"
    config.budget.dollars = 10.0
    config.seeds = ""
    config.avoid = ""  # evaluation files, with commas; or none
    config.target = 6000
    config.seed_pairs = 10  # of the file, drawn by config.seed where it has more
    config.shown = 5  # of them in a request
    config.most_of_a_request = 10  # pairs that a request asks for
    config.prompt = PROMPT
    config.most_question_words = 30
    config.most_answer_words = 10
    config.window = 64  # so many requests may be ahead of the last one whose answer has been read
    config.patience = 50  # when so many answers in a row gave too little ...
    config.least_yield = 0.1  # ... fewer rows an answer than this, asking ends
    if variant == "local":
        config = teacher.local(config)
        config.target = 200
    elif variant:
        raise ValueError(f"nq_synthetic.py:{variant}: the variant is local")
    return config
