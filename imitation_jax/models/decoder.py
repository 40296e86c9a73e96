"""What every family of decoders shares: a stack of layers, scanned, and the functions over plain parameters.

A family is a config whose `build(rngs)` makes its model, an nnx.Module that maps tokens, positions and an `attend` to
final hidden states and keys and values. `hidden`, `hidden_cached` and `hidden_branches` say who attends to whom.

Legend: B rows, S positions, D model, N key/value heads, K head size, V vocabulary, L layers.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec as P

from imitation_jax.models import kernels
from imitation_jax.models.attention import attention, branch_attention, next_attention
from imitation_jax.models.kv_cache import Cache
from imitation_jax.parallel.sharding import constrain

Params = dict[str, Any]

ACTIVATIONS = P(("data", "fsdp"), "sequence", None)
LOOKED_UP = P("data", "sequence", "fsdp")
# What the backward pass recomputes, by name: each layer from its input; the same, with the inputs waiting in the host's
# memory; all but the matrix products; nothing.
REMAT_POLICIES = {
    "full": jax.checkpoint_policies.nothing_saveable,
    "offload": jax.checkpoint_policies.save_and_offload_only_these_names(
        names_which_can_be_saved=[],
        names_which_can_be_offloaded=["layer_input"],
        offload_src="device",
        offload_dst="pinned_host",
    ),
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "none": jax.checkpoint_policies.everything_saveable,
}


# ----------------------------------------------------------------------------------------------------------------------
# Parts of a model
# ----------------------------------------------------------------------------------------------------------------------


def normal(rngs: nnx.Rngs, shape: tuple[int, ...], scale: float = 0.02) -> nnx.Param:
    """A float32 weight; 0.02 is `initializer_range` of every published LLaMA and GPT-2 config."""
    return nnx.Param(scale * jax.random.normal(rngs.params(), shape, jnp.float32))


def linear(x: jax.Array, w: jax.Array) -> jax.Array:
    """Contracts all but the first two dimensions of `x` (B, S, ...) with the leading ones of `w`, in the dtype of `x`.

    The gradient of `w` is added up over rows and devices in its own dtype, float32 in training.
    """
    return kernels.function("linear")(x, w)


def look_up(table_VD: nnx.Param, ids_BS: jax.Array, dtype: Any) -> jax.Array:
    """(B, S, D): the rows of an embedding, whose gradient is added up in float32.

    Cut by D first, as the table is: so each device adds up its part of the gradient, and nobody the whole table's.
    """
    return constrain(constrain(table_VD[...][ids_BS], LOOKED_UP).astype(dtype), ACTIVATIONS)


def stack(make_layer: Callable[[nnx.Rngs], nnx.Module], count: int, rngs: nnx.Rngs) -> nnx.Module:
    """`count` layers as one module whose parameters have the layer as their first axis."""
    return nnx.split_rngs(splits=count)(nnx.vmap(make_layer))(rngs)


def scan(layers: nnx.Module, count: int, x_BSD: jax.Array, *args: Any, remat: str | None) -> tuple[jax.Array, Any]:
    """What a stack makes of `x_BSD`, and what its layers return beside it, stacked.

    Args:
      layers: each takes x, `args` and its number, and returns x and keys and values.
      remat: training's, a key of `REMAT_POLICIES`, for which no keys and values are kept; None keeps them.
    """
    graph, stacked = nnx.split(layers)

    def body(x_BSD, xs):
        layer, number = xs
        x_BSD = checkpoint_name(x_BSD, "layer_input")
        x_BSD, new = nnx.merge(graph, layer)(x_BSD, *args, number)
        return x_BSD, new if remat is None else None

    if remat not in (None, "none"):
        # Inside a scan nothing can be moved across the loop, so XLA needs no barrier against it.
        body = jax.checkpoint(body, policy=REMAT_POLICIES[remat], prevent_cse=False)
    return jax.lax.scan(body, x_BSD, (stacked, jnp.arange(count)))


# ----------------------------------------------------------------------------------------------------------------------
# Functions over plain parameters: what training, scoring and generation call
# ----------------------------------------------------------------------------------------------------------------------


@functools.cache
def _graph(config: Any) -> nnx.GraphDef:
    return nnx.graphdef(nnx.eval_shape(lambda: config.build(nnx.Rngs(0))))


def init(config: Any, key: jax.Array) -> Params:
    """Fresh float32 parameters as a plain nested dict, layers stacked on the first axis."""
    return nnx.to_pure_dict(nnx.state(config.build(nnx.Rngs(key))))


def hidden(
    config: Any,
    params: Params,
    tokens_BS: jax.Array,
    positions_BS: jax.Array,
    segments_BS: jax.Array,
    *,
    dtype: Any = jnp.float32,
    remat: str = "none",
    kernel: str = "auto",
) -> jax.Array:
    """Final hidden states (B, S, D) of packed rows; `unembedding(params)` turns them into logits.

    Args:
      tokens_BS: int32 token ids.
      positions_BS: int32, from 0 in each segment.
      segments_BS: int32 segment ids; a position attends only within its own segment.
      dtype: of the computation; norms, softmax and rotation are float32 always.
      remat: a key of `REMAT_POLICIES`.
      kernel: of attention, one of `kernels.KERNELS`.
    """

    def attend(q_BSHK, k_BSNK, v_BSNK, _):
        return attention(q_BSHK, k_BSNK, v_BSNK, positions_BS=positions_BS, segments_BS=segments_BS, kernel=kernel)

    model = nnx.merge(_graph(config), nnx.State(params))
    return model(tokens_BS, positions_BS, attend, dtype=dtype, remat=remat)[0]


def hidden_cached(
    config: Any,
    params: Params,
    tokens_BS: jax.Array,
    position_B: jax.Array,
    cache: Cache,
    *,
    dtype: Any = jnp.float32,
) -> tuple[jax.Array, Cache]:
    """Final hidden states (B, S, D) of the next tokens of each row, the first at `position_B`, and keys and values.

    The cache (a multiple of `attention.KEY_BLOCK` slots, or fewer) is only read: `extend_cache` writes what this
    returns. A token's slot is its position, and a row sees the slots before its own tokens.

    Returns:
      The hidden states, and "k" and "v" of these tokens, each (L, B, N, S, K).
    """

    def attend(q_BSHK, k_BSNK, v_BSNK, layer):
        return next_attention(q_BSHK, k_BSNK, v_BSNK, position_B=position_B, past=cache, layer=layer)

    model = nnx.merge(_graph(config), nnx.State(params))
    return model(tokens_BS, position_B[:, None] + jnp.arange(tokens_BS.shape[1]), attend, dtype=dtype)


def hidden_branches(
    config: Any,
    params: Params,
    tokens_BS: jax.Array,
    positions_BS: jax.Array,
    ends_BS: jax.Array,
    seen_BS: jax.Array,
    cache: Cache,
    *,
    dtype: Any = jnp.float32,
) -> tuple[jax.Array, Cache]:
    """Final hidden states (B, S, D) of trees of tokens that branch off one cached sequence, and keys and values.

    A row holds trees one after the other, each depth first, so that what follows a common beginning is computed once.

    Args:
      tokens_BS: int32 token ids.
      positions_BS: int32, the depth of each token from the start of its sequence.
      ends_BS: int32, where in the row the subtree of each token ends: tokens before that see it.
      seen_BS: int32, how many slots of the cache each token sees.
      cache: of one row; a multiple of `attention.KEY_BLOCK` slots, or fewer; only read.

    Returns:
      The hidden states, and "k" and "v" of these tokens, each (L, B, N, S, K).
    """

    def attend(q_BSHK, k_BSNK, v_BSNK, layer):
        return branch_attention(q_BSHK, k_BSNK, v_BSNK, ends_BS=ends_BS, seen_BS=seen_BS, past=cache, layer=layer)

    model = nnx.merge(_graph(config), nnx.State(params))
    return model(tokens_BS, positions_BS, attend, dtype=dtype)


def unembedding(params: Params) -> jax.Array:
    """The (V, D) matrix whose product with a hidden state gives logits."""
    return params["unembed"] if "unembed" in params else params["embed"]


def logits(params: Params, x_BSD: jax.Array) -> jax.Array:
    """(B, S, V) float32 logits of hidden states; for loss over long rows use the chunked loss instead."""
    unembed_VD = unembedding(params).astype(x_BSD.dtype)
    return jnp.einsum("bsd,vd->bsv", x_BSD, unembed_VD, preferred_element_type=jnp.float32)
