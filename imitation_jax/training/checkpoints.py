"""Checkpoints of a training run: what is saved beside the model, and what a damaged or failed one says."""

from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from imitation_jax.data.input.stream import Batches
from imitation_jax.models.checkpoint import open_manager, reason
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
        self._manager = open_manager(str(folder), keep=keep, best=best)

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
        try:
            restored = self._manager.restore(step, args=ocp.args.Composite(**args, stream=ocp.args.JsonRestore()))
        except Exception as error:  # Orbax and TensorStore raise many kinds for a damaged checkpoint
            raise ValueError(
                f"{self._folder}/checkpoints/{step}: cannot be restored, a file may be missing or damaged "
                f"({reason(error)}); remove that folder to go on from an earlier step"
            ) from error
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
            f"{self._folder}/checkpoints: a checkpoint could not be written ({reason(error)}); free some space and "
            "start the same command again, it goes on from the newest whole checkpoint"
        )


def abstract_state(init: Any, params: Any, sharding: State) -> State:
    """The training state as ShapeDtypeStructs with shardings, from the optimiser's `init` and abstract parameters."""
    optimizer = jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        jax.eval_shape(init, params),
        sharding["optimizer"],
    )
    return {"params": params, "optimizer": optimizer}
