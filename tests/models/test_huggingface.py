import json
from collections import Counter

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny_models import ARCHITECTURES, LOGITS, oracles, tokens, weights

from imitation_jax.models import huggingface
from imitation_jax.models.families import llama
from imitation_jax.models.load import load_model, save_model
from imitation_jax.parallel.mesh import make_mesh

INDEX = "model.safetensors.index.json"


def equal(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape, name
        np.testing.assert_array_equal(found[name], array, err_msg=name)


# ----------------------------------------------------------------------------------------------------------------------
# Against transformers
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_logits_equal_those_of_transformers(name, hf_folder, logits_of, one_device):
    model = load_model(f"hf:{hf_folder(name)}", one_device)
    expected = np.load(LOGITS)[name]
    got = logits_of(model, tokens(ARCHITECTURES[name]))[0]
    assert expected.shape == got.shape and expected.std() > 1
    np.testing.assert_allclose(got, expected, atol=1e-5 * np.abs(expected).max(), rtol=0)
    np.testing.assert_allclose(got, expected, atol=1e-4, rtol=0)


def test_weights_arrive_in_their_shards(hf_folder, as_hf):
    folder = hf_folder("llama3_rope")
    model = load_model(f"hf:{folder}", make_mesh("fsdp=4,tensor=2"))
    up = model.params["layers"]["mlp"]["up"]
    assert up.addressable_shards[0].data.shape == (2, 12, 40)
    equal(as_hf(model), weights(ARCHITECTURES["llama3_rope"]))
    assert model.family is llama


# ----------------------------------------------------------------------------------------------------------------------
# Out and in again
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_round_trip(name, hf_folder, tmp_path, as_hf):
    model = load_model(f"hf:{hf_folder(name)}")
    save_model(model, f"hf:{tmp_path}/out")
    equal(load_file(tmp_path / "out/model.safetensors"), weights(ARCHITECTURES[name]))
    again = load_model(f"hf:{tmp_path}/out")
    assert again.config == model.config
    equal(as_hf(again), as_hf(model))
    assert again.tokenizer.files() == model.tokenizer.files()
    assert again.template.source == model.template.source
    written = json.loads((tmp_path / "out/config.json").read_text())
    ids = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": None}
    assert ids.items() <= written.items() and written["torch_dtype"] == "float32"
    assert not list((tmp_path / "out").glob("*.tmp"))


def test_a_sharded_round_trip(hf_folder, tmp_path, as_hf, small_shards):
    model = load_model(f"hf:{hf_folder('grouped_tied')}")
    out = tmp_path / "out"
    save_model(model, f"hf:{out}")
    files = sorted(path.name for path in out.glob("*.safetensors"))
    count = len(files)
    assert count > 3 and files == [f"model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]
    index = json.loads((out / INDEX).read_text())
    expected = weights(ARCHITECTURES["grouped_tied"])
    assert index["weight_map"].keys() == expected.keys() and set(index["weight_map"].values()) == set(files)
    assert index["metadata"]["total_size"] == sum(array.nbytes for array in expected.values())
    for name, file in index["weight_map"].items():
        assert name in load_file(out / file)
    for file in files:
        shard = load_file(out / file)
        assert len(shard) == 1 or sum(array.nbytes for array in shard.values()) <= huggingface.SHARD_BYTES
    equal(as_hf(load_model(f"hf:{out}")), expected)


def test_an_export_replaces_an_earlier_one(hf_folder, tmp_path, as_hf, monkeypatch):
    """Else shards of the earlier model would be read, here or by transformers."""
    out, one_file = tmp_path / "out", huggingface.SHARD_BYTES
    first, second = (load_model(f"hf:{hf_folder(name)}") for name in ("grouped_tied", "multi_head"))
    for model, limit in ((first, 20_000), (second, one_file), (first, 20_000), (second, 9_000), (first, 20_000)):
        monkeypatch.setattr(huggingface, "SHARD_BYTES", limit)
        save_model(model, f"hf:{out}")
        assert (out / INDEX).exists() == (limit != one_file) == (not (out / "model.safetensors").exists())
        again = load_model(f"hf:{out}")
        assert again.config == model.config
        equal(as_hf(again), as_hf(model))


def test_a_tensor_is_read_once_whatever_the_mesh(hf_folder, monkeypatch):
    read = Counter()
    opened = huggingface.open_tensors

    def counting(folder):
        tensors = opened(folder)
        return {name: lambda name=name: read.update([name]) or tensors[name]() for name in tensors}

    monkeypatch.setattr(huggingface, "open_tensors", counting)
    load_model(f"hf:{hf_folder('llama3_rope')}", make_mesh("data=2,fsdp=4"))
    assert read == Counter(weights(ARCHITECTURES["llama3_rope"]).keys())


def test_an_export_that_is_cut_off_does_not_load(hf_folder, tmp_path, small_shards, monkeypatch, refused):
    """Neither as the model that was there before, with some of its files replaced."""
    model, out, save_file = load_model(f"hf:{hf_folder('grouped_tied')}"), tmp_path / "out", huggingface.save_file
    save_model(model, f"hf:{out}")

    def full_disk(tensors, path, metadata):
        if path.name.startswith("model-00003"):
            raise OSError("No space left on device")
        assert not list(out.glob("*.tmp"))  # each file is whole before the next is begun
        save_file(tensors, path, metadata)

    monkeypatch.setattr(huggingface, "save_file", full_disk)
    with pytest.raises(OSError, match="No space"):
        save_model(model, f"hf:{out}")
    with refused(FileNotFoundError, out / "config.json"):
        load_model(f"hf:{out}")


@pytest.mark.parametrize("spec", ["plain", "file"])
def test_the_template_that_was_trained_with_is_exported(spec, hf_folder, tmp_path, caplog):
    """Also over what a folder held before: transformers reads chat_template.jinja first."""
    (tmp_path / "file").write_text("{% for m in messages %}{{ m.content }} </s> {% endfor %}")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/chat_template.jinja").write_text("{{ stale }}")
    model = load_model(f"hf:{hf_folder('multi_head')}", template=spec if spec == "plain" else str(tmp_path / spec))
    save_model(model, f"hf:{tmp_path}/out")
    written = json.loads((tmp_path / "out/tokenizer_config.json").read_text())
    assert written["chat_template"] == model.template.source == load_model(f"hf:{tmp_path}/out").template.source
    assert model.tokenizer.chat_template != model.template.source
    assert ("encodes each turn on its own" in caplog.text) == (spec == "plain")


def test_bfloat16_in_and_out(hf_folder, tmp_path, as_hf):
    full = weights(ARCHITECTURES["multi_head"])
    half = {name: array.astype(ml_dtypes.bfloat16) for name, array in full.items()}
    assert any((array.astype(np.float32) != full[name]).any() for name, array in half.items())
    folder = hf_folder("multi_head", tensors=half)
    equal(as_hf(load_model(f"hf:{folder}")), {name: array.astype(np.float32) for name, array in half.items()})
    model = load_model(f"hf:{folder}", param_dtype=jnp.bfloat16)
    equal(as_hf(model), half)
    save_model(model, f"hf:{tmp_path}/out")
    assert json.loads((tmp_path / "out/config.json").read_text())["torch_dtype"] == "bfloat16"
    equal(as_hf(load_model(f"hf:{tmp_path}/out", param_dtype=jnp.bfloat16)), half)


def test_float16_in(hf_folder, as_hf):
    half = {name: array.astype(np.float16) for name, array in weights(ARCHITECTURES["multi_head"]).items()}
    model = load_model(f"hf:{hf_folder('multi_head', tensors=half)}")
    equal(as_hf(model), {name: array.astype(np.float32) for name, array in half.items()})


def test_what_old_exports_carry_is_left_out(hf_folder, as_hf):
    tensors = weights(ARCHITECTURES["grouped_tied"])
    old = {
        "lm_head.weight": tensors["model.embed_tokens.weight"].copy(),
        "model.layers.1.self_attn.rotary_emb.inv_freq": np.ones(4, np.float32),
    }
    folder = hf_folder("grouped_tied", tensors=tensors | old)
    equal(as_hf(load_model(f"hf:{folder}")), tensors)


# ----------------------------------------------------------------------------------------------------------------------
# Refusals, each one line that names the file and the key
# ----------------------------------------------------------------------------------------------------------------------


def test_no_config(tmp_path, refused):
    with refused(FileNotFoundError, tmp_path / "config.json", "not found"):
        load_model(f"hf:{tmp_path}")


@pytest.mark.parametrize(("text", "reason"), [('{"vocab_size": 96,', "not JSON"), ("[1]", "found a list")])
def test_a_config_that_is_none(text, reason, hf_folder, refused):
    folder = hf_folder("multi_head")
    (folder / "config.json").write_text(text)
    with refused(ValueError, folder / "config.json", reason):
        load_model(f"hf:{folder}")


def test_a_config_without_a_key(hf_folder, refused):
    folder = hf_folder("multi_head")
    config = oracles()["configs"]["multi_head"]
    del config["intermediate_size"]
    (folder / "config.json").write_text(json.dumps(config))
    with refused(ValueError, folder, "config.json lacks 'intermediate_size'"):
        load_model(f"hf:{folder}")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model_type": "mistral"}, "model type 'mistral' is none of gpt2, llama"),
        ({"model_type": None}, "model type None is none of gpt2, llama"),
        ({"hidden_act": "gelu"}, "hidden_act='gelu' is not supported, only 'silu'"),
        ({"attention_bias": True}, "attention_bias=True is not supported"),
        ({"mlp_bias": True}, "mlp_bias=True is not supported"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}}, "rope type 'yarn'"),
        ({"rope_parameters": None, "rope_scaling": {"type": "linear", "factor": 2.0}}, "rope type 'linear'"),
        ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4, "factor": 4.0}}, "lacks 'low_freq_factor'"),
    ],
)
def test_another_architecture(changes, reason, hf_folder, refused):
    folder = hf_folder("multi_head", **changes)
    with refused(ValueError, folder, reason):
        load_model(f"hf:{folder}")


