"""Orbax checkpoints of a workdir: `checkpoints/<step>/` with the weights and all that is needed to use them alone.

Items of a step: `params` (the weights), `model` (family, config, tokenizer and chat template as JSON); training adds
`optimizer` and `stream`. A step appears under its number only when it is whole, so a kill leaves no half of one.
"""

import base64
import logging
import re
import sys
from typing import Any

import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers

from imitation_jax.models import families
from imitation_jax.models.loaded_model import LoadedModel
from imitation_jax.tokenizers.chat_template import ChatTemplate
from imitation_jax.tokenizers.tokenizer import Tokenizer

# Orbax logs a screen a save, and a failed save as five tracebacks before it raises the error.
logging.getLogger("absl").addFilter(lambda record: "/orbax/" not in record.pathname)


def model_to_json(model: LoadedModel) -> dict[str, Any]:
    """What a checkpoint carries beside the weights; `config` is the contents of a Hugging Face config.json."""
    files = {name: base64.b64encode(data).decode("ascii") for name, data in model.tokenizer.files().items()}
    template = model.template and {"source": model.template.source, "apart": model.template.apart}
    config = model.family.config_to_hf(model.config)
    return {"family": families.name_of(model.family), "config": config, "tokenizer": files, "template": template}


def model_from_json(data: dict[str, Any]) -> LoadedModel:
    """The model without its weights."""
    family = families.find(data["family"])
    tokenizer = Tokenizer.from_files({name: base64.b64decode(text) for name, text in data["tokenizer"].items()})
    template = data["template"] and ChatTemplate(tokenizer=tokenizer, **data["template"])
    return LoadedModel(family, family.config_from_hf(data["config"]), None, tokenizer, template)


def open_manager(workdir: str, *, keep: int | None = None, best: str = "", read_only: bool = False):
    """The manager of a workdir's checkpoints; saving is asynchronous.

    Args:
      keep: how many of the newest to keep; None keeps all.
      best: the metric whose lowest value's checkpoint is kept as well ("" for none).
      read_only: for readers, which must not tidy up what a running job is writing.
    """
    policies = [checkpoint_managers.LatestN(keep)]
    if best:
        lowest = checkpoint_managers.BestN(
            get_metric_fn=lambda metrics: metrics[best], reverse=True, n=1, keep_checkpoints_without_metrics=False
        )
        policies.append(lowest)
    options = ocp.CheckpointManagerOptions(
        preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies),
        async_options=ocp.AsyncOptions(barrier_sync_fn=_wait_for_others),
        read_only=read_only,
        create=not read_only,
    )
    return ocp.CheckpointManager(epath.Path(workdir).expanduser().resolve() / "checkpoints", options=options)


def _wait_for_others(*, key: str, timeout_ms: int) -> None:
    """What Orbax does between the steps of a save; but where this process's part has failed, the others do not come."""
    if sys.exception() is None:
        ocp.multihost.get_barrier_sync_fn()(key=key, timeout_ms=timeout_ms)


def reason(error: BaseException) -> str:
    """What went wrong in Orbax or TensorStore, in one line: the first cause, without the settings that it lists."""
    while error.__cause__:
        error = error.__cause__
    text = " ".join(str(error).split()).split(" [tensorstore_spec")[0]
    return text if len(text) < 300 else f"{text[:100]} ... {text[-180:]}"


def locate(where: str) -> tuple[str, int]:
    """The workdir and the step that WORKDIR[@STEP] means; the newest whole step where none is given.

    Raises:
      FileNotFoundError: no such workdir, no checkpoint in it, or not that step.
    """
    # A path may hold an "@" of its own.
    match = re.fullmatch(r"(.+)@(\d+)", where, re.DOTALL)
    workdir, wanted = (match[1], int(match[2])) if match else (where, None)
    folder, whole = epath.Path(workdir).expanduser() / "checkpoints", steps(workdir)
    if not whole:
        raise FileNotFoundError(f"{folder}: no checkpoint there; write orbax:WORKDIR[@STEP] of a training run")
    if wanted is not None and wanted not in whole:
        raise FileNotFoundError(f"{folder}: no step {wanted}; there are {', '.join(map(str, whole))}")
    return workdir, whole[-1] if wanted is None else wanted


def steps(workdir: str) -> list[int]:
    """The whole checkpoints of a workdir, in order. One of several processes may ask alone."""
    return sorted(ocp.utils.checkpoint_steps(epath.Path(workdir).expanduser() / "checkpoints"))


def commit(workdir: str, step: int) -> str:
    """What Orbax wrote when the step was whole, its time in nanoseconds included: no two checkpoints share it."""
    return (epath.Path(workdir).expanduser() / "checkpoints" / str(step) / "_CHECKPOINT_METADATA").read_text()


def restore(manager: ocp.CheckpointManager, step: int, **args: Any) -> dict[str, Any]:
    """Items of a step, each by its `ocp.args`.

    Raises:
      ValueError: a damaged checkpoint.
    """
    try:
        restored = manager.restore(step, args=ocp.args.Composite(**args))
    except Exception as error:  # Orbax and TensorStore raise many kinds for a damaged checkpoint
        raise ValueError(
            f"{manager.directory}/{step}: {', '.join(sorted(args))} cannot be restored, a file may be missing or "
            f"damaged ({reason(error)}); remove that folder to go on from an earlier step"
        ) from error
    return {name: restored[name] for name in args}


def read_model(workdir: str, step: int) -> LoadedModel:
    """The model of a step without its weights.

    Raises:
      ValueError: a damaged checkpoint, or of a family that there is not.
    """
    with open_manager(workdir, read_only=True) as manager:
        return model_from_json(restore(manager, step, model=ocp.args.JsonRestore())["model"])


def read_params(workdir: str, step: int, abstract: Any) -> Any:
    """The weights of a step, in the shapes, dtypes and shardings of `abstract`.

    Raises:
      ValueError: a damaged checkpoint.
    """
    with open_manager(workdir, read_only=True) as manager:
        return restore(manager, step, params=ocp.args.StandardRestore(abstract))["params"]


def save_model(workdir: str, model: LoadedModel) -> None:
    """Writes a model alone as step 0 of `workdir`.

    Raises:
      FileExistsError: there are checkpoints already.
    """
    with open_manager(workdir) as manager:
        if manager.all_steps():
            raise FileExistsError(f"{workdir}: has checkpoints already; choose another folder")
        items = {"params": ocp.args.StandardSave(model.params), "model": ocp.args.JsonSave(model_to_json(model))}
        manager.save(0, args=ocp.args.Composite(**items))
