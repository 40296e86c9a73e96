"""The GPT-2 family: learned positions, LayerNorm, GELU, biases; layers stacked and scanned (Radford et al. 2019).

Dropout is left out: fine-tuning sees each dialogue once, and logits and resumed runs stay exact functions of the data.

Legend: B rows, S positions, D model, H heads, K head size, F feed-forward, V vocabulary, L layers.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P

from imitation_jax.models.decoder import ACTIVATIONS, linear, look_up, normal, scan, stack
from imitation_jax.parallel.sharding import constrain


@dataclasses.dataclass(frozen=True)
class GPT2Config:
    """The architecture, in LLaMA's field names, so that what asks for sizes need not know the family."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    max_position_embeddings: int = 1024
    layer_norm_epsilon: float = 1e-5

    learned_positions: ClassVar[bool] = True

    @property
    def num_key_value_heads(self) -> int:
        return self.num_attention_heads

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads

    @property
    def matrix_weights(self) -> int:
        """How many weights a position is multiplied with."""
        D, F = self.hidden_size, self.intermediate_size
        return self.num_hidden_layers * (4 * D * D + 2 * D * F) + self.vocab_size * D

    def build(self, rngs: nnx.Rngs) -> "GPT2":
        """The model with fresh weights."""
        return GPT2(self, rngs)


# ----------------------------------------------------------------------------------------------------------------------
# Modules
# ----------------------------------------------------------------------------------------------------------------------


def plus(x: jax.Array, bias: jax.Array) -> jax.Array:
    """The sum in the dtype of `x`, made in the bias's, in which its gradient is added up over rows and devices."""
    return (x.astype(bias.dtype) + bias).astype(x.dtype)


def layer_norm(x_BSD: jax.Array, scale_D: jax.Array, bias_D: jax.Array, eps: float) -> jax.Array:
    """Normalisation to mean 0 and variance 1, in float32 (Ba et al. 2016, arXiv 1607.06450)."""
    x32_BSD = x_BSD.astype(jnp.float32)
    x32_BSD -= jnp.mean(x32_BSD, axis=-1, keepdims=True)
    x32_BSD *= jax.lax.rsqrt(jnp.mean(jnp.square(x32_BSD), axis=-1, keepdims=True) + eps)
    return (x32_BSD * scale_D + bias_D).astype(x_BSD.dtype)


class Attention(nnx.Module):
    """(B, S, D) -> (B, S, D) and, to be cached, the keys and values, each (B, H, S, K); qkv (D, 3, H, K), o (H, K, D).

    `attend` takes queries, keys, values and the number of the layer, and knows who sees what.
    """

    def __init__(self, config: GPT2Config, rngs: nnx.Rngs):
        D, H, K = config.hidden_size, config.num_attention_heads, config.head_dim
        self.qkv = normal(rngs, (D, 3, H, K))
        self.qkv_bias = nnx.Param(jnp.zeros(3 * D))
        self.o = normal(rngs, (H, K, D), _residual_scale(config))
        self.o_bias = nnx.Param(jnp.zeros(D))

    def __call__(self, x_BSD, attend: Callable, layer: jax.Array):
        qkv_BS3HK = linear(x_BSD, self.qkv[...])
        qkv_BS3HK = plus(qkv_BS3HK, self.qkv_bias[...].reshape(qkv_BS3HK.shape[2:]))
        q_BSHK, k_BSHK, v_BSHK = (qkv_BS3HK[:, :, part] for part in range(3))
        out_BSHK = attend(q_BSHK, k_BSHK, v_BSHK, layer)
        new = {"k": k_BSHK.swapaxes(1, 2), "v": v_BSHK.swapaxes(1, 2)}
        return plus(linear(out_BSHK, self.o[...]), self.o_bias[...]), new


