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
    return teacher.grown(
        "self_instruct",
        variant,
        local_target=100,
        source="self_instruct",
        budget={"dollars": 50.0},
        parameters={"max_tokens": 2048},
        seeds="",
        target=5000,
        shown_seeds=6,
        shown_grown=2,
        most_shown_words=150,  # longer tasks are not shown
        most_of_a_request=8,  # tasks that a request asks for
        prompt=PROMPT,
        most_alike=0.7,  # ROUGE-L with an earlier instruction from which on a new one is left out
        least_words=3,  # of an instruction
        most_words=150,
        # Instructions with one of these words are left out.
        skip_words="image,images,picture,pictures,photo,graph,graphs,file,files,map,maps,draw,plot,video,audio,music,"
        "flowchart,diagram",
        window=32,
    )