def test_no_weights(hf_folder, refused):
    folder = hf_folder("multi_head")
    (folder / "model.safetensors").unlink()
    with refused(FileNotFoundError, folder, "no *.safetensors files"):
        load_model(f"hf:{folder}")


@pytest.mark.parametrize("keep", [0, 5, 100, -1])
def test_a_cut_file(keep, hf_folder, refused):
    path = hf_folder("multi_head") / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with refused(ValueError, path, "cannot be read as safetensors"):
        load_model(f"hf:{path.parent}")


def test_a_missing_shard(hf_folder, tmp_path, refused, small_shards):
    save_model(load_model(f"hf:{hf_folder('grouped_tied')}"), f"hf:{tmp_path}/out")
    shard = sorted((tmp_path / "out").glob("*.safetensors"))[1]
    shard.unlink()
    with refused(FileNotFoundError, shard, INDEX):
        load_model(f"hf:{tmp_path}/out")


@pytest.mark.parametrize(("text", "reason"), [("{", "not JSON"), ("{}", "weight_map")])
def test_an_index_that_is_none(text, reason, hf_folder, refused):
    folder = hf_folder("multi_head")
    (folder / INDEX).write_text(text)
    with refused(ValueError, folder / INDEX, reason):
        load_model(f"hf:{folder}")