class MLP(nnx.Module):
    """Two matrices about a GELU in its tanh form (Hendrycks and Gimpel 2016, arXiv 1606.08415): (B, S, D) -> the same.

    up (D, F), down (F, D).
    """

    def __init__(self, config: GPT2Config, rngs: nnx.Rngs):
        D, F = config.hidden_size, config.intermediate_size
        self.up = normal(rngs, (D, F))
        self.up_bias = nnx.Param(jnp.zeros(F))
        self.down = normal(rngs, (F, D), _residual_scale(config))
        self.down_bias = nnx.Param(jnp.zeros(D))

    def __call__(self, x_BSD):
        up_BSF = plus(linear(x_BSD, self.up[...]), self.up_bias[...])
        down_BSD = linear(jax.nn.gelu(up_BSF, approximate=True), self.down[...])
        return plus(down_BSD, self.down_bias[...])


def _residual_scale(config: GPT2Config) -> float:
    # What is added to the residual stream starts smaller the more layers add to it (GPT-2, section 2.3).
    return 0.02 * (2 * config.num_hidden_layers) ** -0.5


class Layer(nnx.Module):
    """Attention and MLP of the normalised input, added to it: (B, S, D) -> (B, S, D), and what Attention returns."""

    def __init__(self, config: GPT2Config, rngs: nnx.Rngs):
        D = config.hidden_size
        self.eps = config.layer_norm_epsilon
        self.attention_norm, self.attention_norm_bias = nnx.Param(jnp.ones(D)), nnx.Param(jnp.zeros(D))
        self.attention = Attention(config, rngs)
        self.mlp_norm, self.mlp_norm_bias = nnx.Param(jnp.ones(D)), nnx.Param(jnp.zeros(D))
        self.mlp = MLP(config, rngs)

    def __call__(self, x_BSD, *args):
        normed_BSD = layer_norm(x_BSD, self.attention_norm[...], self.attention_norm_bias[...], self.eps)
        out_BSD, new = self.attention(normed_BSD, *args)
        x_BSD += out_BSD
        x_BSD += self.mlp(layer_norm(x_BSD, self.mlp_norm[...], self.mlp_norm_bias[...], self.eps))
        return constrain(x_BSD, ACTIVATIONS), new


class GPT2(nnx.Module):
    """int32 tokens (B, S) -> final hidden states (B, S, D) and all layers' keys and values (L, B, H, S, K).

    Training gives a policy for `remat` and gets no keys and values.
    """

    def __init__(self, config: GPT2Config, rngs: nnx.Rngs):
        D = config.hidden_size
        self.config = config
        self.embed = normal(rngs, (config.vocab_size, D))
        self.positions = normal(rngs, (config.max_position_embeddings, D))
        self.layers = stack(lambda rngs: Layer(config, rngs), config.num_hidden_layers, rngs)
        self.final_norm, self.final_norm_bias = nnx.Param(jnp.ones(D)), nnx.Param(jnp.zeros(D))

    def __call__(self, tokens_BS, positions_BS, attend, *, dtype, remat=None):
        config = self.config
        x_BSD = look_up(self.embed, tokens_BS, dtype) + look_up(self.positions, positions_BS, dtype)
        x_BSD, new = scan(self.layers, config.num_hidden_layers, x_BSD, attend, remat=remat)
        return layer_norm(x_BSD, self.final_norm[...], self.final_norm_bias[...], config.layer_norm_epsilon), new


# ----------------------------------------------------------------------------------------------------------------------
# Tables: where each parameter lives, and what Hugging Face calls it
# ----------------------------------------------------------------------------------------------------------------------

SHARDING = (
    # The vocabulary stays whole: 50,257 is 29 x 1,733.
    ("embed|positions", P(None, "fsdp")),
    ("layers/attention/qkv", P(None, "fsdp", None, "tensor", None)),
    ("layers/attention/o", P(None, "tensor", None, "fsdp")),
    ("layers/mlp/up", P(None, "fsdp", "tensor")),
    ("layers/mlp/down", P(None, "tensor", "fsdp")),
    ("(layers/)?(attention|mlp|final)_norm(_bias)?|layers/.*/.*_bias", P()),
)

