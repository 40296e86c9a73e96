"""The LLaMA family: RMSNorm, RoPE, grouped-query attention, SwiGLU; layers stacked and scanned.

Legend: B rows, S positions, D model, H query heads, N key/value heads, K head size, F feed-forward, V vocabulary,
L layers, T key/value slots.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import PartitionSpec as P

from imitation_jax.models.attention import attention, branch_attention, next_attention
from imitation_jax.parallel.sharding import constrain, on_one_cpu

Params = dict[str, Any]
Cache = dict[str, jax.Array]

SUM_BLOCK = 192  # see `_product`
# What the backward pass recomputes, by name: everything, all but the matrix products, nothing.
REMAT_POLICIES = {
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "none": jax.checkpoint_policies.everything_saveable,
}


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """Llama 3's frequency scaling (transformers' "llama3" rope type)."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int


@dataclasses.dataclass(frozen=True)
class LlamaConfig:
    """The architecture, in the field names of a Hugging Face `config.json` where it has them."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int = 2048
    rope_theta: float = 10000.0
    rope_scaling: RopeScaling | None = None
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = False


# ----------------------------------------------------------------------------------------------------------------------
# Modules
# ----------------------------------------------------------------------------------------------------------------------


def rms_norm(x_BSD: jax.Array, scale_D: jax.Array, eps: float) -> jax.Array:
    """Root-mean-square normalisation, in float32 (Zhang and Sennrich 2019, arXiv 1910.07467)."""
    x32_BSD = x_BSD.astype(jnp.float32)
    x32_BSD *= jax.lax.rsqrt(jnp.mean(jnp.square(x32_BSD), axis=-1, keepdims=True) + eps)
    return (x32_BSD * scale_D).astype(x_BSD.dtype)


def rope_frequencies(config: LlamaConfig) -> np.ndarray:
    """(K / 2,) float32 radians a position (Su et al. 2021, arXiv 2104.09864), scaled as Llama 3 does where asked."""
    # On the host, rounded where transformers rounds: inside a jitted function a third of them end an ulp away, and what
    # that turns a head by grows with the position.
    exponents = np.arange(0, config.head_dim, 2, dtype=np.float32) / np.float32(config.head_dim)
    freqs = 1 / (config.rope_theta ** exponents.astype(np.float64)).astype(np.float32)
    scaling = config.rope_scaling
    if scaling is None:
        return freqs
    # Long wavelengths are stretched by `factor`, short ones kept, those between blended.
    turns = scaling.original_max_position_embeddings * freqs / (2 * np.pi)
    keep = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    keep = np.clip(keep, 0.0, 1.0)
    return keep * freqs + (1 - keep) * freqs / scaling.factor


def apply_rope(x_BSHK: jax.Array, sin_BSK: jax.Array, cos_BSK: jax.Array) -> jax.Array:
    """Rotates the two halves of each head, Hugging Face's layout, in float32; `sin`, `cos` are (B, S, K / 2)."""
    sin, cos = sin_BSK[:, :, None], cos_BSK[:, :, None]
    a, b = jnp.split(x_BSHK.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x_BSHK.dtype)


def _normal(rngs: nnx.Rngs, shape: tuple[int, ...]) -> nnx.Param:
    # 0.02 is `initializer_range` of every published LLaMA config.
    return nnx.Param(0.02 * jax.random.normal(rngs.params(), shape, jnp.float32))


def linear(x: jax.Array, w: jax.Array) -> jax.Array:
    """Contracts all but the first two dimensions of `x` (B, S, ...) with the leading ones of `w`."""
    inputs = x.ndim - 2
    if not on_one_cpu():
        return jnp.tensordot(x, w, inputs)
    # The gradient of a plain matrix product is twice as fast there; on a mesh, B and S may not be merged.
    rows = x.reshape(x.shape[0] * x.shape[1], -1)
    return _product(rows, w.reshape(rows.shape[1], -1)).reshape(*x.shape[:2], *w.shape[inputs:])


