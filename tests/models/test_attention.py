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
        positions_BS=positions,
        segments_BS=segments,
    )
    assert got.shape == q.shape
    np.testing.assert_allclose(got, by_hand(q, k, v, positions, segments), atol=2e-6, rtol=0)


def test_large_logits_stay_finite():
    q, k, v = 1e4 * draw(0, B, S, H, K), 1e4 * draw(1, B, S, N, K), draw(2, B, S, N, K)
    positions = np.broadcast_to(np.arange(S), (B, S))
    assert np.isfinite(attention(q, k, v, positions_BS=positions)).all()


def test_bfloat16_in_bfloat16_out():
    q, k, v = (jnp.asarray(draw(i, B, S, H if i == 0 else N, K), jnp.bfloat16) for i in range(3))
    positions = np.broadcast_to(np.arange(S), (B, S))
    got = attention(q, k, v, positions_BS=positions)
    assert got.dtype == jnp.bfloat16
    exact = by_hand(*(np.asarray(x, np.float32) for x in (q, k, v)), positions, np.ones((B, S)))
    np.testing.assert_allclose(np.asarray(got, np.float32), exact, atol=0.03, rtol=0)


@pytest.mark.parametrize("length", [200, 512])
def test_by_head_and_block_equals_the_plain_product(monkeypatch, length):
    """Values and gradients of what one CPU runs and of what a mesh runs, on packed rows, one block and two."""
    random = np.random.default_rng(0)
    q, k, v, cotangent = (
        jnp.asarray(random.normal(size=(2, length, heads, 16)), jnp.float32) for heads in (6, 2, 2, 6)
    )
    segments = jnp.asarray(np.sort(random.integers(0, 4, (2, length)), axis=1))
    positions = jnp.arange(length) - jnp.argmax(segments[:, :, None] == segments[:, None, :], axis=-1)

    def loss(q, k, v):
        out = module.attention(q, k, v, positions_BS=positions, segments_BS=segments)
        return jnp.sum(out * cotangent)

    results = []
    for one_cpu in (True, False):
        monkeypatch.setattr(module, "on_one_cpu", lambda one_cpu=one_cpu: one_cpu)
        results.append(jax.value_and_grad(loss, argnums=(0, 1, 2))(q, k, v))
    for ours, plain in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(ours, plain, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("one_cpu", [True, False])
def test_branches_see_their_ancestors_and_their_part_of_the_past(monkeypatch, one_cpu):
    """Against the definition, query by query, in float64: two layers of cache, two blocks of queries and of slots."""
    monkeypatch.setattr(module, "on_one_cpu", lambda: one_cpu)
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
