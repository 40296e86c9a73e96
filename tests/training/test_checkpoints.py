import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from imitation_jax.parallel.mesh import make_mesh
from imitation_jax.training.checkpoints import Checkpoints

MODEL = {"family": "llama"}


def state_on(mesh, seed=0):
    place = NamedSharding(mesh, P("fsdp", "tensor"))
    weight, moment = np.random.default_rng(seed).normal(size=(2, 256, 64)).astype(np.float32)
    return {
        "params": {"w": jax.device_put(weight, place)},
        "optimizer": {"mu": jax.device_put(moment, place), "count": jnp.int32(7)},
    }


def abstract(state, mesh):
    def leaf(x):
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, P(*("fsdp", "tensor")[: x.ndim])))

    return jax.tree.map(leaf, state)


@pytest.fixture
def folder(tmp_path):
    return epath.Path(tmp_path / "run")


def steps(folder):
    return sorted(int(path.name) for path in (folder / "checkpoints").iterdir())


def test_another_mesh_gets_the_same_state_and_the_stream_goes_on(folder, open_stream):
    mesh = make_mesh("fsdp=8")
    state, stream = state_on(mesh), open_stream(4)
    batches = stream.iterator()
    next(batches), next(batches)
    checkpoints = Checkpoints(folder, keep=2)
    checkpoints.save(2, state, MODEL, batches.get_state(), None)
    checkpoints.close()
    other = make_mesh("fsdp=2,tensor=4")
    batches = stream.iterator()
    checkpoints = Checkpoints(folder, keep=2)
    assert checkpoints.latest_step() == 2
    restored = checkpoints.restore(2, abstract(state, other), batches)
    jax.tree.map(np.testing.assert_array_equal, restored, state)
    assert restored["params"]["w"].sharding.shard_shape((256, 64)) == (128, 16)
    np.testing.assert_array_equal(next(batches)["tokens"], stream[2]["tokens"])


def test_the_newest_and_the_best_are_kept(folder):
    state = state_on(make_mesh("fsdp=8"))
    checkpoints = Checkpoints(folder, keep=2, best="validation_loss")
    for step, loss in ((1, 3.0), (2, 1.0), (3, None), (4, 2.0), (5, None), (6, 4.0)):
        checkpoints.save(step, state, MODEL, {}, None if loss is None else {"validation_loss": loss})
    checkpoints.close()
    assert steps(folder) == [2, 5, 6]
    # A restart knows which was the best; a better one takes its place.
    checkpoints = Checkpoints(folder, keep=2, best="validation_loss")
    checkpoints.save(7, state, MODEL, {}, {"validation_loss": 1.5})
    checkpoints.save(8, state, MODEL, {}, {"validation_loss": 0.5})
    checkpoints.save(9, state, MODEL, {}, None)
    checkpoints.save(10, state, MODEL, {}, None)
    checkpoints.close()
    assert steps(folder) == [8, 9, 10]


def test_without_validation_the_newest_are_kept(folder):
    state = state_on(make_mesh("fsdp=8"))
    checkpoints = Checkpoints(folder, keep=2)
    for step in range(1, 5):
        checkpoints.save(step, state, MODEL, {}, None)
    checkpoints.close()
    assert steps(folder) == [3, 4]


def saved(folder, stream):
    state = state_on(make_mesh("fsdp=8"))
    checkpoints = Checkpoints(folder, keep=2)
    checkpoints.save(1, state, MODEL, stream.iterator().get_state(), None)
    checkpoints.close()
    return abstract(state, make_mesh("fsdp=8"))


def test_what_a_kill_left_of_a_checkpoint_is_no_checkpoint(folder, open_stream):
    stream = open_stream(4)
    wanted = saved(folder, stream)
    half = folder / "checkpoints" / "2.orbax-checkpoint-tmp"
    (half / "params").mkdir(parents=True)
    (half / "params" / "_METADATA").write_text("{")
    checkpoints = Checkpoints(folder, keep=2)
    assert checkpoints.latest_step() == 1
    checkpoints.restore(1, wanted, stream.iterator())


@pytest.mark.parametrize("item", ["params", "optimizer"])
def test_a_missing_shard_names_the_checkpoint(folder, open_stream, item):
    stream = open_stream(4)
    wanted = saved(folder, stream)
    shards = [path for path in Path(folder / "checkpoints" / "1" / item).rglob("*") if path.parent.name == "d"]
    max(shards, key=lambda path: path.stat().st_size).unlink()
    with pytest.raises(
        ValueError, match=r"run/checkpoints/1: optimizer, params, stream cannot be restored, .* remove that folder"
    ) as error:
        Checkpoints(folder, keep=2).restore(1, wanted, stream.iterator())
    assert "\n" not in str(error.value)


def test_another_dataset_is_refused(folder, open_stream, write_dialogues, tmp_path):
    wanted = saved(folder, open_stream(4))
    other = open_stream(4, path=write_dialogues(tmp_path / "other.jsonl", 60, seed=5))
    with pytest.raises(ValueError, match="the data is not what the checkpoint was trained on"):
        Checkpoints(folder, keep=2).restore(1, wanted, other.iterator())


def test_the_model_s_json_is_readable_without_the_rest(folder, open_stream):
    saved(folder, open_stream(4))
    (metadata,) = (folder / "checkpoints" / "1" / "model").glob("metadata*")
    assert json.loads(metadata.read_text()) == MODEL