@jax.custom_jvp
def _product(x_MD: jax.Array, w_DF: jax.Array) -> jax.Array:
    """x @ w on a CPU, its float32 sums cut into blocks where nothing is differentiated.

    XLA adds up 512 products before it starts a new sum, PyTorch's MKL 192: that errs a third less, and with it the
    logits are within 1e-4 of transformers' on 19 of 20 dialogues instead of 1, for a tenth of a forward pass.
    """
    if x_MD.dtype != jnp.float32:
        return x_MD @ w_DF
    blocks = range(0, x_MD.shape[1], SUM_BLOCK)
    return sum(x_MD[:, start : start + SUM_BLOCK] @ w_DF[start : start + SUM_BLOCK] for start in blocks)


@_product.defjvp
def _product_jvp(primals, tangents):
    (x_MD, w_DF), (dx_MD, dw_DF) = primals, tangents
    return x_MD @ w_DF, dx_MD @ w_DF + x_MD @ dw_DF


class Attention(nnx.Module):
    """(B, S, D) -> (B, S, D) and, to be cached, the keys and values, each (B, N, S, K); q, k, v (D, heads, K).

    `attend` takes queries, keys, values and the number of the layer, and knows who sees what.
    """

    def __init__(self, config: LlamaConfig, rngs: nnx.Rngs):
        D, H, N, K = config.hidden_size, config.num_attention_heads, config.num_key_value_heads, config.head_dim
        self.q = _normal(rngs, (D, H, K))
        self.k = _normal(rngs, (D, N, K))
        self.v = _normal(rngs, (D, N, K))
        self.o = _normal(rngs, (H, K, D))

    def __call__(self, x_BSD, sin, cos, attend: Callable, layer: jax.Array):
        dtype = x_BSD.dtype
        q_BSHK = linear(x_BSD, self.q[...].astype(dtype))
        k_BSNK = linear(x_BSD, self.k[...].astype(dtype))
        v_BSNK = linear(x_BSD, self.v[...].astype(dtype))
        q_BSHK, k_BSNK = apply_rope(q_BSHK, sin, cos), apply_rope(k_BSNK, sin, cos)
        out_BSHK = attend(q_BSHK, k_BSNK, v_BSNK, layer)
        new = {"k": k_BSNK.swapaxes(1, 2), "v": v_BSNK.swapaxes(1, 2)}
        return linear(out_BSHK, self.o[...].astype(dtype)), new


class MLP(nnx.Module):
    """SwiGLU (Shazeer 2020, arXiv 2002.05202), (B, S, D) -> (B, S, D); gate and up (D, F), down (F, D)."""

    def __init__(self, config: LlamaConfig, rngs: nnx.Rngs):
        D, F = config.hidden_size, config.intermediate_size
        self.gate = _normal(rngs, (D, F))
        self.up = _normal(rngs, (D, F))
        self.down = _normal(rngs, (F, D))

    def __call__(self, x_BSD):
        dtype = x_BSD.dtype
        gate_BSF = linear(x_BSD, self.gate[...].astype(dtype))
        up_BSF = linear(x_BSD, self.up[...].astype(dtype))
        return linear(jax.nn.silu(gate_BSF) * up_BSF, self.down[...].astype(dtype))


class Layer(nnx.Module):
    """Attention and MLP of the normalised input, added to it: (B, S, D) -> (B, S, D), and what Attention returns."""

    def __init__(self, config: LlamaConfig, rngs: nnx.Rngs):
        self.eps = config.rms_norm_eps
        self.attention_norm = nnx.Param(jnp.ones(config.hidden_size))
        self.attention = Attention(config, rngs)
        self.mlp_norm = nnx.Param(jnp.ones(config.hidden_size))
        self.mlp = MLP(config, rngs)

    def __call__(self, x_BSD, *args):
        out_BSD, new = self.attention(rms_norm(x_BSD, self.attention_norm[...], self.eps), *args)
        x_BSD += out_BSD
        x_BSD += self.mlp(rms_norm(x_BSD, self.mlp_norm[...], self.eps))
        return constrain(x_BSD, ACTIVATIONS), new


