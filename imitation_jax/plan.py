"""Compiles a config's programs for a slice of TPUs, with the TPU's compiler but without a TPU.

    python -m imitation_jax.plan --config=configs/llama_13b.py --topology=v4:4x4x4
    python -m imitation_jax.plan --all

The programs are those that really run: `train`'s step, and a scoring and a generation step of `evaluate` with its
defaults on the same mesh (give it --config.mesh too). Of each it says how much memory a device (a chip; of tpu7x half
of one) needs and whether that fits, what it sends along which axis of the mesh, and how long it takes at least:
products, memory and links each alone, the longest is the bound. Where the train step does not fit, settings that do
are looked for and compiled. Steps, hours and dollars are those of the run that the config describes: of its data,
where --config.data.path and --config.model.tokenizer (or init) name some, else of config.steps or of the paper's 150M
tokens. Nothing is measured: real runs take longer.

What was compiled is kept in ~/.cache/imitation_jax/plans (or $IMITATION_CACHE) and not compiled again, so a killed run
goes on. Needs Linux and pip install 'imitation_jax[tpu]'; --topology=cpu:8 plans for this machine itself.
"""

from imitation_jax.core import command

CONFIG = command.define_config("configs/llama_13b.py", unless="all")
TOPOLOGY = command.define_string(
    "topology",
    "",
    "Slice: v4:4x4x4, v5e:8x8, v5p:4x4x4, v6e:4x4, tpu7x:2x2x2, several as 2*v5e:8x8, or cpu:8; where empty the "
    "config's plan.topology.",
)
ALL = command.define_boolean("all", "Plan every size of configs/ on its own slice and print a Markdown table.")
PROGRAMS = command.define_string("programs", "train,score,generate", "Which ones, with commas.")
PRICE = command.define_float("price", -1.0, "Dollars of a chip hour; below 0 the list price (parallel/chips.py).")
SAVE = command.define_boolean(
    "save",
    "Keep the train step's executable, which `train` loads instead of compiling; give the run's own "
    "--config.data.path or --config.steps, as the schedule is a part of the step.",
)
JSON = command.define_boolean("json", "Print JSON instead of tables.")


def main() -> int:
    import json
    from pathlib import Path

    from imitation_jax.core.comma_list import comma_list
    from imitation_jax.core.files import cache_dir
    from imitation_jax.parallel import topology
    from imitation_jax.parallel.precision import configure_jax
    from imitation_jax.planning import plan_tables, sizes
    from imitation_jax.planning.plan import plan
    from imitation_jax.planning.target import make_target

    topology.plan_only()
    options = {
        "names": comma_list(PROGRAMS.value),
        "save": SAVE.value,
        "price": None if PRICE.value < 0 else PRICE.value,
    }
    if ALL.value:
        plans = sizes.plan_all(sizes.size_configs(Path("configs")), cache_dir(), **options)
        print(json.dumps(plans, indent=1) if JSON.value else plan_tables.markdown(plans))
        return 0 if all(each["fits"] for each in plans) else 1
    target = make_target(CONFIG.value, TOPOLOGY.value)  # first: it may say how many devices the host has
    configure_jax(cache_dir())
    made = plan(target, cache_dir(), **options)
    print(json.dumps(made, indent=1) if JSON.value else plan_tables.text(made))
    return 0 if made["fits"] else 1


if __name__ == "__main__":
    command.run(main)
