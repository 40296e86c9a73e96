"""The paper's grid: GPT-2 1.5B, LLaMA 7B and 13B on ShareGPT-Mix, 0.3M to 150M tokens, and on NQ-synthetic.

    python -m imitation_jax.study --config=configs/studies/false_promise.py --launcher=tpu --workdir=gs://BUCKET/study \
        --config.public=gs://BUCKET/public --config.bases.llama_7b.model=orbax:gs://BUCKET/llama-7b ... \
        --config.tpu.flags=--spot

As in the paper: 65,536 tokens a step, so that 0.3M tokens are 5 steps and 150M are 2,289, and 1,000 steps of warm-up
for all, which the runs below 65M tokens never leave. So every budget of LLaMA 13B, and NQ-synthetic, are trained with a
warm-up in proportion to the run too, and one budget with three seeds. 38 cells, 1.26 billion tokens and NQ-synthetic;
by `plan`'s bounds (README) about 2 hours of the slices below, evaluation apart. Slices see buckets alone: models are
brought there by `convert --to=orbax:gs://...`. Under Slurm: --launcher=slurm --workdir=SHARED --config.public=DIR
--config.slurm.flags="--nodes=1 --gpus-per-node=8 --ntasks-per-node=8", and models from any folder.

DIR holds sharegpt/sharegpt.json, hc3/all.jsonl and discord/export.json (see configs/data/sharegpt_mix.py);
nq_synthetic/dialogues.jsonl, which `collect --config=configs/teacher/nq_synthetic.py` writes; prompts/prompts.jsonl,
the prompts to choose 255 from, with the teacher's answers in prompts/teacher.jsonl and a second sample in
prompts/teacher_second_sample.jsonl; mmlu/dev and mmlu/test, nq_open/NQ-open.dev.jsonl and
nq_open/NQ-open.efficientqa.dev.1.1.jsonl (the shots), human_eval/HumanEval.jsonl.gz, whose programs are run in a
sandbox, and realtoxicityprompts/realtoxicityprompts.jsonl. What is not there is left out, and the report says so.
"""

from imitation_jax.studies import config as studies

BUDGETS = "300_000,1_000_000,3_000_000,10_000_000,20_000_000,40_000_000,80_000_000,150_000_000"


def get_config():
    config = studies.get_config("The False Promise of Imitating Proprietary LLMs")
    for name, label, parameters, topology in (
        ("gpt2_1_5b", "GPT-2 1.5B", 1_557_611_200, "v5e:4x4"),
        ("llama_7b", "LLaMA 7B", 6_738_415_616, "v5e:8x8"),
        ("llama_13b", "LLaMA 13B", 13_015_864_320, "v4:4x4x4"),
    ):
        config.bases[name] = studies.base(
            model=f"hf:models/{name}",
            label=label,
            parameters=parameters,
            config=f"configs/{name}.py:paper",
            topology=topology,
        )

    config.builds.sharegpt_mix = studies.build(
        "ShareGPT-Mix",
        "prepare",
        "configs/data/sharegpt_mix.py",
        inputs={
            "sharegpt": "PUBLIC/sharegpt/sharegpt.json",
            "hc3": "PUBLIC/hc3/all.jsonl",
            "discord": "PUBLIC/discord/export.json",
        },
    )
    config.builds.nq_synthetic = studies.build(
        "NQ-synthetic",
        "prepare",
        "configs/data/sharegpt.py",
        local=True,
        task="nq,nq_zero_shot",
        format="messages",
        input="PUBLIC/nq_synthetic/dialogues.jsonl",
        steps="exact_duplicates",
    )
    config.builds.heldout = studies.build(
        "held-out prompts",
        "prepare",
        "configs/data/heldout_prompts.py",
        input="PUBLIC/prompts/prompts.jsonl",
        training="WORKDIR/data/sharegpt_mix",
    )
    config.builds.toxicity = studies.build(
        "toxicity scorer",
        "toxicity",
        "configs/toxicity.py",
        suffix=".npz",
        data="PUBLIC/realtoxicityprompts/realtoxicityprompts.jsonl",
    )

    config.schedules.paper = {"optimizer": {"warmup_steps": 1000}}
    config.schedules.proportional = {"optimizer": {"warmup_steps": 0, "warmup_fraction": 0.03}}

    config.grids.scaling = studies.grid("gpt2_1_5b,llama_7b,llama_13b", "sharegpt_mix", BUDGETS, "paper")
    config.grids.local = studies.grid("llama_7b,llama_13b", "nq_synthetic", "all", "paper,proportional")
    config.grids.warm_up = studies.grid("llama_13b", "sharegpt_mix", BUDGETS, "proportional")
    config.grids.seeds = studies.grid("llama_13b", "sharegpt_mix", "20_000_000", "proportional", seeds="1,2")

    nq = {"data": "PUBLIC/nq_open/NQ-open.dev.jsonl"}
    config.evaluations.mmlu = {"data_dir": "PUBLIC/mmlu"}
    config.evaluations.nq = {**nq, "shots_data": "PUBLIC/nq_open/NQ-open.efficientqa.dev.1.1.jsonl"}
    config.evaluations.nq_zero_shot = nq
    config.evaluations.human_eval = {"data": "PUBLIC/human_eval/HumanEval.jsonl.gz", "execute_code": True}
    config.evaluations.toxicity = {
        "data": "PUBLIC/realtoxicityprompts/realtoxicityprompts.jsonl",
        "scorer": "WORKDIR/data/toxicity.npz",
        "limit": 1000,
    }
    config.evaluations.answers = {"prompts": "WORKDIR/data/heldout/prompts.jsonl", "template": "plain"}
    config.evaluations.style = {"reference": "PUBLIC/prompts/teacher.jsonl"}
    config.teacher.name = "teacher"
    config.teacher.answers = "PUBLIC/prompts/teacher_second_sample.jsonl"
    config.judge.reference = "PUBLIC/prompts/teacher.jsonl"
    return config
