"""The keys that evaluation tasks share, each with its default and meaning. A task's file adds its own."""

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
    config.template = "model"  # the chat template: the model's own, "lineage", or a .jinja file
    config.batch_size = 16
    config.compute_dtype = "float32"
    config.mesh = "fsdp=-1"
    return config
