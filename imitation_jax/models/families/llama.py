"""The LLaMA family: RMSNorm, RoPE, grouped-query attention, SwiGLU; layers stacked and scanned.

Legend: B rows, S positions, D model, H query heads, N key/value heads, K head size, F feed-forward, V vocabulary,
L layers, T key/value slots.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import PartitionSpec as P

from imitation_jax.models.decoder import ACTIVATIONS, linear, look_up, normal, scan, stack
from imitation_jax.parallel.sharding import constrain


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

    learned_positions: ClassVar[bool] = False

    @property
    def matrix_weights(self) -> int:
        """How many weights a position is multiplied with."""
        D, F, K = self.hidden_size, self.intermediate_size, self.head_dim
        heads = 2 * self.num_attention_heads + 2 * self.num_key_value_heads
        return self.num_hidden_layers * (D * K * heads + 3 * D * F) + self.vocab_size * D

    def build(self, rngs: nnx.Rngs) -> "Llama":
        """The model with fresh weights."""
        return Llama(self, rngs)


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


class Attention(nnx.Module):
    """(B, S, D) -> (B, S, D) and, to be cached, the keys and values, each (B, N, S, K); q, k, v (D, heads, K).

    `attend` takes queries, keys, values and the number of the layer, and knows who sees what.
    """

    def __init__(self, config: LlamaConfig, rngs: nnx.Rngs):
        D, H, N, K = config.hidden_size, config.num_attention_heads, config.num_key_value_heads, config.head_dim
        self.q = normal(rngs, (D, H, K))
        self.k = normal(rngs, (D, N, K))
        self.v = normal(rngs, (D, N, K))
        self.o = normal(rngs, (H, K, D))

    def __call__(self, x_BSD, sin, cos, attend: Callable, layer: jax.Array):
        q_BSHK = linear(x_BSD, self.q[...])
        k_BSNK = linear(x_BSD, self.k[...])
        v_BSNK = linear(x_BSD, self.v[...])
        q_BSHK, k_BSNK = apply_rope(q_BSHK, sin, cos), apply_rope(k_BSNK, sin, cos)
        out_BSHK = attend(q_BSHK, k_BSNK, v_BSNK, layer)
        new = {"k": k_BSNK.swapaxes(1, 2), "v": v_BSNK.swapaxes(1, 2)}
        return linear(out_BSHK, self.o[...]), new


class MLP(nnx.Module):
    """SwiGLU (Shazeer 2020, arXiv 2002.05202), (B, S, D) -> (B, S, D); gate and up (D, F), down (F, D)."""

    def __init__(self, config: LlamaConfig, rngs: nnx.Rngs):
        D, F = config.hidden_size, config.intermediate_size
        self.gate = normal(rngs, (D, F))
        self.up = normal(rngs, (D, F))
        self.down = normal(rngs, (F, D))

    def __call__(self, x_BSD):
        gate_BSF = linear(x_BSD, self.gate[...])
        up_BSF = linear(x_BSD, self.up[...])
        return linear(jax.nn.silu(gate_BSF) * up_BSF, self.down[...])


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
        self.embed = normal(rngs, (config.vocab_size, config.hidden_size))

        self.layers = stack(lambda rngs: Layer(config, rngs), config.num_hidden_layers, rngs)
        self.final_norm = nnx.Param(jnp.ones(config.hidden_size))
        if not config.tie_word_embeddings:
            self.unembed = normal(rngs, (config.vocab_size, config.hidden_size))

    def __call__(self, tokens_BS, positions_BS, attend, *, dtype, remat=None):
        config = self.config
        angles_BSK = positions_BS[..., None].astype(jnp.float32) * rope_frequencies(config)
        sin, cos = jnp.sin(angles_BSK), jnp.cos(angles_BSK)
        x_BSD = look_up(self.embed, tokens_BS, dtype)
        x_BSD, new = scan(self.layers, config.num_hidden_layers, x_BSD, sin, cos, attend, remat=remat)
        return rms_norm(x_BSD, self.final_norm[...], config.rms_norm_eps), new


# ----------------------------------------------------------------------------------------------------------------------
# Tables: where each parameter lives, and what Hugging Face calls it
# ----------------------------------------------------------------------------------------------------------------------

SHARDING = (
    ("embed|unembed", P("tensor", "fsdp")),
    ("layers/attention/[qkv]", P(None, "fsdp", "tensor", None)),
    ("layers/attention/o", P(None, "tensor", None, "fsdp")),
    ("layers/mlp/(gate|up)", P(None, "fsdp", "tensor")),
    ("layers/mlp/down", P(None, "tensor", "fsdp")),
    ("layers/(attention|mlp)_norm|final_norm", P()),
)

# Rows of `huggingface.Mapping`: 0 means "as it is", n "flatten the n input dimensions, then transpose".
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


def _llama3(*sizes: int, factor: float, tie_word_embeddings: bool = False) -> LlamaConfig:
    """Llama 3.1 and 3.2; `sizes` from the hidden size to the head's."""
    scaling = RopeScaling(factor, 1.0, 4.0, 8192)
    return LlamaConfig(128256, *sizes, 131072, 500000.0, scaling, 1e-5, tie_word_embeddings)


PRESETS = {
    "llama_7b": LlamaConfig(32000, 4096, 11008, 32, 32, 32, 128),
    "llama_13b": LlamaConfig(32000, 5120, 13824, 40, 40, 40, 128),
    "llama_30b": LlamaConfig(32000, 6656, 17920, 60, 52, 52, 128),
    "llama_65b": LlamaConfig(32000, 8192, 22016, 80, 64, 64, 128, rms_norm_eps=1e-5),
    "llama2_7b": LlamaConfig(32000, 4096, 11008, 32, 32, 32, 128, 4096, rms_norm_eps=1e-5),
    "llama2_13b": LlamaConfig(32000, 5120, 13824, 40, 40, 40, 128, 4096, rms_norm_eps=1e-5),
    "llama2_70b": LlamaConfig(32000, 8192, 28672, 80, 64, 8, 128, 4096, rms_norm_eps=1e-5),
    "llama31_8b": _llama3(4096, 14336, 32, 32, 8, 128, factor=8.0),
    "llama31_70b": _llama3(8192, 28672, 80, 64, 8, 128, factor=8.0),
    "llama32_1b": _llama3(2048, 8192, 16, 32, 8, 64, factor=32.0, tie_word_embeddings=True),
    "llama32_3b": _llama3(3072, 8192, 28, 24, 8, 128, factor=32.0, tie_word_embeddings=True),
    "tinyllama_1_1b": LlamaConfig(32000, 2048, 5632, 22, 32, 4, 64, rms_norm_eps=1e-5),
    "smollm2_135m": LlamaConfig(49152, 576, 1536, 30, 9, 3, 64, 8192, 100000.0, None, 1e-5, True),
    "smollm2_360m": LlamaConfig(49152, 960, 2560, 32, 15, 5, 64, 8192, 100000.0, None, 1e-5, True),
    "smollm2_1_7b": LlamaConfig(49152, 2048, 8192, 24, 32, 32, 64, 8192, 130000.0, None, 1e-5, True),
    "tiny": LlamaConfig(512, 64, 172, 5, 8, 4, 8, 512, rms_norm_eps=1e-5),
}
