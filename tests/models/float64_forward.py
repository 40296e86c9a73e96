"""Logits of LLaMA and GPT-2 in float64, in plain numpy: what float32 logits are measured against.

Written from the published definitions and on Hugging Face's names alone, so that it shares nothing with the models.
Legend: S positions, D model, H query heads, N key/value heads, G = H / N, K head size, V vocabulary.
"""

from collections.abc import Callable, Mapping

import numpy as np

Tensors = Mapping[str, Callable[[], np.ndarray]]
FACTOR = 1.25  # the law: our errors are at most so many times those of transformers


def logits(hf: dict, tensors: Tensors, ids: list[int]) -> np.ndarray:
    """(S, V) float64 logits of one sequence.

    Args:
      hf: the model's `config.json`.
      tensors: by Hugging Face name, each a function that returns the float32 weight.
    """
    return {"llama": _llama, "gpt2": _gpt2}[hf["model_type"]](hf, lambda name: tensors[name]().astype(np.float64), ids)


def errors(float32: np.ndarray, float64: np.ndarray) -> tuple[float, float]:
    """The largest difference, and the root of their mean square."""
    difference = np.asarray(float32, np.float64) - float64
    return float(np.abs(difference).max()), float(np.sqrt(np.square(difference).mean()))


def _attention(q_SHK: np.ndarray, k_SNK: np.ndarray, v_SNK: np.ndarray) -> np.ndarray:
    S, H, K = q_SHK.shape
    q_NGSK = q_SHK.reshape(S, k_SNK.shape[1], -1, K).transpose(1, 2, 0, 3)
    logits_NGSS = q_NGSK @ k_SNK.transpose(1, 2, 0)[:, None] * K**-0.5
    logits_NGSS = np.where(np.tril(np.ones((S, S), bool)), logits_NGSS, -np.inf)
    weights_NGSS = np.exp(logits_NGSS - logits_NGSS.max(-1, keepdims=True))
    weights_NGSS /= weights_NGSS.sum(-1, keepdims=True)
    return (weights_NGSS @ v_SNK.transpose(1, 0, 2)[:, None]).transpose(2, 0, 1, 3).reshape(S, H * K)


def _frequencies(hf: dict, head_dim: int) -> np.ndarray:
    """(K / 2,) constants of the model, float32 in every implementation: 1 / theta^(2 i / K), and Llama 3's scaling."""
    rope = hf.get("rope_parameters") or {"rope_theta": hf["rope_theta"]} | (hf.get("rope_scaling") or {})
    freqs = (1 / (rope["rope_theta"] ** (np.arange(0, head_dim, 2) / head_dim)).astype(np.float32)).astype(np.float64)
    if rope.get("rope_type", "default") == "default":
        return freqs
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    smooth = (rope["original_max_position_embeddings"] * freqs / (2 * np.pi) - low) / (high - low)
    smooth = np.clip(smooth, 0, 1)
    return (1 - smooth) * freqs / rope["factor"] + smooth * freqs


def _llama(hf: dict, weight: Callable[[str], np.ndarray], ids: list[int]) -> np.ndarray:
    S, H, N = len(ids), hf["num_attention_heads"], hf["num_key_value_heads"]
    K = hf.get("head_dim") or hf["hidden_size"] // H
    angles = np.arange(S)[:, None] * _frequencies(hf, K)
    sin, cos = np.sin(angles)[:, None], np.cos(angles)[:, None]

    def norm(x_SD, name):
        mean_S1 = np.mean(np.square(x_SD), -1, keepdims=True)
        return x_SD / np.sqrt(mean_S1 + hf["rms_norm_eps"]) * weight(name)

    def rotate(x_SHK):
        a, b = np.split(x_SHK, 2, -1)
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)

    x_SD = weight("model.embed_tokens.weight")[ids]
    for layer in range(hf["num_hidden_layers"]):
        at = f"model.layers.{layer}"
        y_SD = norm(x_SD, f"{at}.input_layernorm.weight")
        q, k, v = (y_SD @ weight(f"{at}.self_attn.{name}_proj.weight").T for name in "qkv")
        out = _attention(rotate(q.reshape(S, H, K)), rotate(k.reshape(S, N, K)), v.reshape(S, N, K))
        x_SD = x_SD + out @ weight(f"{at}.self_attn.o_proj.weight").T
        y_SD = norm(x_SD, f"{at}.post_attention_layernorm.weight")
        gate, up = (y_SD @ weight(f"{at}.mlp.{name}_proj.weight").T for name in ("gate", "up"))
        x_SD = x_SD + (gate / (1 + np.exp(-gate)) * up) @ weight(f"{at}.mlp.down_proj.weight").T
    head = "model.embed_tokens.weight" if hf.get("tie_word_embeddings") else "lm_head.weight"
    return norm(x_SD, "model.norm.weight") @ weight(head).T


def _gpt2(hf: dict, weight: Callable[[str], np.ndarray], ids: list[int]) -> np.ndarray:
    S, H, K = len(ids), hf["n_head"], hf["n_embd"] // hf["n_head"]

    def norm(x_SD, name):
        x_SD = x_SD - x_SD.mean(-1, keepdims=True)
        variance_S1 = np.square(x_SD).mean(-1, keepdims=True)
        return x_SD / np.sqrt(variance_S1 + hf["layer_norm_epsilon"]) * weight(f"{name}.weight") + weight(
            f"{name}.bias"
        )

    def dense(x_SD, name):  # transformers' Conv1D keeps (inputs, outputs)
        return x_SD @ weight(f"{name}.weight") + weight(f"{name}.bias")

    x_SD = weight("transformer.wte.weight")[ids] + weight("transformer.wpe.weight")[:S]
    for layer in range(hf["n_layer"]):
        at = f"transformer.h.{layer}"
        q, k, v = np.split(dense(norm(x_SD, f"{at}.ln_1"), f"{at}.attn.c_attn"), 3, -1)
        x_SD = x_SD + dense(_attention(*(y.reshape(S, H, K) for y in (q, k, v))), f"{at}.attn.c_proj")
        y = dense(norm(x_SD, f"{at}.ln_2"), f"{at}.mlp.c_fc")
        y = y / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (y + 0.044715 * y**3)))
        x_SD = x_SD + dense(y, f"{at}.mlp.c_proj")
    return norm(x_SD, "transformer.ln_f") @ weight("transformer.wte.weight").T
