"""What is compiled is kept, and only what changed is compiled again."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from imitation_jax.parallel.executables import compile_once, key, limit_gib, load, out_of_memory

HELD = 64 * 64 * 4 // 2


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    return Mesh(np.array(jax.devices()[:2]), ("x",))


def lowered(mesh: Mesh, factor: float = 2.0) -> jax.stages.Lowered:
    place = NamedSharding(mesh, P("x"))
    argument = jax.ShapeDtypeStruct((64, 64), jnp.float32, sharding=place)
    step = jax.jit(lambda x: jnp.sum(x @ x.T) * factor)
    return step.lower(argument)


def test_a_program_is_compiled_once(mesh, tmp_path):
    first = compile_once(lowered(mesh), mesh, HELD, tmp_path)
    assert first.fits and first.peak >= first.arguments == HELD
    assert "all-reduce" in first.module
    (facts,) = tmp_path.glob("plans/*/facts.json")
    facts.write_text(json.dumps(json.loads(facts.read_text()) | {"seconds": 1234.5}))
    again = compile_once(lowered(mesh), mesh, HELD, tmp_path)
    assert again.seconds == 1234.5 and again.module == first.module


def test_an_entry_that_a_kill_left_half_is_made_again(mesh, tmp_path):
    compile_once(lowered(mesh), mesh, HELD, tmp_path)
    (facts,) = tmp_path.glob("plans/*/facts.json")
    facts.unlink()
    (facts.parent / "module.txt.gz").write_bytes(b"half")
    assert "all-reduce" in compile_once(lowered(mesh), mesh, HELD, tmp_path).module
    assert facts.exists()


def test_another_program_mesh_or_setting_of_the_compiler_is_another_entry(mesh, monkeypatch):
    keys = [key(lowered(mesh), mesh), key(lowered(mesh, 3.0), mesh)]
    elsewhere = Mesh(np.array(jax.devices()[2:4]), ("x",))
    keys.append(key(lowered(elsewhere), elsewhere))
    monkeypatch.setenv("LIBTPU_INIT_ARGS", "--xla_tpu_enable_async_collective_fusion=false")
    keys.append(key(lowered(mesh), mesh))
    assert len(set(keys)) == len(keys)
    monkeypatch.delenv("LIBTPU_INIT_ARGS")
    assert key(lowered(mesh), mesh) == keys[0]


def test_a_saved_executable_runs_and_others_are_compiled(mesh, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("IMITATION_CACHE", str(tmp_path))
    caplog.set_level("INFO", logger="absl")
    place = NamedSharding(mesh, P("x"))
    argument = jax.ShapeDtypeStruct((8,), jnp.float32, sharding=place)
    step, other = jax.jit(lambda x: x * 2), jax.jit(lambda x: x * 3)

    def says(step, times):
        caplog.clear()
        found = load(step, (argument,), mesh)
        np.testing.assert_array_equal(found(jax.device_put(jnp.arange(8.0), place)), np.arange(8.0) * times)
        return caplog.text

    assert load(step, (argument,), mesh) is step  # nothing is saved
    program = step.lower(argument), mesh, 16
    compile_once(*program, tmp_path)
    assert load(step, (argument,), mesh) is step  # nor here
    compile_once(*program, tmp_path, save=True)
    assert "the train step is loaded from" in says(step, 2)
    assert "no executable there is of this train step; it is compiled" in says(other, 3)
    (saved,) = tmp_path.glob("plans/*/executable")
    saved.write_bytes(b"damaged")
    assert "what is saved there cannot be loaded" in says(step, 2)


@pytest.mark.parametrize(
    ("message", "needed", "limit"),
    [
        (
            "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory required for HLO "
            "temporaries (34.56G) exceeds available HBM (15.75G). HLO module: jit_train_step.\nSee https://openxla.org",
            34.56,
            15.75,
        ),
        (
            "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 512.5M "
            "of 15.75G hbm. Exceeded hbm capacity by 18.81G.\n\nTotal hbm usage >= 34.81G:",
            512.5 / 1024,
            15.75,
        ),
    ],
)
def test_what_the_compiler_says_of_a_program_that_is_too_large(message, needed, limit):
    assert [size / 2**30 for size in out_of_memory(message)] == pytest.approx([needed, limit])


def test_another_failure_of_the_compiler_is_not_taken_for_that():
    with pytest.raises(
        RuntimeError, match="the compiler failed: INTERNAL: Mosaic failed to compile TPU kernel"
    ) as caught:
        out_of_memory("INTERNAL: Mosaic failed to compile TPU kernel\nlots more")
    assert "\n" not in str(caught.value)


def test_host_devices_share_the_machine_s_memory(mesh):
    assert 0.1 < limit_gib(mesh) < 1e5
