"""The keys that evaluation tasks share, each with its default and meaning. A task's file adds its own."""

import runpy
from pathlib import Path

from ml_collections import ConfigDict


def get_config(task: str) -> ConfigDict:
    """What every task has."""
    config = ConfigDict()
    config.task = task
    config.name = ""  # folder under eval/; where empty the model's own name, for style the answers' "generator"
    config.role = ""  # base, student or teacher: which column of the report
    config.limit = 0  # only so many rows, or of each MMLU subject so many questions; 0 for all
    return config


def of_model(task: str) -> ConfigDict:
    """What every task has that asks a model."""
    config = get_config(task)
    config.template = "model"  # the chat template: the model's own, "plain", or a .jinja file
    config.batch_size = 16
    config.memory_gib = 0.0  # of a device, for caches and activations; 0 chooses by itself
    config.compute_dtype = "float32"
    config.mesh = "fsdp=-1"
    return config


def together(folder: str | Path, **files: str) -> ConfigDict:
    """Several tasks in one config, as `config.tasks.KEY`; results are filed as `KEY.json`.

    The keys that all tasks share stand once at the top as well: set there they hold for every task that does not set
    its own. `config.only` chooses tasks by globs on their keys.

    Args:
      folder: where the tasks' own config files are.
      files: `mmlu="mmlu.py"`, or with a variant `nq_zero_shot="nq.py:zero_shot"`.
    """
    config = of_model("")
    del config.task
    config.only = ""  # comma-separated globs on the keys of config.tasks; all where empty
    config.tasks = ConfigDict(sort_keys=False)
    for key, file in files.items():
        name, *variant = file.split(":", 1)
        task = runpy.run_path(str(Path(folder) / name))["get_config"](*variant)
        for shared in [shared for shared in config if shared in task and task[shared] == config[shared]]:
            task[shared] = config.get_oneway_ref(shared)
        config.tasks[key] = task
    return config
