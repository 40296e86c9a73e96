"""Orbax checkpoints of a workdir: `checkpoints/<step>/` with the weights and all that is needed to use them alone.

Items of a step: `params` (the weights), `model` (family, config, tokenizer and chat template as JSON); training adds
`optimizer` and `stream`. A step appears under its number only when it is whole, so a kill leaves no half of one.
"""

import base64
import dataclasses
import logging
from typing import Any

import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers

from imitation_jax.tokenizers.chat import ChatTemplate
from imitation_jax.tokenizers.tokenizer import Tokenizer

# Orbax tells its inner life at INFO, a screen a save.
logging.getLogger("absl").addFilter(lambda record: record.levelno > logging.INFO or "/orbax/" not in record.pathname)


@dataclasses.dataclass(frozen=True)
class SavedModel:
    """What a checkpoint carries beside the weights: `config` is the contents of a Hugging Face config.json."""

    family: str
    config: dict[str, Any]
    tokenizer: Tokenizer
    template: ChatTemplate

    def to_json(self) -> dict[str, Any]:
        files = {name: base64.b64encode(data).decode("ascii") for name, data in self.tokenizer.files().items()}
        template = {"source": self.template.source, "apart": self.template.apart}
        return {"family": self.family, "config": self.config, "tokenizer": files, "template": template}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "SavedModel":
        files = {name: base64.b64decode(text) for name, text in data["tokenizer"].items()}
        tokenizer = Tokenizer.from_files(files)
        return cls(data["family"], data["config"], tokenizer, ChatTemplate(tokenizer=tokenizer, **data["template"]))


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
        read_only=read_only,
        create=not read_only,
    )
    return ocp.CheckpointManager(epath.Path(workdir).expanduser().resolve() / "checkpoints", options=options)


def _find(where: str) -> tuple[str, int]:
    """Splits WORKDIR[@STEP] and finds the step.

    Raises:
      FileNotFoundError: no such workdir, no checkpoint in it, or not that step.
    """
    workdir, _, step = where.partition("@")
    folder = epath.Path(workdir).expanduser() / "checkpoints"
    steps = sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit()) if folder.exists() else []
    if not steps:
        raise FileNotFoundError(f"{folder}: no checkpoint there; orbax: takes the --workdir of a training run")
    if step and not step.isdigit():
        raise ValueError(f"orbax:{where}: {step!r} is no step; write orbax:{workdir}@{steps[-1]}")
    if step and int(step) not in steps:
        raise FileNotFoundError(f"{folder}: no step {step}; there are {', '.join(map(str, steps))}")
    return workdir, int(step or steps[-1])


def _restore(where: str, item: str, args: Any) -> Any:
    workdir, step = _find(where)
    with open_manager(workdir, read_only=True) as manager:
        try:
            return manager.restore(step, args=ocp.args.Composite(**{item: args}))[item]
        except Exception as error:  # Orbax and TensorStore raise many kinds for a damaged checkpoint
            reason = " ".join(str(error).split())[:300]
            raise ValueError(
                f"{workdir}/checkpoints/{step}: {item} cannot be restored, a file may be missing or damaged "
                f"({type(error).__name__}: {reason}); remove that step to fall back to an earlier one"
            ) from error


def read_model(where: str) -> tuple[str, SavedModel]:
    """The name ("<workdir>-<step>") and what stands beside the weights of WORKDIR[@STEP].

    Raises:
      FileNotFoundError, ValueError: no checkpoint there, or a damaged one.
    """
    workdir, step = _find(where)
    saved = SavedModel.from_json(_restore(where, "model", ocp.args.JsonRestore()))
    return f"{epath.Path(workdir).expanduser().resolve().name}-{step}", saved


def read_params(where: str, abstract: Any) -> Any:
    """The weights of WORKDIR[@STEP], in the shapes, dtypes and shardings of `abstract`.

    Raises:
      FileNotFoundError, ValueError: no checkpoint there, or a damaged one.
    """
    return _restore(where, "params", ocp.args.StandardRestore(abstract))


def save_model(workdir: str, params: Any, saved: SavedModel) -> None:
    """Writes weights alone as step 0 of `workdir`.

    Raises:
      FileExistsError: there are checkpoints already.
    """
    with open_manager(workdir) as manager:
        if manager.all_steps():
            raise FileExistsError(f"{workdir}: has checkpoints already; choose another folder")
        manager.save(
            0, args=ocp.args.Composite(params=ocp.args.StandardSave(params), model=ocp.args.JsonSave(saved.to_json()))
        )
