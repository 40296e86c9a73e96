"""The paper's study at the size of one CPU or GPU: SmolLM2-135M on ShareGPT (broad) and on QA pairs (local).

    python -m imitation_jax.study --config=configs/studies/smollm2.py --workdir=runs/study --config.public=DIR

At scale 1 ten cells train on 0.33M tokens in all: four broad budgets of 10k to 80k with a warm-up in proportion to the
run, the smallest and the largest with one fixed for all (34 steps, the same share of the longest run as the paper's
1,000 of 2,289), two more seeds of one budget, two local budgets. A step has 1,024 positions, so that 10k are 10 steps.
On 2 CPU cores that took 2 hours with other work beside it, less than half of them training; what came of it is in
smollm2_report/ (`report --shareable`). --scale=0.01 takes about 20 minutes, and shows that all works, nothing else.

DIR holds the public data, each where it is there: sharegpt/sharegpt_sample.jsonl.gz, nq_open/NQ-open.dev.jsonl and
NQ-open.efficientqa.dev.1.1.jsonl, mmlu/dev and mmlu/test, arc_easy/arc_easy.jsonl, alpaca_eval/model_outputs/,
realtoxicityprompts/rtp_val_4000.jsonl. Without DIR (or IMITATION_TEST_DATA) the study is of the demo dialogues and
quiz in imitation_jax/data/demo. The model is fetched, or given as --config.bases.smollm2_135m.model=gguf:FILE.
Dialogues of over 3,000 characters are left out, since a budget that one dialogue exceeds is none. MMLU is a fixed
subset: 12 subjects, three of each group, 25 questions each.
"""

from ml_collections import ConfigDict

from imitation_jax.studies import config as studies

DEMO = "imitation_jax/data/demo"
CHATGPT = "PUBLIC/alpaca_eval/model_outputs/gpt-3.5-turbo"
NQ = "PUBLIC/nq_open/NQ-open"
SUBJECTS = (
    "astronomy,college_biology,high_school_computer_science,"
    "high_school_world_history,philosophy,world_religions,"
    "high_school_geography,high_school_psychology,sociology,"
    "human_aging,marketing,nutrition"
)


def get_config():
    config = studies.get_config("SmolLM2-135M")
    config.bases.smollm2_135m = studies.base(
        model="gguf:.cache/SmolLM2-135M-Instruct.Q4_1.gguf",
        label="SmolLM2-135M-Instruct",
        parameters=134_515_008,
        config="configs/smollm2_135m.py",
        fetch="fetch_smollm2",
        topology="v5e:2x4",
        prefix="smollm2",
        note="The base model is instruction-tuned: it has a style of its own before any imitation, unlike the paper's.",
    )

    config.builds.broad = studies.build(
        "ShareGPT sample",
        "prepare",
        "configs/data/sharegpt.py",
        input="PUBLIC/sharegpt/sharegpt_sample.jsonl.gz",
        steps="error_replies,repetition,language,exact_duplicates,near_duplicates,length",
        length={"most": 3000},  # characters
    )
    config.builds.pairs = studies.build(
        "questions with gold answers",
        "questions",
        questions=f"{NQ}.efficientqa.dev.1.1.jsonl",
        test=f"{NQ}.dev.jsonl",
        shots=32,
    )
    config.builds.local = studies.build(
        "NQ-open pairs",
        "prepare",
        "configs/data/sharegpt.py",
        local=True,
        task="nq,nq_zero_shot",
        format="messages",
        input="WORKDIR/data/pairs/pairs.jsonl",
        steps="exact_duplicates",
    )
    config.builds.heldout = studies.build(
        "held-out prompts",
        "prepare",
        "configs/data/heldout_prompts.py",
        input=f"{CHATGPT}-0301.json",
        training="WORKDIR/data/broad",
        n=48,
    )
    config.builds.toxicity = studies.build(
        "toxicity scorer",
        "toxicity",
        "configs/toxicity.py",
        suffix=".npz",
        data="PUBLIC/realtoxicityprompts/rtp_val_4000.jsonl",
        folds=0,
    )

    config.train = ConfigDict({"data": {"seq_len": 512}, "batch_size": 2, "log_every": 5})
    config.train.checkpoint = {"every": 20, "keep": 1}
    config.train.evaluate = {"every": 0}
    config.schedules.proportional = {
        "optimizer": {"schedule": "constant", "warmup_steps": 0, "warmup_fraction": 0.1},
    }
    config.schedules.fixed = {"optimizer": {"schedule": "constant", "warmup_steps": 34}}

    base = "smollm2_135m"
    config.grids.broad = studies.grid(base, "broad", "10_000,20_000,40_000,80_000", "proportional")
    config.grids.warm_up = studies.grid(base, "broad", "10_000,80_000", "fixed")
    config.grids.seeds = studies.grid(base, "broad", "20_000", "proportional", seeds="1,2")
    config.grids.local = studies.grid(base, "local", "10_000,40_000", "proportional")

    config.evaluations.facts = {"data": f"{DEMO}/quiz.jsonl"}
    config.evaluations.mmlu = {
        "data_dir": "PUBLIC/mmlu",
        "subjects": SUBJECTS,
        "limit": 25,
    }
    config.evaluations.arc_easy = {"data": "PUBLIC/arc_easy/arc_easy.jsonl", "limit": 400}
    nq = {"data": f"{NQ}.dev.jsonl", "limit": 300}
    config.evaluations.nq = {**nq, "shots_data": "WORKDIR/data/pairs/shots.jsonl"}
    config.evaluations.nq_zero_shot = {**nq, "chat": True}
    config.evaluations.toxicity = {
        "data": "PUBLIC/realtoxicityprompts/rtp_val_4000.jsonl",
        "scorer": "WORKDIR/data/toxicity.npz",
        "samples": 5,
        "limit": 100,
    }
    config.evaluations.answers = {
        "prompts": "WORKDIR/data/heldout/prompts.jsonl",
        "max_new_tokens": 256,
        "limit": 48,
    }
    config.evaluations.style = {"reference": f"{CHATGPT}-0301.json"}
    config.teacher.name = "gpt-3.5-turbo-0613"
    config.teacher.answers = f"{CHATGPT}-0613.json"
    config.judge.reference = f"{CHATGPT}-0301.json"

    config.without_public = {
        "builds": {"broad": {"label": "demo dialogues", "flags": {"input": f"{DEMO}/train.jsonl"}}},
        "grids": {
            "broad": {"tokens": "5_000,10_000,20_000,40_000"},
            "warm_up": {"tokens": "5_000,40_000"},
            "seeds": {"tokens": "10_000"},
        },
        "evaluations": {
            "answers": {"prompts": f"{DEMO}/teacher.jsonl", "max_new_tokens": 100},
            "style": {"reference": f"{DEMO}/teacher.jsonl"},
        },
        "teacher": {"name": "teacher", "answers": f"{DEMO}/teacher_second_sample.jsonl"},
        "judge": {"reference": f"{DEMO}/teacher.jsonl"},
    }
    return config
