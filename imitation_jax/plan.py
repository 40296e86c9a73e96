"""Compiles a config's programs for a TPU slice, on this machine and without a TPU, and says whether they fit.

python -m imitation_jax.plan --config=configs/llama_13b.py --topology=v4:4x4x4
python -m imitation_jax.plan --all
"""

from imitation_jax import command

CONFIG = command.define_config("configs/llama_13b.py", unless="all")
TOPOLOGY = command.define_string(
    "topology", "", "Slice, as v5e:8x8, v4:4x4x4, 2*v5e:8x8 or cpu:8; where empty the config's plan.topology."
)
ALL = command.define_boolean("all", "Plan every size of configs/ on its own slice; a killed run goes on.")
PROGRAMS = command.define_string("programs", "train,score,generate", "What to compile, with commas.")
SAVE = command.define_boolean("save", "Keep the train step's executable, which `train` loads instead of compiling.")
JSON = command.define_boolean("json", "Print JSON.")


def main() -> int:
    import json
    from pathlib import Path

    from imitation_jax.parallel import topology
    from imitation_jax.parallel.start import cache_dir, start
    from imitation_jax.planning import sizes, tables
    from imitation_jax.planning.plan import make_setting, plan

    topology.plan_only()
    start(cache_dir())
    names = PROGRAMS.value.split(",")
    if ALL.value:
        plans = sizes.plan_all(sizes.size_configs(Path("configs")), cache_dir(), names, save=SAVE.value)
        print(json.dumps(plans, indent=1) if JSON.value else tables.markdown(plans))
        return 0 if all(plan["fits"] for plan in plans) else 1
    found = plan(make_setting(CONFIG.value, TOPOLOGY.value), cache_dir(), names, save=SAVE.value)
    print(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    command.run(main)
