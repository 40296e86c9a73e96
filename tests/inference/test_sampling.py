import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imitation_jax.inference import sampling

choose = jax.jit(sampling.choose)


def draws(logits_V, count: int, temperature: float, top_p: float) -> np.ndarray:
    logits_BV = jnp.broadcast_to(jnp.array(logits_V, jnp.float32), (count, len(logits_V)))
    fill = jnp.full(count, 1.0)
    tokens, _ = choose(logits_BV, temperature * fill, top_p * fill, jnp.zeros(count, jnp.int32), jnp.arange(count))
    return np.asarray(tokens)


def test_greedy_takes_the_most_likely_token_and_its_log_probability():
    logits = jax.random.normal(jax.random.key(0), (4, 50)) * 3
    zeros = jnp.zeros(4)
    tokens, logprobs = choose(logits, zeros, zeros + 1, jnp.arange(4), jnp.arange(4))
    np.testing.assert_array_equal(tokens, jnp.argmax(logits, -1))
    np.testing.assert_allclose(logprobs, jax.nn.log_softmax(logits).max(-1), atol=1e-6)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_softmax(temperature):
    logits = np.array([2.0, 1.0, 0.0, -1.0])
    share = np.bincount(draws(logits, 20_000, temperature, 1.0), minlength=4) / 20_000
    expected = np.exp(logits / temperature) / np.exp(logits / temperature).sum()
    np.testing.assert_allclose(share, expected, atol=0.015)


@pytest.mark.parametrize("top_p", [0.1, 0.5, 0.9, 0.999])
def test_the_nucleus_is_the_smallest_set_of_likely_tokens_that_reaches_top_p(top_p):
    logits = np.random.default_rng(0).normal(0, 2, 40)
    probs = np.sort(np.exp(logits) / np.exp(logits).sum())[::-1]
    size = int(np.searchsorted(np.cumsum(probs), top_p)) + 1
    nucleus = set(np.argsort(-logits)[:size].tolist())
    found = set(draws(logits, 20_000, 1.0, top_p).tolist())
    assert found <= nucleus
    likely = {token for token in nucleus if np.exp(logits[token]) / np.exp(logits).sum() > 1e-3}
    assert likely <= found


def test_a_row_does_not_depend_on_the_rows_beside_it():
    logits = jax.random.normal(jax.random.key(1), (6, 100))
    temperature = jnp.array([0.0, 1.0, 0.7, 1.0, 0.0, 1.5])
    top_p = jnp.array([1.0, 1.0, 0.8, 0.3, 0.5, 1.0])
    seed, position = jnp.arange(6), jnp.arange(6) + 10
    together, _ = choose(logits, temperature, top_p, seed, position)
    order = jnp.array([3, 1, 5, 0, 2, 4])
    shuffled, _ = choose(*(array[order] for array in (logits, temperature, top_p, seed, position)))
    np.testing.assert_array_equal(shuffled, together[order])
    alone = [choose(*(a[i : i + 1] for a in (logits, temperature, top_p, seed, position)))[0][0] for i in range(6)]
    np.testing.assert_array_equal(alone, together)
    assert together[0] == jnp.argmax(logits[0]) and together[4] == jnp.argmax(logits[4])