class Llama(nnx.Module):
    """int32 tokens (B, S) -> final hidden states (B, S, D) and all layers' keys and values (L, B, N, S, K).

    Training gives a policy for `remat` and gets no keys and values.
    """

    def __init__(self, config: LlamaConfig, rngs: nnx.Rngs):
        self.config = config
        self.embed = _normal(rngs, (config.vocab_size, config.hidden_size))

        @nnx.split_rngs(splits=config.num_hidden_layers)
        @nnx.vmap
        def make_layers(rngs):
            return Layer(config, rngs)

        self.layers = make_layers(rngs)
        self.final_norm = nnx.Param(jnp.ones(config.hidden_size))
        if not config.tie_word_embeddings:
            self.unembed = _normal(rngs, (config.vocab_size, config.hidden_size))

    def __call__(self, tokens_BS, positions_BS, attend, *, dtype, remat=None):
        config = self.config
        graph, layers = nnx.split(self.layers)
        angles_BSK = positions_BS[..., None].astype(jnp.float32) * rope_frequencies(config)
        sin, cos = jnp.sin(angles_BSK), jnp.cos(angles_BSK)

        def body(x_BSD, xs):
            layer, number = xs
            x_BSD, new = nnx.merge(graph, layer)(x_BSD, sin, cos, attend, number)
            return x_BSD, new if remat is None else None

        if remat not in (None, "none"):
            # Inside a scan nothing can be moved across the loop, so XLA needs no barrier against it.
            body = jax.checkpoint(body, policy=REMAT_POLICIES[remat], prevent_cse=False)
        x_BSD = constrain(self.embed[...].astype(dtype)[tokens_BS], ACTIVATIONS)
        x_BSD, new = jax.lax.scan(body, x_BSD, (layers, jnp.arange(config.num_hidden_layers)))
        return rms_norm(x_BSD, self.final_norm[...], config.rms_norm_eps), new


# ----------------------------------------------------------------------------------------------------------------------
# Functions over plain parameters: what training, scoring and generation call
# ----------------------------------------------------------------------------------------------------------------------


@functools.cache
def _graph(config: LlamaConfig) -> nnx.GraphDef:
    return nnx.graphdef(nnx.eval_shape(lambda: Llama(config, nnx.Rngs(0))))


def init(config: LlamaConfig, key: jax.Array) -> Params:
    """Fresh float32 parameters as a plain nested dict, layers stacked on the first axis."""
    return nnx.to_pure_dict(nnx.state(Llama(config, nnx.Rngs(key))))


def hidden(
    config: LlamaConfig,
    params: Params,
    tokens_BS: jax.Array,
    positions_BS: jax.Array,
    segments_BS: jax.Array,
    *,
    dtype: Any = jnp.float32,
    remat: str = "none",
) -> jax.Array:
    """Final hidden states (B, S, D) of packed rows; `unembedding(params)` turns them into logits.

    Args:
      tokens_BS: int32 token ids.
      positions_BS: int32, from 0 in each segment.
      segments_BS: int32 segment ids; a position attends only within its own segment.
      dtype: of the computation; norms, softmax and rotation are float32 always.
      remat: a key of `REMAT_POLICIES`.
    """

    def attend(q_BSHK, k_BSNK, v_BSNK, _):
        return attention(q_BSHK, k_BSNK, v_BSNK, positions_BS=positions_BS, segments_BS=segments_BS)

    model = nnx.merge(_graph(config), nnx.State(params))
    return model(tokens_BS, positions_BS, attend, dtype=dtype, remat=remat)[0]


