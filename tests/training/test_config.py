import json

import jax
import pytest
from etils import epath

from imitation_jax.data.input.mixture import Source
from imitation_jax.parallel.mesh import make_mesh
from imitation_jax.training import config as training
from imitation_jax.training.config import check, claim, compare
from imitation_jax.training.samples import make_sampler


@pytest.fixture
def mesh():
    return make_mesh("fsdp=4,tensor=2")


def test_defaults_pass_with_a_dataset(mesh, config):
    check(config, mesh)
    check(training.paper(config), mesh)


def test_the_paper_s_training():
    config = training.paper(training.get_config())
    assert (config.batch_size, config.data.seq_len, config.epochs, config.model.template) == (32, 2048, 1, "plain")
    optimizer = config.optimizer
    assert (optimizer.name, optimizer.learning_rate, optimizer.schedule) == ("weight_magnitude", 2e-3, "constant")
    assert (optimizer.warmup_steps, optimizer.schedule, optimizer.clip_norm) == (1000, "constant", 1.0)
    assert (optimizer.b1, optimizer.decay_exponent, optimizer.min_rms) == (0.9, 0.95, 1e-3)


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("data.path", "", "data.path is empty; give --config.data.path"),
        ("batch_size", 6, "batch_size=6 is not a multiple of accumulation=1 x 4 .mesh data x fsdp.; .* multiple of 4"),
        ("batch_size", 0, "batch_size=0 must be 1 or more"),
        ("accumulation", 0, "accumulation=0 must be 1 or more"),
        ("accumulation", 3, "batch_size=8 is not a multiple of accumulation=3 x 4"),
        ("checkpoint.every", 0, "checkpoint.every=0 must be 1 or more"),
        ("checkpoint.keep", 0, "checkpoint.keep=0 must be 1 or more"),
        ("data.token_budget", -1, "data.token_budget=-1 must be 0 .all. or more"),
        ("data.seq_len", 0, "data.seq_len=0 must be 1 or more"),
        ("steps", -1, "steps=-1 must be 0 or more"),
        ("remat", "half", "remat='half' is none of full, offload, dots, none"),
        ("dtype", "float16", "dtype='float16' is none of auto, float32, bfloat16"),
        ("optimizer.schedule", "step", "optimizer.schedule='step' is none of"),
        ("optimizer.name", "sgd", "optimizer.name='sgd' is none of"),
        ("optimizer.state_dtype", "float16", "optimizer.state_dtype='float16' is none of float32, bfloat16"),
        ("optimizer.clip_norm", 0.0, "optimizer.clip_norm=0.0 must be more than 0"),
        ("optimizer.learning_rate", -1.0, "optimizer.learning_rate=-1.0 must be more than 0"),
        ("optimizer.b2", 1.5, "optimizer.b2=1.5 must lie between 0 and 1"),
        ("evaluate.max_new_tokens", 0, "evaluate.max_new_tokens=0 must be 1 or more"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_read(mesh, config, key, value, message):
    config.data.path = config.data.path and "/nowhere"
    config.update_from_flattened_dict({key: value})
    with pytest.raises(ValueError, match=message):
        check(config, mesh)


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("data.path", "/nowhere", "data.path=/nowhere and data.mixture are both given; choose one"),
        ("data.token_budget", 5, "data.token_budget is for data.path; give each dataset of data.mixture its own"),
        ("data.mixture.web.path", "", "data.mixture.web.path is empty; give --config.data.mixture.web.path="),
        ("data.mixture.web.share", 1.0, "data.mixture.web.share=1.0 must be 0"),
        ("data.mixture.chat.epochs", 0, "data.mixture.chat.epochs=0 must be 1 or more"),
        ("data.mixture.chat.share", 0.5, "data.mixture.chat, data.mixture.web: every dataset has a share"),
    ],
)
def test_a_mixture_is_checked_before_anything_is_read(mesh, config, key, value, message):
    config.data.path = ""
    config.data.mixture.chat = training.source("/nowhere")
    config.data.mixture.web = training.source("/nowhere", share=0.25)
    check(config, mesh)
    config.update_from_flattened_dict({key: value})
    with pytest.raises(ValueError, match=message):
        check(config, mesh)


def test_a_dataset_of_a_mixture_may_leave_keys_out_but_not_invent_them():
    config = training.get_config()
    config.data.mixture.chat = {"path": "here", "token_budget": 300_000}
    assert training.sources(config) == {"data.mixture.chat": Source("here", token_budget=300_000)}
    config.data.mixture.chat.weight = 0.5
    with pytest.raises(ValueError, match="data.mixture.chat has no key 'weight', only epochs, path, share, token_bud"):
        training.sources(config)


