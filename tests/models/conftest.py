"""Hugging Face folders of the tiny models, one-line refusals, logits."""

import contextlib
import functools
import json
import os
import subprocess
from pathlib import Path

import jax
import numpy as np
import pytest
import tokenizers
from safetensors.numpy import save_file
from tiny_models import oracles, weights

from imitation_jax.models import decoder, huggingface
from imitation_jax.models.load import LoadedModel
from imitation_jax.parallel.mesh import make_mesh
from imitation_jax.tokenizers.tokenizer import Tokenizer

TEMPLATE = "{% for message in messages %}{{ message.role }} {{ message.content }} {{ eos_token }} {% endfor %}"


@pytest.fixture(scope="session")
def one_device():
    return make_mesh("", jax.devices()[:1])


@pytest.fixture(scope="session")
def word_tokenizer():
    """`word_tokenizer(size, template)` has `size` ids, one a word."""

    def make(size: int, template: str | None = TEMPLATE) -> Tokenizer:
        words = ["<s>", "</s>", "user", "assistant", *(f"w{number}" for number in range(4, size))]
        backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(dict(zip(words, range(size), strict=True)), "w4"))
        backend.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
        return Tokenizer(backend, {"bos_token": "<s>", "eos_token": "</s>", "chat_template": template})

    return make


@pytest.fixture
def hf_folder(tmp_path, word_tokenizer):
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
    return decoder.logits(params, decoder.hidden(config, params, tokens, positions, segments))


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
                    array = np.asarray(array)
                    # The inputs come last with them, and first here; but first in a Conv1D, which a minus marks.
                    if inputs > 0:
                        array = np.moveaxis(array, range(inputs), range(-inputs, 0))
                    rows = array.shape[: array.ndim - inputs if inputs > 0 else -inputs] if inputs else array.shape
                    found[name.format(layer)] = array.reshape((int(np.prod(rows)), -1) if inputs else rows)
        return found

    return tensors


@pytest.fixture(scope="session")
def oracle_python():
    python = os.environ.get("IMITATION_ORACLE_PYTHON")
    if not python:
        pytest.skip("IMITATION_ORACLE_PYTHON names no interpreter with torch, transformers and gguf")
    return python


@pytest.fixture(scope="session")
def transformers(oracle_python, tmp_path_factory):
    """`transformers(model path, rows of ids, ...)` is the folder that transformers_logits.py filled."""

    def run(path: Path, rows: list[list[int]], *args: int) -> Path:
        folder = tmp_path_factory.mktemp("transformers")
        (folder / "ids.json").write_text(json.dumps(rows))
        script = Path(__file__).with_name("transformers_logits.py")
        subprocess.run([oracle_python, script, path, folder / "ids.json", folder, *map(str, args)], check=True)
        return folder

    return run


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
