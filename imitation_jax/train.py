"""Fine-tunes a model on dialogues.

    python -m imitation_jax.train --config=configs/smollm2_135m.py --config.data.path=DIR_OR_JSONL \
        --config.model.init=gguf:FILE --workdir=DIR

The same command goes on where it was stopped, after SIGTERM (exit 75), kill -9 or a crash. The workdir gets
config.json, metrics.jsonl, tensorboard/ and checkpoints/; `--model=orbax:DIR` of the other commands reads them.
Every config key with its meaning: imitation_jax/training/config.py.
"""

from imitation_jax.core import command
from imitation_jax.parallel import distributed

__doc__ += distributed.HELP
CONFIG = command.define_config("configs/smollm2_135m.py")
WORKDIR = command.define_string("workdir", None, "Folder of the run, local or gs://.", required=True)


def main() -> int:
    distributed.initialize()
    from imitation_jax.core.files import cache_dir
    from imitation_jax.inference.engine import generate_texts
    from imitation_jax.parallel.precision import configure_jax
    from imitation_jax.training.loop import train
    from imitation_jax.training.samples import make_sampler

    configure_jax(cache_dir(), several=True)
    config = CONFIG.value
    evaluators = (make_sampler(config, generate_texts),) if config.evaluate.samples else ()
    whole = train(config, WORKDIR.value, str(cache_dir() / "tokens"), evaluators)
    return 0 if whole else command.PREEMPTED


if __name__ == "__main__":
    command.run(main)
