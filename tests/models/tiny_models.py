"""Three tiny LLaMAs and a tiny GPT-2, whose weights follow from a tensor's name and shape, so none are committed."""

import json
import zlib
from pathlib import Path

import numpy as np

# In the field names that transformers' LlamaConfig takes.
ARCHITECTURES = {
    "grouped_tied": {
        "vocab_size": 96,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    },
    "llama3_rope": {
        "vocab_size": 120,
        "hidden_size": 48,
        "intermediate_size": 80,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    },
    "multi_head": {
        "vocab_size": 104,
        "hidden_size": 32,
        "intermediate_size": 88,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": 128,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
    },
}
# In those of its GPT2Config.
GPT2 = {
    "vocab_size": 101,
    "n_embd": 48,
    "n_layer": 3,
    "n_head": 4,
    "n_positions": 64,
    "layer_norm_epsilon": 1e-5,
    "tie_word_embeddings": True,
}
POSITIONS = 40
ORACLES = Path(__file__).with_name("oracles.json")
LOGITS = Path(__file__).with_name("oracles.npz")


def uniform(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Float32 in [-1, 1), exact on every machine: splitmix64 of the element's number, seeded by the name."""
    x = np.arange(np.prod(shape), dtype=np.uint64) + np.uint64(zlib.crc32(name.encode()) << 32)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return ((x >> np.uint64(40)).astype(np.float32) / np.float32(2**23) - 1).reshape(shape)


def weights(hf: dict) -> dict[str, np.ndarray]:
    """All tensors of the architecture under Hugging Face's names, of a size that makes logits of a few units."""
    shapes = _gpt2_shapes(hf) if "n_embd" in hf else _llama_shapes(hf)
    tensors = {}
    for name, shape in shapes.items():
        drawn = uniform(name, shape)
        # Powers of two keep the scaling exact.
        if len(shape) == 1:
            tensors[name] = drawn / 4 if name.endswith("bias") else 1 + drawn / 4
        else:
            tensors[name] = drawn * (1 if any(part in name for part in ("embed", "head", "wte")) else 0.25)
    return tensors


def _llama_shapes(hf: dict) -> dict[str, tuple[int, ...]]:
    D, F, V = hf["hidden_size"], hf["intermediate_size"], hf["vocab_size"]
    H, N = hf["num_attention_heads"], hf["num_key_value_heads"]
    K = hf.get("head_dim") or D // H
    shapes = {"model.embed_tokens.weight": (V, D), "model.norm.weight": (D,)}
    if not hf["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (V, D)
    for layer in range(hf["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        shapes |= {prefix + "input_layernorm.weight": (D,), prefix + "post_attention_layernorm.weight": (D,)}
        shapes |= {prefix + f"self_attn.{x}_proj.weight": (n * K, D) for x, n in (("q", H), ("k", N), ("v", N))}
        shapes |= {prefix + "self_attn.o_proj.weight": (D, H * K), prefix + "mlp.down_proj.weight": (D, F)}
        shapes |= {prefix + f"mlp.{x}_proj.weight": (F, D) for x in ("gate", "up")}
    return shapes


def _gpt2_shapes(hf: dict) -> dict[str, tuple[int, ...]]:
    D, start = hf["n_embd"], "transformer."
    shapes = {f"{start}wte.weight": (hf["vocab_size"], D), f"{start}wpe.weight": (hf["n_positions"], D)}
    norms, matrices = [f"{start}ln_f"], {}
    for layer in range(hf["n_layer"]):
        prefix = f"{start}h.{layer}."
        norms += [f"{prefix}ln_1", f"{prefix}ln_2"]
        matrices |= {f"{prefix}attn.c_attn": (D, 3 * D), f"{prefix}attn.c_proj": (D, D)}
        matrices |= {f"{prefix}mlp.c_fc": (D, 4 * D), f"{prefix}mlp.c_proj": (4 * D, D)}
    shapes |= {f"{name}.{part}": (D,) for name in norms for part in ("weight", "bias")}
    for name, shape in matrices.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[1:]}
    return shapes


def tokens(hf: dict) -> np.ndarray:
    """(1, POSITIONS) int32 ids."""
    ids = (uniform("tokens", (1, POSITIONS)) + 1) / 2 * hf["vocab_size"]
    return ids.astype(np.int32)


def oracles() -> dict:
    """`configs` as transformers writes them, and `smollm2`: text, ids, and some logits at the last position."""
    return json.loads(ORACLES.read_text(encoding="utf-8"))
