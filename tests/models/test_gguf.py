import dataclasses
import math

import gguf_files
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind
from gguf import RopeScalingType
from safetensors.numpy import save_file
from tiny_models import ARCHITECTURES, oracles, tokens, weights

from imitation_jax.models.families import llama
from imitation_jax.models.load import load_model
from imitation_jax.parallel.mesh import make_mesh

# Rows of whole blocks of 256, which the K kinds need.
WIDE = ARCHITECTURES["multi_head"] | {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 1}


@pytest.fixture
def write(tmp_path):
    def path_and_expected(hf, kind=Kind.F32, tensors=None, **metadata):
        path = tmp_path / f"tiny-{kind.name}.gguf"
        return path, gguf_files.write(path, hf, tensors or weights(hf), kind, **metadata)

    return path_and_expected


def equal(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


# ----------------------------------------------------------------------------------------------------------------------
# Weights
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Kind.F32, Kind.F16, Kind.BF16, Kind.Q8_0, Kind.Q4_0, Kind.Q4_1, Kind.Q5_1], ids=str)
def test_kinds(kind, write, as_hf):
    hf = ARCHITECTURES["grouped_tied"]
    path, expected = write(hf, kind)
    model = load_model(f"gguf:{path}")
    equal(as_hf(model), expected)
    assert model.config == llama.config_from_hf(oracles()["configs"]["grouped_tied"])
    assert model.tokenizer.encode("ab") == [4]
    error = max(np.abs(expected[name] - array).max() for name, array in weights(hf).items())
    assert (error == 0) == (kind is Kind.F32) and error < 0.2


@pytest.mark.parametrize("kind", [Kind.Q4_K, Kind.Q6_K], ids=str)
def test_kinds_that_are_only_read(kind, write, as_hf):
    path, expected = write(WIDE, kind)
    assert all(np.isfinite(array).all() and array.std() > 0.001 for array in expected.values())
    equal(as_hf(load_model(f"gguf:{path}", make_mesh("fsdp=4,tensor=2"))), expected)


@pytest.mark.parametrize("name", ["grouped_tied", "multi_head"])
def test_logits_equal_those_of_a_folder_of_the_same_weights(name, write, hf_folder, logits_of, one_device):
    hf = ARCHITECTURES[name]
    path, expected = write(hf, Kind.Q8_0)
    ours = load_model(f"gguf:{path}", one_device)
    folder = load_model(f"hf:{hf_folder(name, tensors=expected)}", one_device)
    assert ours.config == folder.config
    np.testing.assert_array_equal(logits_of(ours, tokens(hf)), logits_of(folder, tokens(hf)))


def test_a_head_size_of_its_own(write, as_hf):
    hf = ARCHITECTURES["llama3_rope"]
    path, expected = write(hf, Kind.F16)
    model = load_model(f"gguf:{path}")
    assert model.config.head_dim == 16 and model.config.hidden_size == 48
    assert not model.config.tie_word_embeddings
    equal(as_hf(model), expected)


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_rope_freqs_are_llama_3s_scaling(factor, write):
    """Llama 3.1's and 3.2's published settings, by transformers' formula for the wavelengths."""
    hf = ARCHITECTURES["llama3_rope"]
    freqs = 500000.0 ** -(np.arange(0, 16, 2) / 16)
    divisors = []
    for freq in freqs:
        turns = 8192 * freq / (2 * math.pi)
        kept = min(max((turns - 1.0) / (4.0 - 1.0), 0.0), 1.0)
        divisors.append(1 / (kept + (1 - kept) / factor))
    assert divisors[0] == 1 and divisors[-1] == factor and len(set(divisors)) == 3
    path, _ = write(hf, rope_divisors=np.array(divisors, np.float32))
    config = load_model(f"gguf:{path}").config
    assert config.rope_scaling == llama.RopeScaling(factor, 1.0, 4.0, 8192)
    plain = llama.rope_frequencies(dataclasses.replace(config, rope_scaling=None))
    np.testing.assert_allclose(plain / llama.rope_frequencies(config), divisors, rtol=1e-6)


# ----------------------------------------------------------------------------------------------------------------------
# Refusals
# ----------------------------------------------------------------------------------------------------------------------


