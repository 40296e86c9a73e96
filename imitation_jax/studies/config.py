"""What a study's config holds, each key with its default and meaning.

In paths `PUBLIC/` stands for the folder of public data, `config.public`, and `WORKDIR/` for the study's own folder, in
which `data/NAME` is what `config.builds.NAME` makes. Other paths that do not begin with / are from the root of the
repository.
"""

import os

from ml_collections import ConfigDict

from imitation_jax.studies import launchers


def get_config(name: str) -> ConfigDict:
    """An empty study.

    Args:
      name: as the report calls it.
    """
    config = ConfigDict()
    config.name = name
    # Folder of public data, laid out as configs/studies/ says; where it is empty, `without_public` holds instead.
    config.public = os.environ.get("IMITATION_TEST_DATA", "")
    # Keys of this config that differ then.
    config.without_public = ConfigDict()

    config.bases = ConfigDict(sort_keys=False)  # name -> base(...)
    config.builds = ConfigDict(sort_keys=False)  # name -> build(...)
    config.schedules = ConfigDict(sort_keys=False)  # name -> keys of the training config
    config.train = ConfigDict()  # keys of the training config that hold for all cells
    config.grids = ConfigDict(sort_keys=False)  # name -> grid(...): the cells are those of all grids

    config.evaluate = "configs/eval/all.py"  # the batch that the tasks below belong to
    config.evaluate_keys = ConfigDict()  # of that batch, for all tasks, as mesh and batch_size
    config.evaluations = ConfigDict(sort_keys=False)  # task -> its keys: what every base and cell is evaluated on
    config.teacher = ConfigDict()
    config.teacher.name = ""  # of the ceiling: the teacher's second sample
    # Answer file with that sample; "" for none. Its style is measured on the prompts that the cells answer.
    config.teacher.answers = ""
    # The LLM judge, which compares each model's answers with those in `reference`, and is asked about their tone.
    config.judge = ConfigDict()
    config.judge.config = "configs/judge.py"
    config.judge.tone = "configs/judge.py:tone"
    config.judge.reference = ""
    # Keys of both configs. Without a model there is no judge.
    config.judge.flags = {"model": "", "url": "https://api.openai.com/v1", "key": "OPENAI_API_KEY"}

    config.least_tokens = 1500  # of a scaled budget, and between one budget and the next
    config.least_rows = 4  # of a scaled limit
    # What stays of a finished cell's checkpoint: all, weights (no optimiser state) or nothing.
    config.keep = "weights"

    for name in launchers.names():
        config[name] = launchers.load(name).KEYS.config()
    return config


def base(
    model: str,
    label: str,
    parameters: int,
    config: str,
    fetch: str = "",
    topology: str = "",
    prefix: str = "",
    note: str = "",
) -> ConfigDict:
    """A model that students start from.

    Args:
      model: hf:DIR, gguf:FILE or orbax:WORKDIR[@STEP].
      label: as the report writes it.
      parameters: how many it has.
      config: its training config.
      fetch: a function of launch/setup.sh that makes the model's file, called where it is not there.
      topology: the TPU slice for its cells.
      prefix: what its cells' names begin with; its own name where empty.
      note: a sentence on what it lets the study not say, for the report.
    """
    return ConfigDict(
        {"model": model, "label": label, "parameters": parameters, "config": config, "fetch": fetch}
        | {"topology": topology, "prefix": prefix, "note": note}
    )


def build(
    label: str, command: str, config: str = "", suffix: str = "", local: bool = False, task: str = "", **flags: object
) -> ConfigDict:
    """Something that is made once: a data set, the prompts, the toxicity scorer.

    Args:
      label: as the report writes it.
      command: "prepare" or "toxicity", which take `config` and `flags`; or "questions", see `local_task.write`.
      suffix: of the file that `command` writes, as ".npz"; a folder has none.
      local: whether it is a data set of one task, which the evaluations `task` (with commas) ask about.
      flags: keys of `config` that are set, nested ones as dicts; of "questions", its arguments.
    """
    about = {"label": label, "local": local, "task": task}
    return ConfigDict(about | {"command": command, "config": config, "suffix": suffix, "flags": flags})


def grid(bases: str, data: str, tokens: str, schedules: str, seeds: str = "0") -> ConfigDict:
    """Every combination of these is a cell. All are comma-separated; `tokens` may be all, for the whole data set."""
    return ConfigDict({"bases": bases, "data": data, "tokens": tokens, "schedules": schedules, "seeds": seeds})
