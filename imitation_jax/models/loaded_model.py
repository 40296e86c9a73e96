"""A model in memory, and its parameters before they are there."""

import dataclasses
from types import ModuleType
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from imitation_jax.models import decoder
from imitation_jax.parallel.sharding import shardings

if TYPE_CHECKING:
    from imitation_jax.tokenizers.chat_template import ChatTemplate
    from imitation_jax.tokenizers.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """A student ready to run.

    Attributes:
      family: its module in `families`.
      config: the family's.
      params: the plain parameter tree; None where only the rest of a model is at hand.
      tokenizer: its own.
      template: None where the model comes without one and none was named, as base models do.
    """

    family: ModuleType
    config: Any
    params: Any
    tokenizer: "Tokenizer"
    template: "ChatTemplate | None"


def abstract_params(family: ModuleType, config: Any, mesh: Mesh, dtype: Any = jnp.float32) -> Any:
    """The family's parameter tree as ShapeDtypeStructs that carry shardings.

    Raises:
      ValueError: a mesh that does not divide a parameter.
    """
    shapes = jax.eval_shape(lambda: decoder.init(config, jax.random.key(0)))
    placed = shardings(shapes, family.SHARDING, mesh)
    return jax.tree.map(lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, dtype, sharding=place), shapes, placed)