# Rows of `huggingface.Mapping`. The matrices are transformers' Conv1D, (inputs, outputs), with queries, keys and values
# side by side in one.
HUGGINGFACE = (
    ("embed", "transformer.wte.weight", 0),
    ("positions", "transformer.wpe.weight", 0),
    ("final_norm", "transformer.ln_f.weight", 0),
    ("final_norm_bias", "transformer.ln_f.bias", 0),
    ("layers/attention_norm", "transformer.h.{}.ln_1.weight", 0),
    ("layers/attention_norm_bias", "transformer.h.{}.ln_1.bias", 0),
    ("layers/attention/qkv", "transformer.h.{}.attn.c_attn.weight", -1),
    ("layers/attention/qkv_bias", "transformer.h.{}.attn.c_attn.bias", 0),
    ("layers/attention/o", "transformer.h.{}.attn.c_proj.weight", -2),
    ("layers/attention/o_bias", "transformer.h.{}.attn.c_proj.bias", 0),
    ("layers/mlp_norm", "transformer.h.{}.ln_2.weight", 0),
    ("layers/mlp_norm_bias", "transformer.h.{}.ln_2.bias", 0),
    ("layers/mlp/up", "transformer.h.{}.mlp.c_fc.weight", -1),
    ("layers/mlp/up_bias", "transformer.h.{}.mlp.c_fc.bias", 0),
    ("layers/mlp/down", "transformer.h.{}.mlp.c_proj.weight", -1),
    ("layers/mlp/down_bias", "transformer.h.{}.mlp.c_proj.bias", 0),
)


def config_from_hf(hf: dict[str, Any]) -> GPT2Config:
    """Reads a Hugging Face `config.json` of model type "gpt2".

    Raises:
      ValueError: a setting of another architecture, by key.
    """
    expected = {
        "activation_function": ("gelu_new", "gelu_pytorch_tanh"),  # two names of one function
        "add_cross_attention": (False,),
        "scale_attn_by_inverse_layer_idx": (False,),
        "scale_attn_weights": (True,),
        "tie_word_embeddings": (True,),
    }
    for key, values in expected.items():
        if hf.get(key, values[0]) not in values:
            raise ValueError(f"config.json: {key}={hf[key]!r} is not supported, only {values[0]!r}")
    return GPT2Config(
        vocab_size=hf["vocab_size"],
        hidden_size=hf["n_embd"],
        intermediate_size=hf.get("n_inner") or 4 * hf["n_embd"],
        num_hidden_layers=hf["n_layer"],
        num_attention_heads=hf["n_head"],
        max_position_embeddings=hf["n_positions"],
        layer_norm_epsilon=hf.get("layer_norm_epsilon", GPT2Config.layer_norm_epsilon),
    )


def config_to_hf(config: GPT2Config) -> dict[str, Any]:
    """The `config.json` that transformers 4 and 5 read back as the same model."""
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "activation_function": "gelu_new",
        "vocab_size": config.vocab_size,
        "n_embd": config.hidden_size,
        "n_inner": config.intermediate_size,
        "n_layer": config.num_hidden_layers,
        "n_head": config.num_attention_heads,
        "n_positions": config.max_position_embeddings,
        "layer_norm_epsilon": config.layer_norm_epsilon,
    }


# ----------------------------------------------------------------------------------------------------------------------
# Presets
# ----------------------------------------------------------------------------------------------------------------------

PRESETS = {
    "gpt2_124m": GPT2Config(50257, 768, 3072, 12, 12),
    "gpt2_355m": GPT2Config(50257, 1024, 4096, 24, 16),
    "gpt2_774m": GPT2Config(50257, 1280, 5120, 36, 20),
    "gpt2_1_5b": GPT2Config(50257, 1600, 6400, 48, 25),
}
