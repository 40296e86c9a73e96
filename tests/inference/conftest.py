"""A small student with random weights, large enough that its next tokens differ clearly, and a byte tokenizer."""

import jax
import numpy as np
import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from imitation_jax.inference.engine import Engine
from imitation_jax.models import decoder
from imitation_jax.models.families import llama
from imitation_jax.models.load import LoadedModel
from imitation_jax.parallel.mesh import make_mesh
from imitation_jax.tokenizers.chat_template import load_template
from imitation_jax.tokenizers.tokenizer import Tokenizer

CONFIG = llama.LlamaConfig(300, 64, 172, 3, 8, 4, 8, 128)


@pytest.fixture(scope="session")
def byte_tokenizer():
    """`byte_tokenizer(bos_token="<s>")`: one token a byte, so that every string is spread over several tokens."""

    def make(**named: str) -> Tokenizer:
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        backend = tokenizers.Tokenizer(models.BPE({char: i for i, char in enumerate(alphabet)}, []))
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        return Tokenizer(backend, named)

    return make


@pytest.fixture(scope="session")
def make_model(byte_tokenizer):
    """`make_model(seed)` is a LoadedModel of `CONFIG`."""

    def make(seed: int) -> LoadedModel:
        rng = np.random.default_rng(seed)
        shapes = jax.eval_shape(lambda: decoder.init(CONFIG, jax.random.key(0)))

        def draw(path, leaf):
            drawn = np.ones(leaf.shape) if "norm" in str(path[-1]) else rng.normal(0, 0.2, leaf.shape)
            return jax.numpy.asarray(drawn, leaf.dtype)

        params = jax.tree_util.tree_map_with_path(draw, shapes)
        tokenizer = byte_tokenizer(bos_token="<s>", eos_token="</s>")
        return LoadedModel(llama, CONFIG, params, tokenizer, load_template("plain", tokenizer))

    return make


@pytest.fixture(scope="session")
def model(make_model) -> LoadedModel:
    return make_model(0)


@pytest.fixture(scope="session")
def one_device():
    return make_mesh(devices=jax.devices()[:1])


@pytest.fixture(scope="session")
def engine(model, one_device) -> Engine:
    return Engine(model, one_device, batch_size=8)
