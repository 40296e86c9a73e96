"""Targets that cannot be planned: one line each, before anything is compiled."""

import runpy
from pathlib import Path

import pytest

from imitation_jax.evaluation.config import of_model
from imitation_jax.planning import programs
from imitation_jax.planning.run_length import run_length
from imitation_jax.planning.target import make_target

ROOT = Path(__file__).resolve().parents[2]


def load(name: str, **keys):
    config = runpy.run_path(str(ROOT / "configs" / f"{name}.py"))["get_config"]()
    for key, value in keys.items():
        place = config
        *folders, last = key.split("__")
        for folder in folders:
            place = place[folder]
        place[last] = value
    return config


@pytest.mark.parametrize(
    ("config", "topology", "message"),
    [
        ({"plan__topology": ""}, "", "--topology is required where the config has no plan.topology"),
        ({}, "v9:2x2", "topology 'v9:2x2': unknown kind 'v9'"),
        ({"mesh": "fsdp=3"}, "cpu:4", "mesh 'fsdp=3' does not divide the 4 devices"),
        ({"batch_size": 6}, "cpu:4", "batch_size=6 is not a multiple of accumulation=1 x 4"),
        ({"accumulation": 3}, "cpu:4", "batch_size=32 is not a multiple of accumulation=3 x 4"),
        ({"model__preset": "gpt2_124m"}, "cpu:4", "data.seq_len=2048: the model has learned 1024 positions"),
        ({"model__preset": "llama_8b"}, "cpu:4", "model.preset='llama_8b' is none of gpt2_124m"),
        ({"remat": "some"}, "cpu:4", "remat='some' is none of full"),
    ],
)
def test_a_mistake_is_one_line(config, topology, message):
    with pytest.raises(ValueError) as caught:
        make_target(load("smollm2_135m", **config), topology)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_mesh_that_divides_no_parameter_is_one_line():
    target = make_target(load("smollm2_135m", mesh="tensor=4,fsdp=1"), "cpu:4")
    with pytest.raises(ValueError, match="does not divide parameter 'layers/.*'.* choose a smaller tensor"):
        target.lower("train", 10, 16.0)


@pytest.mark.parametrize(
    ("keys", "steps", "source"),
    [
        ({}, round(150e6 / (32 * 2048)), "the paper's 150M tokens"),
        ({"epochs": 3}, round(450e6 / (32 * 2048)), "the paper's 150M tokens, 3 times"),
        ({"steps": 7}, 7, "config.steps"),
    ],
)
def test_how_long_a_run_is_where_no_data_are_named(keys, steps, source, tmp_path):
    assert run_length(load("smollm2_135m", **keys), tmp_path) == (steps, source)


def test_evaluate_is_planned_with_its_defaults():
    defaults = of_model("mmlu")
    assert (defaults.batch_size, defaults.compute_dtype) == (programs.EVALUATE_BATCH, programs.EVALUATE_DTYPE)
