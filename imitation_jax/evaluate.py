"""Evaluates models: MMLU, Natural Questions, a fact quiz, answers to prompts, and the style of answers.

    python -m imitation_jax.evaluate --config=configs/eval/mmlu.py --config.data_dir=DIR --model=orbax:RUN --workdir=RUN

The other tasks are nq, facts, answers and style in configs/eval/, each with its command. Results go to
WORKDIR/eval/<model>/<task>.json, samples beside them, and are printed as a table. A killed run goes on where it was; a
result whose settings are the same is kept.
"""

from imitation_jax import command

CONFIG = command.define_config("configs/eval/mmlu.py")
MODEL = command.define_string(
    "model", "", "hf:DIR, gguf:FILE or orbax:WORKDIR[@STEP]; several with commas; none for style."
)
WORKDIR = command.define_string("workdir", None, "Folder of the results, local or gs://.", required=True)


def main() -> int:
    from imitation_jax.evaluation import run
    from imitation_jax.parallel.start import start

    start(command.cache_dir())
    models = [model.strip() for model in MODEL.value.split(",") if model.strip()]
    print(run.table(run.evaluate(CONFIG.value, models, WORKDIR.value, command.cache_dir() / "samples")))
    return 0


if __name__ == "__main__":
    command.run(main)
