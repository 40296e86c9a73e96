import math

import jax
import pytest

from imitation_jax.models import decoder
from imitation_jax.models.families import gpt2, llama
from imitation_jax.training.flops import peak_flops, training_flops_per_token


@pytest.mark.parametrize(("family", "name"), [(family, name) for family in (llama, gpt2) for name in family.PRESETS])
def test_six_a_matrix_weight_and_attention(family, name):
    """Counted from the parameter tree: every matrix once, an untied input embedding not, a tied one as the output's."""
    config = family.PRESETS[name]
    shapes = jax.eval_shape(lambda: decoder.init(config, jax.random.key(0)))
    sizes = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(shapes)}
    other = ("norm", "bias", "positions")
    weights = sum(math.prod(leaf.shape) for path, leaf in sizes.items() if not any(part in path for part in other))
    if "unembed" in shapes:
        weights -= config.vocab_size * config.hidden_size
    assert training_flops_per_token(config, 0) == 6 * weights
    # Each layer's scores and weighted sum: 2 products of 2 FLOPs with K x H each a key, three times with the backward.
    attention = training_flops_per_token(config, 100) - 6 * weights
    heads = config.num_attention_heads * config.head_dim
    assert attention == pytest.approx(3 * 2 * 2 * config.num_hidden_layers * 100 * heads)


def test_llama_7b_is_the_known_figure():
    """6.74B parameters without the input embedding's 131M: 6 x 6.607e9 a position."""
    assert training_flops_per_token(llama.PRESETS["llama_7b"], 0) == pytest.approx(6 * 6.607e9, rel=1e-3)


def test_peaks():
    assert peak_flops("TPU v5 lite") == 197e12 and peak_flops("TPU v5p") == 459e12 and peak_flops("TPU v4") == 275e12
    assert peak_flops("NVIDIA H100 80GB HBM3") == 989e12
    cpu = peak_flops("cpu")
    assert 1e8 < cpu < 1e14 and peak_flops("cpu") == cpu  # measured once
