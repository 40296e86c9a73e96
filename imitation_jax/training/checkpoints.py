"""Checkpoints of a training run: what is saved beside the model, and what a damaged or failed one says."""

from typing import Any

import orbax.checkpoint as ocp
from etils import epath

from imitation_jax.data.input.stream import Batches
from imitation_jax.models import checkpoint
from imitation_jax.training.step import State


class Checkpoints:
    """Saves asynchronously: `save` returns when the state is copied, and the loop goes on while it is written.

    Args:
      folder: the workdir.
      keep: how many of the newest to keep.
      best: metric whose lowest checkpoint is kept too; "" for none.
    """

    def __init__(self, folder: epath.Path, keep: int, best: str = ""):
        self._folder = folder
        self._manager = checkpoint.open_manager(str(folder), keep=keep, best=best)

    def exist(self) -> bool:
        """Whether this host sees the folder; of several, one made it."""
        return (self._folder / "checkpoints").exists() or "://" in str(self._folder)  # a bucket has no empty folders

    def latest_step(self) -> int | None:
        """The newest whole checkpoint's step."""
        return self._manager.latest_step()

    def save(
        self, step: int, state: State, model: dict[str, Any], stream: dict[str, Any], metrics: dict[str, float] | None
    ) -> None:
        """Starts writing the state after `step` steps; waits for an earlier save first.

        Raises:
          OSError: it, or the one before, could not be written.
        """
        items = {
            "params": ocp.args.StandardSave(state["params"]),
            "optimizer": ocp.args.StandardSave(state["optimizer"]),
            "model": ocp.args.JsonSave(model),
            "stream": ocp.args.JsonSave(stream),
        }
        try:
            self._manager.save(step, args=ocp.args.Composite(**items), metrics=metrics)
        except Exception as error:
            raise self._error(error) from error

    def restore(self, step: int, abstract: State, batches: Batches) -> State:
        """The state of a step in the shapes and shardings of `abstract`; `batches` goes on behind that step.

        Raises:
          ValueError: a damaged checkpoint, or another dataset than it was trained on.
        """
        if not (self._folder / "checkpoints" / str(step) / "optimizer").exists():
            raise ValueError(
                f"{self._folder}/checkpoints/{step}: holds weights only; start from it with "
                f"--config.model.init=orbax:{self._folder} and another --workdir"
            )
        args = {name: ocp.args.StandardRestore(tree) for name, tree in abstract.items()}
        restored = checkpoint.restore(self._manager, step, **args, stream=ocp.args.JsonRestore())
        batches.set_state(restored["stream"])
        return {name: restored[name] for name in abstract}

    def close(self) -> None:
        """Waits until everything is written.

        Raises:
          OSError: the last checkpoint could not be written.
        """
        try:
            self._manager.wait_until_finished()
            self._manager.close()
        except Exception as error:
            raise self._error(error) from error

    def _error(self, error: Exception) -> OSError:
        return OSError(
            f"{self._folder}/checkpoints: a checkpoint could not be written ({checkpoint.reason(error)}); free some "
            "space and start the same command again, it goes on from the newest whole checkpoint"
        )
