import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imitation_jax.models import attention as module
from imitation_jax.models import kernels

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
    got = attention(q, k, v, positions_BS=positions, segments_BS=segments)
    assert got.shape == q.shape
    np.testing.assert_allclose(got, by_hand(q, k, v, positions, segments), atol=2e-6, rtol=0)


def test_large_logits_stay_finite():
    q, k, v = 1e4 * draw(0, B, S, H, K), 1e4 * draw(1, B, S, N, K), draw(2, B, S, N, K)
    positions = np.broadcast_to(np.arange(S), (B, S))
    assert np.isfinite(attention(q, k, v, positions_BS=positions, segments_BS=np.ones((B, S)))).all()


def test_bfloat16_in_bfloat16_out():
    q, k, v = (jnp.asarray(draw(i, B, S, H if i == 0 else N, K), jnp.bfloat16) for i in range(3))
    positions = np.broadcast_to(np.arange(S), (B, S))
    got = attention(q, k, v, positions_BS=positions, segments_BS=np.ones((B, S)))
    assert got.dtype == jnp.bfloat16
    exact = by_hand(*(np.asarray(x, np.float32) for x in (q, k, v)), positions, np.ones((B, S)))
    np.testing.assert_allclose(np.asarray(got, np.float32), exact, atol=0.03, rtol=0)


@pytest.mark.parametrize("kernel", ["cpu", "xla"])
def test_branches_see_their_ancestors_and_their_part_of_the_past(monkeypatch, kernel):
    """Against the definition, query by query, in float64: two layers of cache, two blocks of queries and of slots."""
    monkeypatch.setitem(kernels.PLATFORMS, "cpu", kernel)
    L, B, S, T = 2, 2, 512, 512
    random = np.random.default_rng(1)
    q, k, v = draw(0, B, S, H, K), draw(1, B, S, N, K), draw(2, B, S, N, K)
    past = {"k": draw(3, L, 1, N, T, K), "v": draw(4, L, 1, N, T, K)}
    ends = np.minimum(np.arange(S) + random.integers(1, 300, (B, S)), S).astype(np.int32)
    seen = random.integers(0, 300, (B, S)).astype(np.int32)
    run = jax.jit(module.branch_attention)
    got = run(q, k, v, ends_BS=ends, seen_BS=seen, past=past, layer=jnp.int32(1))
    exact = np.zeros(got.shape)
    for b, h in np.ndindex(B, H):
        n = h * N // H
        keys = np.concatenate([past["k"][1, 0, n], k[b, :, n]]).astype(np.float64)
        values = np.concatenate([past["v"][1, 0, n], v[b, :, n]]).astype(np.float64)
        own = (np.arange(S) <= np.arange(S)[:, None]) & (np.arange(S)[:, None] < ends[b])
        sees = np.concatenate([np.arange(T) < seen[b, :, None], own], axis=1)
        weights = np.exp(q[b, :, h] @ keys.T / np.sqrt(K)) * sees
        exact[b, :, h] = weights @ values / weights.sum(-1, keepdims=True)
    np.testing.assert_allclose(got, exact, atol=5e-6, rtol=0)


@pytest.mark.parametrize("S", [1, 5])
def test_the_next_tokens_see_the_slots_before_them_and_each_other(S):
    L, B, T = 2, 3, 512
    q, k, v = draw(0, B, S, H, K), draw(1, B, S, N, K), draw(2, B, S, N, K)
    past = {"k": draw(3, L, B, N, T, K), "v": draw(4, L, B, N, T, K)}
    position = np.array([0, 3, 400], np.int32)
    got = jax.jit(module.next_attention)(q, k, v, position_B=position, past=past, layer=jnp.int32(1))
    for b, s, h in np.ndindex(B, S, H):
        n = h * N // H
        keys = np.concatenate([past["k"][1, b, n, : position[b]], k[b, : s + 1, n]]).astype(np.float64)
        values = np.concatenate([past["v"][1, b, n, : position[b]], v[b, : s + 1, n]])
        weights = np.exp(keys @ q[b, s, h] / np.sqrt(K))
        np.testing.assert_allclose(got[b, s, h], weights @ values / weights.sum(), atol=2e-6, rtol=0)
