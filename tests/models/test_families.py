"""A family is a file of its own: a toy one is found, made, saved, loaded, trained, scored and decoded."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imitation_jax.inference.engine import Engine
from imitation_jax.inference.requests import GenerateRequest, ScoreRequest
from imitation_jax.models import decoder, families
from imitation_jax.models.load import load_model, save_model
from imitation_jax.models.loaded_model import LoadedModel
from imitation_jax.tokenizers.chat_template import load_template
from imitation_jax.training.step import loss_sums

TOY = """
import dataclasses
from typing import ClassVar

import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P

from imitation_jax.models.decoder import linear, look_up, normal, scan, stack


@dataclasses.dataclass(frozen=True)
class ToyConfig:
    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: ClassVar[int] = 1
    num_key_value_heads: ClassVar[int] = 1
    max_position_embeddings: ClassVar[int] = 64
    learned_positions: ClassVar[bool] = False

    @property
    def head_dim(self):
        return self.hidden_size

    @property
    def matrix_weights(self):
        return self.num_hidden_layers * self.hidden_size**2 + self.vocab_size * self.hidden_size

    def build(self, rngs):
        return Toy(self, rngs)


class Layer(nnx.Module):
    def __init__(self, config, rngs):
        self.o = normal(rngs, (config.hidden_size, config.hidden_size), 0.3)

    def __call__(self, x_BSD, attend, layer):
        x_BS1D = x_BSD[:, :, None]
        out_BSD = attend(x_BS1D, x_BS1D, x_BS1D, layer)[:, :, 0]
        new = x_BS1D.swapaxes(1, 2)
        return x_BSD + linear(out_BSD, self.o[...]), {"k": new, "v": new}


class Toy(nnx.Module):
    def __init__(self, config, rngs):
        self.config = config
        self.embed = normal(rngs, (config.vocab_size, config.hidden_size), 1.0)
        self.layers = stack(lambda rngs: Layer(config, rngs), config.num_hidden_layers, rngs)

    def __call__(self, tokens_BS, positions_BS, attend, *, dtype, remat=None):
        x_BSD = look_up(self.embed, tokens_BS, dtype)
        return scan(self.layers, self.config.num_hidden_layers, x_BSD, attend, remat=remat)


SHARDING = (("embed", P("tensor", "fsdp")), ("layers/o", P(None, "fsdp", "tensor")))
HUGGINGFACE = (("embed", "toy.embed", 0), ("layers/o", "toy.{}.o", 1))
PRESETS = {"toy_2": ToyConfig(64, 8, 2)}


def config_from_hf(hf):
    return ToyConfig(hf["vocab_size"], hf["hidden_size"], hf["num_hidden_layers"])


def config_to_hf(config):
    return {"model_type": "toy", **dataclasses.asdict(config)}
"""


@pytest.fixture
def toy(tmp_path, monkeypatch):
    (tmp_path / "families").mkdir()
    (tmp_path / "families" / "toy.py").write_text(TOY)
    monkeypatch.setattr(families, "__path__", [*families.__path__, str(tmp_path / "families")])
    yield families.preset("toy_2")
    del sys.modules["imitation_jax.models.families.toy"]


def test_a_toy_family(toy, tmp_path, word_tokenizer, one_device, logits_of):
    family, config = toy
    tokenizer = word_tokenizer(64)
    params = decoder.init(config, jax.random.key(0))
    model = LoadedModel(family, config, params, tokenizer, load_template("model", tokenizer))
    rows = np.random.default_rng(0).integers(0, 64, (2, 8))
    for where in (f"hf:{tmp_path}/hf", f"orbax:{tmp_path}/orbax"):
        save_model(model, where)
        again = load_model(where, one_device)
        assert again.family is family and again.config == config
        np.testing.assert_array_equal(logits_of(again, rows), logits_of(model, rows))
    assert json.loads((tmp_path / "hf" / "config.json").read_text())["model_type"] == "toy"
    engine = Engine(again, one_device)
    [score] = engine.score([ScoreRequest([5, 6, 7], [8])])
    expected = jax.nn.log_softmax(logits_of(model, [[5, 6, 7]])[0, -1])[8]
    assert score.logprob == pytest.approx(float(expected), abs=1e-5)
    [text] = engine.generate([GenerateRequest([5, 6, 7], 3, stop_ids=frozenset())])
    assert text.ids[0] == logits_of(model, [[5, 6, 7]])[0, -1].argmax()
    batch = {"tokens": rows, "targets": np.roll(rows, -1, 1), "loss_mask": np.ones(rows.shape, np.float32)}
    batch |= {"positions": np.tile(np.arange(8), (2, 1)), "segment_ids": np.ones_like(rows)}
    batch = jax.tree.map(jnp.asarray, batch)
    gradients = jax.grad(lambda params: loss_sums(config, params, batch, dtype=jnp.float32, remat="full", chunk=8)[0])(
        params
    )
    assert all(jnp.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradients))


def test_a_model_type_that_there_is_not_is_one_line(refused):
    with refused(ValueError, "model type 'mamba' is none of gpt2, llama"):
        families.find("mamba")
    with refused(ValueError, "model.preset='llama_8b' is none of", "gpt2_124m", "llama_7b"):
        families.preset("llama_8b")
