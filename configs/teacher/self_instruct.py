"""Tasks grown from seeds as in Self-Instruct (arXiv 2212.10560), with their solutions, a request for eight at a time.

    python -m imitation_jax.collect --config=configs/teacher/self_instruct.py --config.seeds=seed_tasks.jsonl \
        --config.avoid=user_oriented_instructions.jsonl --output=grown.jsonl

seed_tasks.jsonl is Self-Instruct's, or rows with instruction, input and output. Each request shows six seeds and two
tasks that came of earlier requests. Taken is what is unlike all before (ROUGE-L below 0.7), asks for nothing that a
text cannot be, and does not stand in config.avoid; the rest is in grown.rejected.jsonl with its reason. grown.jsonl
can be trained on, and is a file of prompts as well: `collect --config=configs/teacher/gpt_3_5_turbo.py
--prompts=grown.jsonl` asks for each solution anew, by itself. `self_instruct.py:local` asks SmolLM2 behind `serve`, see
local.py.
"""

from imitation_jax.teacher import config as teacher

PROMPT = """\
These are tasks with their solutions. A task is an instruction and, where it needs one, an input that the instruction \
is about.

{examples}

Now write {count} new tasks with their solutions in the same form. They are about different subjects, of different \
kinds and in different words, some with and some without an input, and all of them can be solved in writing."""


def get_config(variant: str = ""):
    config = teacher.gpt_3_5_turbo(teacher.get_config("self_instruct"))
    config.source = "self_instruct"
    config.budget.dollars = 50.0
    config.parameters.max_tokens = 2048
    config.seeds = ""
    config.avoid = ""  # evaluation files, with commas; or none
    config.target = 5000
    config.shown_seeds = 6
    config.shown_grown = 2
    config.most_shown_words = 150  # longer tasks are not shown
    config.most_of_a_request = 8  # tasks that a request asks for
    config.prompt = PROMPT
    config.most_alike = 0.7  # ROUGE-L with an earlier instruction from which on a new one is left out
    config.least_words = 3  # of an instruction
    config.most_words = 150
    # Instructions with one of these words are left out.
    config.skip_words = (
        "image,images,picture,pictures,photo,graph,graphs,file,files,map,maps,draw,plot,video,audio,music,flowchart,"
        "diagram"
    )
    config.window = 32  # so many requests may be ahead of the last one whose answer has been read
    config.patience = 50  # when so many answers in a row gave too little ...
    config.least_yield = 0.1  # ... fewer rows an answer than this, asking ends
    if variant == "local":
        config = teacher.local(config)
        config.target = 100
    elif variant:
        raise ValueError(f"self_instruct.py:{variant}: the variant is local")
    return config