def hidden_cached(
    config: LlamaConfig,
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
    config: LlamaConfig,
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


def init_cache(config: LlamaConfig, batch: int, slots: int, dtype: Any = jnp.float32) -> Cache:
    """An empty key/value cache: "k" and "v", each (L, B, N, T, K). Every device has the whole of a single row."""
    shape = (config.num_hidden_layers, batch, config.num_key_value_heads, slots, config.head_dim)
    spec = CACHE if batch > 1 else P(None, None, *CACHE[2:])
    return {"k": constrain(jnp.zeros(shape, dtype), spec), "v": constrain(jnp.zeros(shape, dtype), spec)}


def extend_cache(cache: Cache, new: Cache, row_R: jax.Array, position_R: jax.Array) -> Cache:
    """The cache with what `hidden_cached` returned for some rows in the slots of each from `position_R` on.

    What is past the last slot is left out.
    """
    slots_RS = position_R[:, None] + jnp.arange(new["k"].shape[3])
    # Indices on both sides of a slice put the indexed dimensions first: (R, S, L, N, K).
    new = {name: new[name].transpose(1, 3, 0, 2, 4) for name in cache}
    return {name: cache[name].at[:, row_R[:, None], :, slots_RS].set(new[name]) for name in cache}


def continue_cache(cache: Cache, new: Cache, start: jax.Array) -> Cache:
    """A cache of one row with the first row of what `hidden_branches` returned in the slots from `start` on."""
    return {name: jax.lax.dynamic_update_slice_in_dim(cache[name], new[name][:, :1], start, axis=3) for name in cache}


def fill_cache(
    cache: Cache, row: jax.Array, past: Cache, seen: jax.Array, new: Cache, at: jax.Array, tokens_T: jax.Array
) -> Cache:
    """The cache with one branch in one of its rows.

    Args:
      cache: to fill.
      row: int32, which of its rows.
      past, seen: a cache of one row, and how many slots of it the branch sees: they become the first ones.
      new: what `hidden_branches` returned.
      at: int32, the row of `new` that the branch is in.
      tokens_T: int32, which token of that row stands in each slot; what it says of the first `seen` slots does not
        count, and what it puts after the branch's last is written over before any query sees it.
    """
    rows_B = jnp.arange(new["k"].shape[1])
    kept_T1 = (jnp.arange(tokens_T.shape[0]) < seen)[:, None]

    def fill(name):
        slots = cache[name].shape[3]
        # A sum over rows, since an index into a sharded axis would gather all of it on every device.
        new_LNSK = jnp.sum(jnp.where((rows_B == at)[:, None, None, None], new[name], 0), axis=1)
        branch = jnp.where(kept_T1, _slots(past[name][:, 0], slots), new_LNSK[:, :, tokens_T])
        return jax.lax.dynamic_update_slice_in_dim(cache[name], branch[:, None], row, axis=1)

    return {name: fill(name) for name in cache}


def _slots(past_LNTK, count):
    """The first `count` slots, zeros after the last."""
    past_LNTK = past_LNTK[:, :, :count]
    return jnp.pad(past_LNTK, ((0, 0), (0, 0), (0, count - past_LNTK.shape[2]), (0, 0)))


def unembedding(params: Params) -> jax.Array:
    """The (V, D) matrix whose product with a hidden state gives logits."""
    return params["unembed"] if "unembed" in params else params["embed"]


def logits(params: Params, x_BSD: jax.Array) -> jax.Array:
    """(B, S, V) float32 logits of hidden states; for loss over long rows use the chunked loss instead."""
    unembed_VD = unembedding(params).astype(x_BSD.dtype)
    return jnp.einsum("bsd,vd->bsv", x_BSD, unembed_VD, preferred_element_type=jnp.float32)


# ----------------------------------------------------------------------------------------------------------------------
# Tables: where each parameter lives, and what Hugging Face calls it
# ----------------------------------------------------------------------------------------------------------------------

ACTIVATIONS = P(("data", "fsdp"), "sequence", None)
CACHE = P(None, ("data", "fsdp"), "tensor", None, None)

SHARDING = (
    ("embed|unembed", P("tensor", "fsdp")),
    ("layers/attention/[qkv]", P(None, "fsdp", "tensor", None)),
    ("layers/attention/o", P(None, "tensor", None, "fsdp")),
    ("layers/mlp/(gate|up)", P(None, "fsdp", "tensor")),
    ("layers/mlp/down", P(None, "tensor", "fsdp")),
    ("layers/(attention|mlp)_norm|final_norm", P()),
)

# (our path, Hugging Face's name, how many of our leading dimensions are inputs). Hugging Face keeps matrices as
# (outputs, inputs), so 0 means "as it is" and n means "flatten the n input dimensions, then transpose".
HUGGINGFACE = (
    ("embed", "model.embed_tokens.weight", 0),
    ("unembed", "lm_head.weight", 0),
    ("final_norm", "model.norm.weight", 0),
    ("layers/attention_norm", "model.layers.{}.input_layernorm.weight", 0),
    ("layers/attention/q", "model.layers.{}.self_attn.q_proj.weight", 1),
    ("layers/attention/k", "model.layers.{}.self_attn.k_proj.weight", 1),
    ("layers/attention/v", "model.layers.{}.self_attn.v_proj.weight", 1),
    ("layers/attention/o", "model.layers.{}.self_attn.o_proj.weight", 2),
    ("layers/mlp_norm", "model.layers.{}.post_attention_layernorm.weight", 0),
    ("layers/mlp/gate", "model.layers.{}.mlp.gate_proj.weight", 1),
    ("layers/mlp/up", "model.layers.{}.mlp.up_proj.weight", 1),
    ("layers/mlp/down", "model.layers.{}.mlp.down_proj.weight", 1),
)


def config_from_hf(hf: dict[str, Any]) -> LlamaConfig:
    """Reads a Hugging Face `config.json` of model type "llama".

    Raises:
      ValueError: a setting of another architecture (biases, another activation or rope type), by key.
    """
    expected = {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False}
    for key, value in expected.items():
        if hf.get(key, value) != value:
            raise ValueError(f"config.json: {key}={hf[key]!r} is not supported, only {value!r}")
    rope = dict(hf.get("rope_parameters") or hf.get("rope_scaling") or {})  # transformers 5 and 4
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ("default", "llama3"):
        raise ValueError(f"config.json: rope type {kind!r} is not supported, only 'default' and 'llama3'")
    fields = [field.name for field in dataclasses.fields(RopeScaling)]
    scaling = RopeScaling(**{name: rope[name] for name in fields}) if kind == "llama3" else None
    return LlamaConfig(
        vocab_size=hf["vocab_size"],
        hidden_size=hf["hidden_size"],
        intermediate_size=hf["intermediate_size"],
        num_hidden_layers=hf["num_hidden_layers"],
        num_attention_heads=hf["num_attention_heads"],
        num_key_value_heads=hf.get("num_key_value_heads") or hf["num_attention_heads"],
        head_dim=hf.get("head_dim") or hf["hidden_size"] // hf["num_attention_heads"],
        max_position_embeddings=hf.get("max_position_embeddings", 2048),
        rope_theta=float(rope.get("rope_theta", hf.get("rope_theta", 10000.0))),
        rope_scaling=scaling,
        rms_norm_eps=hf.get("rms_norm_eps", LlamaConfig.rms_norm_eps),
        tie_word_embeddings=hf.get("tie_word_embeddings", False),
    )


def config_to_hf(config: LlamaConfig) -> dict[str, Any]:
    """The `config.json` that transformers 4 and 5 read back as the same model."""
    hf = dataclasses.asdict(config)
    if config.rope_scaling is not None:
        hf["rope_scaling"] = {"rope_type": "llama3", **hf["rope_scaling"]}
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        **hf,
    }


# ----------------------------------------------------------------------------------------------------------------------
# Presets
# ----------------------------------------------------------------------------------------------------------------------

PRESETS = {
    "smollm2_135m": LlamaConfig(49152, 576, 1536, 30, 9, 3, 64, 8192, 100000.0, None, 1e-5, tie_word_embeddings=True),
    "llama_7b": LlamaConfig(32000, 4096, 11008, 32, 32, 32, 128, 2048),
    "llama_13b": LlamaConfig(32000, 5120, 13824, 40, 40, 40, 128, 2048),
    "llama3_2_1b": LlamaConfig(
        128256, 2048, 8192, 16, 32, 8, 64, 131072, 500000.0, RopeScaling(32.0, 1.0, 4.0, 8192), 1e-5, True
    ),
    "tiny": LlamaConfig(512, 64, 172, 5, 8, 4, 8, 512, rms_norm_eps=1e-5),
}
