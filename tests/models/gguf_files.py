"""Writes tiny GGUF files as llama.cpp's converter does: its names, its order of the rotary halves, its metadata."""

from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind
from tiny_models import uniform

NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "model.layers.": "blk.",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
# Bytes of a block's half-precision scales: (offset, number); all other bytes of a block may be anything.
SCALES = {Kind.Q4_K: (0, 2), Kind.Q6_K: (208, 1)}


def interleave(array: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp's order: the two rotary halves of each head turn by turn."""
    first, second = np.split(array.reshape(heads, -1, array.shape[-1]), 2, axis=1)
    return np.stack([first, second], axis=2).reshape(array.shape)


def quantise(name: str, array: np.ndarray, kind: Kind) -> np.ndarray:
    """The bytes of each row; kinds that the library cannot write get valid bytes by the tensor's name instead."""
    if kind not in SCALES:
        return gguf.quants.quantize(array, kind)
    block, size = gguf.GGML_QUANT_SIZES[kind]
    count = array.size // block
    content = ((uniform(name + "/bytes", (count, size)) + 1) * 128).astype(np.uint8)
    offset, scales = SCALES[kind]
    halves = (np.abs(uniform(name + "/scales", (count, scales))) * 2**-9).astype(np.float16)
    content[:, offset : offset + 2 * scales] = halves.view(np.uint8)
    return content.reshape(array.shape[0], -1)


def write(path: Path, hf: dict, tensors: dict[str, np.ndarray], kind: Kind, **metadata) -> dict[str, np.ndarray]:
    """Writes the model and returns what its tensors are after de-quantising, under Hugging Face's names.

    Args:
      hf: the architecture, as in tiny_models.py.
      tensors: weights under Hugging Face's names; those that are not float32 are written as they are.
      kind: of the float32 matrices; the norms are float32, as llama.cpp keeps them.
      metadata: `architecture`, or keys of GGUF with _ for ., to put in place of what follows from `hf`.
    """
    writer = gguf.GGUFWriter(path, metadata.pop("architecture", "llama"))
    heads, kv_heads = hf["num_attention_heads"], hf["num_key_value_heads"]
    writer.add_block_count(hf["num_hidden_layers"])
    writer.add_context_length(hf["max_position_embeddings"])
    writer.add_embedding_length(hf["hidden_size"])
    writer.add_feed_forward_length(hf["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_rope_freq_base(hf["rope_parameters"]["rope_theta"])
    writer.add_layer_norm_rms_eps(hf["rms_norm_eps"])
    if "head_dim" in hf:
        writer.add_key_length(hf["head_dim"])
        writer.add_value_length(hf["head_dim"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    tokens = ["<s>", "</s>", "a", "b", "ab", *(f"w{number}" for number in range(5, hf["vocab_size"]))]
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3] + [1] * (len(tokens) - 2))
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_chat_template("{% for message in messages %}{{ message.content }}{{ eos_token }}{% endfor %}")
    if (scaling := metadata.pop("rope_scaling_type", None)) is not None:
        writer.add_rope_scaling_type(scaling)
    if (divisors := metadata.pop("rope_divisors", None)) is not None:
        writer.add_tensor("rope_freqs.weight", divisors)
    expected = {}
    for name, array in tensors.items():
        theirs = name
        for old, new in NAMES.items():
            theirs = theirs.replace(old, new)
        turned = {"q_proj": heads, "k_proj": kv_heads}.get(name.split(".")[-2])
        if array.ndim == 1 or array.dtype != np.float32:
            writer.add_tensor(theirs, array)
            expected[name] = array
            continue
        # As llama.cpp does where a row is not whole blocks.
        used = Kind.F32 if array.shape[1] % gguf.GGML_QUANT_SIZES[kind][0] else kind
        content = quantise(name, array, used)
        expected[name] = gguf.quants.dequantize(content, used).astype(np.float32)
        # Blocks lie within rows, so rows can change places after quantising too.
        content = interleave(content, turned) if turned else content
        writer.add_tensor(theirs, content, raw_dtype=None if used in (Kind.F32, Kind.F16) else used)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert not metadata
    return expected
