"""The keys that evaluation tasks share, declared with what each changes. A task's module declares its own."""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

from imitation_jax.core.fingerprint import LABEL, MODEL, PLACE, Key, Keys
from imitation_jax.evaluation.task import Needs, Task

COMMON = Keys(
    task=Key("", "which task, by its name"),
    name=Key("", "folder under eval/; where empty the model's own name, for style the answers' generator", LABEL),
    role=Key("", "base, student or teacher: which column of the report", LABEL),
    limit=Key(0, "only so many rows, or of each MMLU subject so many questions; 0 for all"),
)
OF_MODEL = COMMON | Keys(
    template=Key("model", "the chat template: the model's own, plain, or a .jinja file", MODEL),
    batch_size=Key(16, "rows that are generated at a time", PLACE),
    memory_gib=Key(0.0, "of a device, for caches and activations; 0 chooses by itself", PLACE),
    compute_dtype=Key("float32", "float32 or bfloat16: of matrix products"),
    mesh=Key("fsdp=-1", "axes of the device mesh", PLACE),
)
CHAT = Keys(chat=Key(False, "ask in the model's chat template"))
# What a result's settings hold beside the config.
RECORDED = Keys(
    model=Key("", "where the model is", MODEL),
    weights=Key("", "digest of what its weights are read from", MODEL),
    template_digest=Key("", "of a .jinja file", MODEL),
    definitions=Key(None, "what the task's code decides"),
    data_digest=Key("", "of all items"),
)


def settings_keys(task: Task) -> Keys:
    """What each of a result's settings changes."""
    own = task.KEYS
    if task.NEEDS is Needs.ANSWERS:  # the model's answers are its items
        own |= Keys(data_digest=Key("", "of all items", MODEL))
    return RECORDED | own


def get_config(task: str) -> ConfigDict:
    """What every task has."""
    return COMMON.config(task=task)


def of_model(task: str) -> ConfigDict:
    """What every task has that asks a model."""
    return OF_MODEL.config(task=task)


def of_task(task: str, variant: str = "", /, **variants: dict) -> ConfigDict:
    """A task's keys with their defaults, or with what one of the variants sets.

    Raises:
      ValueError: no such variant.
    """
    from imitation_jax.evaluation.tasks import all_tasks  # whose modules import this one

    if variant and variant not in variants:
        raise ValueError(f"{task}: no variant {variant!r}; there are {' and '.join(variants) or 'none'}")
    return all_tasks()[task].KEYS.config(task=task, **variants.get(variant, {}))


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
        if "tasks" in task:  # a batch of the user's, which lies there too
            continue
        for shared in [shared for shared in config if shared in task and task[shared] == config[shared]]:
            task[shared] = config.get_oneway_ref(shared)
        config.tasks[key] = task
    return config