@pytest.mark.parametrize(
    "given, message",
    [
        ("here", "data.mixture.chat='here' is no dataset; write data.mixture.chat = source"),
        ({"share": 0.5}, "data.mixture.chat has no path; write data.mixture.chat = source"),
        (training.source("here", share="0.5"), "data.mixture.chat.share='0.5' must be a number"),
        (training.source("here", epochs=1.5), "data.mixture.chat.epochs=1.5 must be a whole number"),
        (training.source("here", token_budget=3e5), "data.mixture.chat.token_budget=300000.0 must be a whole number"),
    ],
)
def test_a_dataset_of_another_kind_is_one_clear_line(given, message):
    config = training.get_config()
    config.data.mixture.chat = given
    with pytest.raises(ValueError, match=message):
        training.sources(config)
    with pytest.raises(ValueError, match=message):  # which looks at the data before training does
        make_sampler(config, None)


def test_a_mixture_s_keys_belong_to_the_run(tmp_path, config):
    config.data.path = ""
    config.data.mixture.chat = training.source("here")
    claim(epath.Path(tmp_path), config)
    config.data.mixture.chat.token_budget = 300_000
    with pytest.raises(ValueError, match="data.mixture.chat.token_budget .0 there, 300000 now.; use a new --workdir"):
        compare(epath.Path(tmp_path), config)


def test_a_sequence_axis_that_does_not_divide_the_rows(config):
    config.data.seq_len = 66
    with pytest.raises(ValueError, match="data.seq_len=66 is not a multiple of 4 .mesh sequence."):
        check(config, make_mesh("fsdp=2,sequence=4", jax.devices()))


def test_a_workdir_of_another_config_names_the_keys(tmp_path, config):
    folder = epath.Path(tmp_path / "run")
    compare(folder, config)
    claim(folder, config)
    assert json.loads((folder / "config.json").read_text())["optimizer"]["learning_rate"] == 1e-2
    compare(folder, config)
    config.mesh, config.data.workers, config.data.cache_dir = "fsdp=2,tensor=4", 3, "/elsewhere"
    config.log_every, config.checkpoint.every, config.evaluate.samples, config.plan.topology = 3, 7, 0, "v5e:8x8"
    compare(folder, config)  # where it computes, and what is looked at, may change
    config.optimizer.learning_rate, config.batch_size = 0.5, 16
    with pytest.raises(ValueError) as error:
        compare(folder, config)
    text = str(error.value)
    assert "batch_size (8 there, 16 now), optimizer.learning_rate (0.01 there, 0.5 now); use a new --workdir" in text
    assert "mesh" not in text and "workers" not in text and "cache_dir" not in text


def test_what_auto_became_is_recorded_and_belongs_to_the_run(tmp_path, config):
    claim(epath.Path(tmp_path), config)
    path = tmp_path / "config.json"
    recorded = json.loads(path.read_text())
    assert config.dtype == "auto" and recorded["dtype"] == "float32"  # on a CPU
    compare(epath.Path(tmp_path), config)
    path.write_text(json.dumps(recorded | {"dtype": "bfloat16"}))  # as a run on a TPU
    with pytest.raises(ValueError, match="dtype .'bfloat16' there, 'float32' now.; use a new --workdir"):
        compare(epath.Path(tmp_path), config)
    path.write_text(json.dumps(recorded | {"dtype": "auto"}))  # as runs were recorded before
    compare(epath.Path(tmp_path), config)


def test_a_run_from_before_a_key_goes_on_with_its_default(tmp_path, config):
    claim(epath.Path(tmp_path), config)
    recorded = json.loads((tmp_path / "config.json").read_text())
    del recorded["data"]["mixture"], recorded["data"]["packing"], recorded["max_skipped"]
    (tmp_path / "config.json").write_text(json.dumps(recorded))
    compare(epath.Path(tmp_path), config)
    config.data.packing = False
    with pytest.raises(ValueError, match="data.packing .True there, False now.; use a new --workdir"):
        compare(epath.Path(tmp_path), config)


def test_a_workdir_that_is_a_file(tmp_path, config):
    (tmp_path / "run").write_text("")
    with pytest.raises(NotADirectoryError, match="is a file; name a folder"):
        compare(epath.Path(tmp_path / "run"), config)
