"""The numerical law: float32 logits are no further from a float64 forward pass than transformers' float32 ones are."""

import json

import numpy as np
import pytest
from float64_forward import FACTOR, errors, logits
from tiny_models import LOGITS, oracles, tokens, weights

from imitation_jax.models.load import load_model


@pytest.mark.parametrize("name", oracles()["configs"])
def test_a_tiny_model_of_each_architecture(name, hf_folder, logits_of, one_device):
    folder = hf_folder(name)
    config = json.loads((folder / "config.json").read_text())
    ids = tokens(config)[0].tolist()
    exact = logits(config, {key: lambda tensor=tensor: tensor for key, tensor in weights(config).items()}, ids)
    ours = errors(logits_of(load_model(f"hf:{folder}", one_device), [ids])[0], exact)
    with np.load(LOGITS) as arrays:
        theirs = errors(arrays[name], exact)
    assert ours[0] <= FACTOR * theirs[0] and ours[1] <= FACTOR * theirs[1]
