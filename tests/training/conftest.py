"""A student of two layers with weights large enough that its gradients are, packed batches, and a training config."""

import dataclasses

import jax
import numpy as np
import pytest

from imitation_jax.data.input.stream import Stream
from imitation_jax.models import decoder
from imitation_jax.models.families import llama
from imitation_jax.parallel.mesh import make_mesh
from imitation_jax.tokenizers.chat_template import load_template
from imitation_jax.tokenizers.tokenizer import load_tokenizer
from imitation_jax.training import config as training


@pytest.fixture(scope="session")
def student():
    return dataclasses.replace(llama.PRESETS["tiny"], num_hidden_layers=2)


@pytest.fixture(scope="package", autouse=True)
def quick_compilation(tmp_path_factory):
    """Compiling takes most of these tests' time: each program once, and with little effort."""
    options = {
        "jax_disable_most_optimizations": True,
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("xla")),
        "jax_persistent_cache_min_compile_time_secs": 0.2,
    }
    before = {name: jax.config.values[name] for name in options}
    for name, value in options.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.fixture(autouse=True)
def mesh_ends_with_the_test():
    """A run sets the process's mesh; the next test must not find it."""
    before = jax.sharding.get_mesh()
    yield
    jax.set_mesh(before)


@pytest.fixture(scope="session")
def one_device():
    return make_mesh("fsdp=1", jax.devices()[:1])


@pytest.fixture(scope="session")
def params(student):
    """Host arrays, normal with 0.1 where the model's own start has 0.02."""
    random = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: decoder.init(student, jax.random.key(0)))

    def draw(path, leaf):
        drawn = random.normal(1, 0.1, leaf.shape) if "norm" in str(path[-1]) else random.normal(0, 0.1, leaf.shape)
        return drawn.astype(leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)


@pytest.fixture(scope="session")
def dialogues(tmp_path_factory, write_dialogues):
    return write_dialogues(tmp_path_factory.mktemp("data") / "dialogues.jsonl", 60)


@pytest.fixture(scope="session")
def open_stream(dialogues, tiny_tokenizer, tmp_path_factory):
    """`open_stream(batch_size=8, packing=True)` reads `dialogues` in rows of 96, or of `seq_len`."""
    tokenizer = load_tokenizer(tiny_tokenizer)
    cache = tmp_path_factory.mktemp("tokens")

    def open_(batch_size: int = 8, packing: bool = True, path=dialogues, seq_len: int = 96) -> Stream:
        return Stream(
            str(path),
            tokenizer,
            load_template("model", tokenizer),
            seq_len=seq_len,
            batch_size=batch_size,
            seed=0,
            epochs=1,
            packing=packing,
            cache_dir=str(cache),
        )

    return open_


@pytest.fixture
def config(dialogues, tiny_tokenizer, tmp_path):
    """Twelve steps of the preset "tiny" from random weights, in the third of four epochs at the end."""
    config = training.get_config()
    config.model.preset = "tiny"
    config.model.tokenizer = str(tiny_tokenizer)
    config.data.path = str(dialogues)
    config.data.seq_len = 64
    config.data.cache_dir = str(tmp_path / "tokens")
    config.batch_size = 8
    config.epochs = 4
    config.steps = 12
    config.evaluate.every = 0
    config.optimizer.learning_rate = 1e-2
    return config


@pytest.fixture(scope="session")
def assert_close():
    """Equal to float32 round-off: within 1e-5 of each tensor's largest value."""

    def check(got, wanted, tolerance: float = 1e-5) -> None:
        def leaf(path, a, b):
            a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
            difference, largest = np.abs(a - b).max(), np.abs(b).max()
            where = jax.tree_util.keystr(path)
            assert difference <= tolerance * largest, f"{where}: {difference:.3g} apart, the largest is {largest:.3g}"

        jax.tree_util.tree_map_with_path(leaf, got, wanted)

    return check
