"""Evaluates models on tasks: benchmarks, answers to prompts, and the style of answers.

    python -m imitation_jax.evaluate --config=configs/eval/mmlu.py --config.data_dir=DIR --model=orbax:RUN --workdir=RUN

configs/eval/ has a file for each task, with its command, and all.py for several tasks in one go:

    python -m imitation_jax.evaluate --config=configs/eval/all.py --config.only="mmlu,nq*" --config.limit=100 \\
        --config.tasks.mmlu.data_dir=DIR --config.tasks.nq.data=FILE ... --model="gguf:FILE,orbax:RUN@*" --workdir=RUN

Results go to WORKDIR/eval/<model>/<task>.json, samples beside them. A killed run goes on where it was; a result whose
settings are the same is kept. Two tables are printed: each metric with its 95% interval (Wilson's for shares), and,
where a task has several models, each of them minus the first, item by item: the difference with the 95% interval of a
paired bootstrap, how many items only the one (won) or only the other (lost) got right, and McNemar's exact p.

Seconds are those of asking (tokenising, compiling, running, judging; over all starts), not of loading. Tokens/s counts
the tokens of all prompts and answers; what several prompts share counts in each, although it is computed once.
"""

from imitation_jax.core import command
from imitation_jax.parallel import distributed

__doc__ += distributed.HELP
CONFIG = command.define_config("configs/eval/mmlu.py or configs/eval/all.py")
MODEL = command.define_string(
    "model",
    "",
    "hf:DIR, gguf:FILE or orbax:WORKDIR[@STEP]; several with commas or globs (hf:runs/*/export), and orbax:WORKDIR@* "
    "for all steps of a run; none for style.",
)
CONTAMINATION = command.define_string(
    "contamination",
    "",
    "Training set (a folder of prepare, or dialogue files, with commas): the table also gives the scores over the "
    "items that stand in it, and over those that do not.",
)
WORKDIR = command.define_string("workdir", None, "Folder of the results, local or gs://.", required=True)


def main() -> int:
    distributed.initialize()
    from imitation_jax.core.comma_list import comma_list
    from imitation_jax.core.files import cache_dir
    from imitation_jax.evaluation import runner
    from imitation_jax.evaluation.engines import follow
    from imitation_jax.evaluation.result_tables import paired_table, table
    from imitation_jax.parallel.precision import configure_jax

    configure_jax(cache_dir(), several=True)
    distributed.stop_on_sigterm()
    if distributed.process_index():
        follow()
        return 0
    models = comma_list(MODEL.value)
    results = runner.evaluate(CONFIG.value, models, WORKDIR.value, cache_dir() / "samples", CONTAMINATION.value)
    print(table(results))
    if compared := paired_table(results, WORKDIR.value):
        print(f"\n{compared}")
    distributed.broadcast(None)
    return 0


if __name__ == "__main__":
    command.run(main)
