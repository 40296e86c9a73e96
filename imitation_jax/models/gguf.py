"""GGUF files in: metadata as a Hugging Face config, tensors de-quantised to float32 under Hugging Face's names.

The file format and llama.cpp's naming: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType
from gguf.quants import dequantize

from imitation_jax.models.huggingface import Tensors
from imitation_jax.tokenizers.gguf import open_reader

NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output.weight": "lm_head.weight",
    "output_norm.weight": "model.norm.weight",
    "attn_norm.weight": "model.layers.{}.input_layernorm.weight",
    "attn_q.weight": "model.layers.{}.self_attn.q_proj.weight",
    "attn_k.weight": "model.layers.{}.self_attn.k_proj.weight",
    "attn_v.weight": "model.layers.{}.self_attn.v_proj.weight",
    "attn_output.weight": "model.layers.{}.self_attn.o_proj.weight",
    "ffn_norm.weight": "model.layers.{}.post_attention_layernorm.weight",
    "ffn_gate.weight": "model.layers.{}.mlp.gate_proj.weight",
    "ffn_up.weight": "model.layers.{}.mlp.up_proj.weight",
    "ffn_down.weight": "model.layers.{}.mlp.down_proj.weight",
}
# Llama 3's scaling is stored as divisors of the frequencies; these are the published (factor, length) it comes from.
LLAMA3_SCALINGS = ((8.0, 8192), (32.0, 8192))


def open_gguf(path: Path) -> tuple[dict[str, Any], Tensors]:
    """The file's Hugging Face config and its tensors by Hugging Face name, each de-quantised when called.

    Raises:
      FileNotFoundError: no such file.
      ValueError: cut off, no GGUF file, another architecture, or a quantisation that the gguf library cannot undo.
    """
    reader = open_reader(path)

    def get(key: str, default: Any = None) -> Any:
        field = reader.get_field(key)
        if field is None and default is None:
            raise ValueError(f"{path}: the metadata lacks {key}")
        return default if field is None else field.contents()

    if (architecture := get("general.architecture")) != "llama":
        raise ValueError(f"{path}: architecture {architecture!r} is not supported, only 'llama'")
    if (scaling := get("llama.rope.scaling.type", "none")) != "none":
        raise ValueError(f"{path}: rope scaling {scaling!r} is not supported")
    stored = {tensor.name: index for index, tensor in enumerate(reader.tensors)}
    if "token_embd.weight" not in stored:
        raise ValueError(f"{path}: tensor token_embd.weight is missing; is the file a whole model?")
    heads = get("llama.attention.head_count")
    hidden_size = get("llama.embedding_length")
    config = {
        "model_type": "llama",
        "vocab_size": int(reader.get_tensor(stored["token_embd.weight"]).shape[1]),
        "hidden_size": hidden_size,
        "intermediate_size": get("llama.feed_forward_length"),
        "num_hidden_layers": get("llama.block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": get("llama.attention.head_count_kv", heads),
        "head_dim": get("llama.attention.key_length", hidden_size // heads),
        "max_position_embeddings": get("llama.context_length"),
        "rope_theta": get("llama.rope.freq_base", 10000.0),
        # Stored as float32; the shortest decimal that rounds to it is the number that was meant.
        "rms_norm_eps": float(str(np.float32(get("llama.attention.layer_norm_rms_epsilon")))),
        "tie_word_embeddings": "output.weight" not in stored,
    }
    if (divisors := stored.pop("rope_freqs.weight", None)) is not None:
        config["rope_scaling"] = _llama3_scaling(np.asarray(reader.get_tensor(divisors).data), path)

    def read(index, permuted_heads):
        tensor = reader.get_tensor(index)
        try:
            array = dequantize(tensor.data, GGMLQuantizationType(tensor.tensor_type)).astype(np.float32)
        except NotImplementedError:
            kind = GGMLQuantizationType(tensor.tensor_type).name
            raise ValueError(f"{path}: {tensor.name} is {kind}, which cannot be de-quantised; use Q8_0") from None
        array = array.reshape(tuple(int(n) for n in reversed(tensor.shape)))
        if permuted_heads:  # llama.cpp interleaves the two rotary halves of each head
            rows, columns = array.shape
            array = array.reshape(permuted_heads, rows // permuted_heads // 2, 2, columns)
            array = array.swapaxes(1, 2).reshape(rows, columns)
        return array

    tensors: Tensors = {}
    for name, index in stored.items():
        layer, _, rest = name.removeprefix("blk.").partition(".") if name.startswith("blk.") else ("", "", name)
        if rest not in NAMES:
            raise ValueError(f"{path}: tensor {name} does not belong to the llama architecture")
        permuted = {"attn_q.weight": heads, "attn_k.weight": config["num_key_value_heads"]}.get(rest, 0)
        tensors[NAMES[rest].format(layer)] = lambda index=index, permuted=permuted: read(index, permuted)
    return config, tensors


def _llama3_scaling(divisors: np.ndarray, path: Path) -> dict[str, Any]:
    for factor, length in LLAMA3_SCALINGS:
        if np.isclose(divisors.max(), factor):
            return {
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": length,
            }
    raise ValueError(f"{path}: rope_freqs.weight stretches by {divisors.max():g}, known are 8 and 32 (Llama 3.1, 3.2)")