def test_no_file(tmp_path, refused):
    with refused(FileNotFoundError, tmp_path / "none.gguf", "not found"):
        load_model(f"gguf:{tmp_path}/none.gguf")


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.005, 0.03, 0.1, 0.3, 0.9, 0.999])
def test_a_cut_file(share, write, refused):
    path, _ = write(ARCHITECTURES["multi_head"])
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with refused(ValueError, path, "cannot be read as GGUF", "is the file whole?"):
        load_model(f"gguf:{path}")


def test_no_gguf_file(tmp_path, refused):
    path = tmp_path / "model.gguf"
    save_file({"x": np.zeros(1000)}, path)
    with refused(ValueError, path, "cannot be read as GGUF"):
        load_model(f"gguf:{path}")


def test_another_architecture(write, refused):
    path, _ = write(ARCHITECTURES["multi_head"], architecture="qwen2")
    with refused(ValueError, path, "architecture 'qwen2' is not supported, only 'llama'"):
        load_model(f"gguf:{path}")


def test_another_rope_scaling(write, refused):
    path, _ = write(ARCHITECTURES["multi_head"], rope_scaling_type=RopeScalingType.YARN)
    with refused(ValueError, path, "rope scaling 'yarn' is not supported"):
        load_model(f"gguf:{path}")


def test_unknown_rope_divisors(write, refused):
    path, _ = write(ARCHITECTURES["multi_head"], rope_divisors=np.array([1, 1, 2, 4], np.float32))
    with refused(ValueError, path, "rope_freqs.weight stretches by 4"):
        load_model(f"gguf:{path}")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("model.embed_tokens.weight", "token_embd.weight is missing"),
        ("model.layers.1.mlp.down_proj.weight", "1 tensors are missing, model.layers.1.mlp.down_proj.weight the first"),
    ],
)
def test_a_missing_tensor(name, reason, write, refused):
    tensors = weights(ARCHITECTURES["multi_head"])
    del tensors[name]
    path, _ = write(ARCHITECTURES["multi_head"], tensors=tensors)
    with refused(ValueError, path, reason):
        load_model(f"gguf:{path}")


@pytest.mark.parametrize("name", ["model.layers.0.self_attn.q_proj.bias", "model.layers.0.ffn_gate_inp.weight"])
def test_a_foreign_tensor(name, write, refused):
    tensors = weights(ARCHITECTURES["multi_head"]) | {name: np.zeros(32, np.float32)}
    path, _ = write(ARCHITECTURES["multi_head"], tensors=tensors)
    with refused(ValueError, path, "blk.0.", "does not belong to the llama architecture"):
        load_model(f"gguf:{path}")


def test_a_wrong_shape(write, refused):
    name = "model.layers.0.mlp.up_proj.weight"
    tensors = weights(ARCHITECTURES["multi_head"]) | {name: np.zeros((32, 88), np.float32)}
    path, _ = write(ARCHITECTURES["multi_head"], tensors=tensors)
    with refused(ValueError, path, name, "has shape (32, 88) where the config asks for (88, 32)"):
        load_model(f"gguf:{path}")


def test_a_kind_that_cannot_be_read(write, refused):
    name = "model.layers.0.mlp.up_proj.weight"
    tensors = weights(ARCHITECTURES["multi_head"]) | {name: np.zeros((88, 32), np.int8)}
    path, _ = write(ARCHITECTURES["multi_head"], tensors=tensors)
    with refused(ValueError, path, "blk.0.ffn_up.weight is I8, which cannot be de-quantised"):
        load_model(f"gguf:{path}")


# ----------------------------------------------------------------------------------------------------------------------
# The real SmolLM2
# ----------------------------------------------------------------------------------------------------------------------


def test_smollm2(smollm2_gguf, logits_of, one_device):
    """Against logits that transformers computed from the same file, committed with the ids of the prompt."""
    model = load_model(f"gguf:{smollm2_gguf}", one_device)
    assert model.config == llama.PRESETS["smollm2_135m"]
    oracle = oracles()["smollm2"]
    assert model.tokenizer.encode(oracle["text"]) == oracle["ids"]
    last = logits_of(model, [oracle["ids"]])[0, -1]
    assert model.tokenizer.decode([last.argmax()]) == " Rome" and last.argmax() == oracle["argmax"]
    np.testing.assert_allclose(last[:: oracle["every"]], oracle["logits"], atol=1e-4, rtol=0)
    np.testing.assert_allclose(last.max(), oracle["max"], atol=1e-4, rtol=0)
