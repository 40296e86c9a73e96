import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imitation_jax.models import attention as module

attention = jax.jit(module.attention)
B, S, H, N, K = 2, 7, 6, 2, 4


def draw(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def by_hand(q, k, v, positions, segments):
    """Query by query and head by head, in float64, straight from the definition."""
    out = np.zeros(q.shape)
    for b, s, h in np.ndindex(q.shape[:3]):
        sees = (segments[b] == segments[b, s]) & (positions[b] <= positions[b, s])
        keys = k[b, :, h * k.shape[2] // q.shape[2]].astype(np.float64)
        values = v[b, :, h * k.shape[2] // q.shape[2]].astype(np.float64)
        scores = np.exp(keys @ q[b, s, h] / np.sqrt(q.shape[3])) * sees
        out[b, s, h] = scores @ values / scores.sum()
    return out


@pytest.mark.parametrize("heads", [(6, 2), (6, 1), (4, 4)])
def test_the_definition(heads):
    H, N = heads
    q, k, v = draw(0, B, S, H, K), draw(1, B, S, N, K), draw(2, B, S, N, K)
    segments = np.array([[1, 1, 1, 2, 2, 2, 0], [1, 2, 2, 2, 2, 2, 2]])
    positions = np.array([[0, 1, 2, 0, 1, 2, 0], [0, 0, 1, 2, 3, 4, 5]])
    got = attention(
        q,
        k,
        v,
        q_positions_BS=positions,
        k_positions_BT=positions,
        q_segments_BS=segments,
        k_segments_BT=segments,
    )
    assert got.shape == q.shape
    np.testing.assert_allclose(got, by_hand(q, k, v, positions, segments), atol=2e-6, rtol=0)


def test_large_logits_stay_finite():
    q, k, v = 1e4 * draw(0, B, S, H, K), 1e4 * draw(1, B, S, N, K), draw(2, B, S, N, K)
    positions = np.broadcast_to(np.arange(S), (B, S))
    assert np.isfinite(attention(q, k, v, q_positions_BS=positions, k_positions_BT=positions)).all()


def test_bfloat16_in_bfloat16_out():
    q, k, v = (jnp.asarray(draw(i, B, S, H if i == 0 else N, K), jnp.bfloat16) for i in range(3))
    positions = np.broadcast_to(np.arange(S), (B, S))
    got = attention(q, k, v, q_positions_BS=positions, k_positions_BT=positions)
    assert got.dtype == jnp.bfloat16
    exact = by_hand(*(np.asarray(x, np.float32) for x in (q, k, v)), positions, np.ones((B, S)))
    np.testing.assert_allclose(np.asarray(got, np.float32), exact, atol=0.03, rtol=0)
