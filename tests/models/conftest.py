"""Hugging Face folders of the tiny models, one-line refusals, logits."""

import contextlib
import functools
import json
from pathlib import Path

import jax
import numpy as np
import pytest
import tokenizers
from safetensors.numpy import save_file
from tiny_models import oracles, weights

from imitation_jax.models import huggingface
from imitation_jax.models.load import LoadedModel
from imitation_jax.parallel.mesh import make_mesh
from imitation_jax.tokenizers.tokenizer import Tokenizer

TEMPLATE = "{% for message in messages %}{{ message.role }} {{ message.content }} {{ eos_token }} {% endfor %}"


@pytest.fixture(scope="session")
def one_device():
    return make_mesh("", jax.devices()[:1])


def word_tokenizer(size: int, template: str | None = TEMPLATE) -> Tokenizer:
    """`size` ids, one a word."""
    words = ["<s>", "</s>", "user", "assistant", *(f"w{number}" for number in range(4, size))]
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(dict(zip(words, range(size), strict=True)), "w4"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return Tokenizer(backend, {"bos_token": "<s>", "eos_token": "</s>", "chat_template": template})


@pytest.fixture
def hf_folder(tmp_path):
    """`hf_folder("multi_head", key=value)` is that model's folder, its config.json as transformers wrote it.

    Keywords change the config.json, `tensors` replaces the weights, `ids` is the size of the tokenizer and `template`
    its chat template.
    """

    def write(
        name: str,
        tensors: dict[str, np.ndarray] | None = None,
        ids: int | None = None,
        template: str | None = TEMPLATE,
        **changes,
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        config = oracles()["configs"][name]
        save_file(tensors or weights(config), folder / "model.safetensors", metadata={"format": "pt"})
        word_tokenizer(ids or config["vocab_size"], template).save(folder)
        (folder / "config.json").write_text(json.dumps(config | changes), encoding="utf-8")
        return folder

    return write


@functools.partial(jax.jit, static_argnums=(0, 1))
def _logits(family, config, params, tokens, positions, segments):
    return family.logits(params, family.hidden(config, params, tokens, positions, segments))


@pytest.fixture(scope="session")
def logits_of():
    """`logits_of(model, [ids, ...])` is the float32 logits (B, S, V) of rows of one length."""

    def run(model: LoadedModel, rows) -> np.ndarray:
        tokens = np.asarray(rows, np.int32)
        positions = np.broadcast_to(np.arange(tokens.shape[1], dtype=np.int32), tokens.shape)
        segments = np.ones_like(tokens)
        return np.asarray(_logits(model.family, model.config, model.params, tokens, positions, segments))

    return run


@pytest.fixture(scope="session")
def as_hf():
    """`as_hf(model)` is the weights of a LoadedModel under Hugging Face's names and in its shapes."""

    def tensors(model: LoadedModel) -> dict[str, np.ndarray]:
        leaves = {"/".join(k.key for k in key): leaf for key, leaf in jax.tree_util.tree_leaves_with_path(model.params)}
        found = {}
        for path, name, inputs in model.family.HUGGINGFACE:
            if path in leaves:
                for layer, array in enumerate(np.asarray(leaves[path]) if "{}" in name else [leaves[path]]):
                    # The inputs come last with them, and first here.
                    array = np.moveaxis(np.asarray(array), range(inputs), range(-inputs, 0)) if inputs else array
                    rows = array.shape[: array.ndim - inputs] if inputs else array.shape
                    shape = (int(np.prod(rows)), -1) if inputs else rows
                    found[name.format(layer)] = np.asarray(array).reshape(shape)
        return found

    return tensors


@pytest.fixture
def refused():
    """`with refused(ValueError, "part", ...)`: the block fails with one line that holds all parts."""

    @contextlib.contextmanager
    def check(kind: type[Exception], *parts):
        with pytest.raises(kind) as caught:
            yield
        text = str(caught.value)
        assert "\n" not in text
        for part in parts:
            assert str(part) in text

    return check


@pytest.fixture
def small_shards(monkeypatch):
    """Exports split into many files."""
    monkeypatch.setattr(huggingface, "SHARD_BYTES", 20_000)