def test_a_missing_tensor(hf_folder, refused):
    tensors = weights(ARCHITECTURES["multi_head"])
    del tensors["model.layers.1.mlp.up_proj.weight"], tensors["lm_head.weight"]
    folder = hf_folder("multi_head", tensors=tensors)
    with refused(ValueError, folder, "2 tensors are missing, lm_head.weight the first"):
        load_model(f"hf:{folder}")


def test_a_layer_too_many(hf_folder, refused):
    folder = hf_folder("multi_head", num_hidden_layers=3)
    with refused(ValueError, folder, "9 tensors do not belong", "model.layers.3.input_layernorm.weight the first"):
        load_model(f"hf:{folder}")


def test_a_foreign_tensor(hf_folder, refused):
    tensors = weights(ARCHITECTURES["multi_head"])
    tensors["model.layers.0.self_attn.q_proj.bias"] = np.zeros(32, np.float32)
    folder = hf_folder("multi_head", tensors=tensors)
    with refused(ValueError, folder, "1 tensors do not belong", "model.layers.0.self_attn.q_proj.bias"):
        load_model(f"hf:{folder}")


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("model.embed_tokens.weight", (103, 32)),
        ("model.embed_tokens.weight", (32, 104)),
        ("model.layers.2.mlp.up_proj.weight", (32, 88)),
        ("model.layers.2.mlp.up_proj.weight", (88 * 32,)),
        ("model.layers.2.self_attn.o_proj.weight", (2, 2, 4, 2, 32)),
        ("model.layers.3.input_layernorm.weight", (1, 32)),
        ("model.norm.weight", (31,)),
    ],
)
def test_a_wrong_shape(name, shape, hf_folder, refused):
    """One of the right size too: transposed or flattened weights would load and mean nothing."""
    tensors = weights(ARCHITECTURES["multi_head"])
    expected = tensors[name].shape
    tensors[name] = np.zeros(shape, np.float32)
    folder = hf_folder("multi_head", tensors=tensors)
    with refused(ValueError, folder, name, f"has shape {shape} where the config asks for {expected}"):
        load_model(f"hf:{folder}")


def test_a_tokenizer_of_another_model(hf_folder, refused):
    folder = hf_folder("multi_head", ids=105)
    with refused(ValueError, folder, "105 ids", "vocabulary is 104"):
        load_model(f"hf:{folder}")
    assert load_model(f"hf:{hf_folder('grouped_tied', ids=90)}").tokenizer.vocab_size == 90


def test_no_tokenizer(hf_folder, refused):
    folder = hf_folder("multi_head")
    (folder / "tokenizer.json").unlink()
    with refused(FileNotFoundError, folder, "tokenizer.json"):
        load_model(f"hf:{folder}")


def test_a_duplicate_of_the_weights_is_no_second_model(hf_folder, refused):
    """A folder with files of two models, and no index to tell them apart."""
    folder = hf_folder("multi_head")
    save_file({"adapter.weight": np.zeros(3, np.float32)}, folder / "adapter_model.safetensors")
    with refused(ValueError, folder, "adapter.weight"):
        load_model(f"hf:{folder}")
