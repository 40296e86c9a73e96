"""How the next token is chosen. Legend: B rows, V vocabulary."""

import jax
import jax.numpy as jnp

# Halvings of the interval in which the nucleus' smallest probability lies: the last is 2**-30 of the largest one.
HALVINGS = 30


def choose(
    logits_BV: jax.Array, temperature_B: jax.Array, top_p_B: jax.Array, seed_B: jax.Array, position_B: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The next token of each row, and its log-probability.

    A row's draw depends on its own logits, seed and position alone, so neither on the batch nor on the order.

    Args:
      logits_BV: float32.
      temperature_B: 0 takes the most likely token.
      top_p_B: draws from the fewest most likely tokens whose probabilities, after the temperature, add up to this
        (nucleus sampling, Holtzman et al. 2019, arXiv 1904.09751).
      seed_B: int32, of the row's request.
      position_B: int32, of the token to choose.

    Returns:
      int32 ids, and float32 log-probabilities as the model gives them, without temperature and nucleus.
    """
    greedy_B = most_likely(logits_BV)
    # Draws cost passes over the vocabulary that a batch of greedy rows does not need.
    token_B = jax.lax.cond(
        jnp.any(temperature_B > 0),
        lambda: jnp.where(temperature_B > 0, _draw(logits_BV, temperature_B, top_p_B, seed_B, position_B), greedy_B),
        lambda: greedy_B,
    )
    return token_B, log_probability(logits_BV, token_B)


def most_likely(logits_BV: jax.Array) -> jax.Array:
    """(B,) int32, the first of a row's largest logits: argmax, in two reductions that CPUs vectorise."""
    size = logits_BV.shape[-1]
    top_B1 = jnp.max(logits_BV, axis=-1, keepdims=True)
    return jnp.min(jnp.where(logits_BV >= top_B1, jnp.arange(size, dtype=jnp.int32), size - 1), axis=-1)


def log_probability(logits_BV: jax.Array, token_B: jax.Array) -> jax.Array:
    """Log-softmax of the logits at one token a row, in their dtype."""
    chosen_B = jnp.take_along_axis(logits_BV, token_B[:, None], axis=-1)[:, 0]
    return chosen_B - jax.nn.logsumexp(logits_BV, axis=-1)


def _draw(logits_BV, temperature_B, top_p_B, seed_B, position_B):
    scaled_BV = logits_BV / jnp.where(temperature_B > 0, temperature_B, 1.0)[:, None]
    kept_BV = jax.lax.cond(jnp.any(top_p_B < 1), lambda: _nucleus(scaled_BV, top_p_B), lambda: scaled_BV)

    def draw(seed, position, logits_V):
        return jax.random.categorical(jax.random.fold_in(jax.random.key(seed), position), logits_V)

    return jax.vmap(draw)(seed_B, position_B, kept_BV).astype(jnp.int32)


def _nucleus(logits_BV, top_p_B):
    """The logits with -inf outside the nucleus, whose border is found by bisection: a sort takes several times longer.

    The largest threshold at which the probabilities that reach it add up to top_p is the nucleus' smallest one.
    """
    probs_BV = jax.nn.softmax(logits_BV, axis=-1)

    def halve(_, interval):
        low_B, high_B = interval
        middle_B = (low_B + high_B) / 2
        enough_B = jnp.sum(jnp.where(probs_BV >= middle_B[:, None], probs_BV, 0), axis=-1) >= top_p_B
        return jnp.where(enough_B, middle_B, low_B), jnp.where(enough_B, high_B, middle_B)

    top_B = jnp.max(probs_BV, axis=-1)
    low_B, _ = jax.lax.fori_loop(0, HALVINGS, halve, (jnp.zeros_like(top_B), top_B))
    border_B = jnp.where(top_p_B < 1, low_B, 0.0)
    return jnp.where(probs_BV >= border_B[:, None], logits_BV, -jnp.inf)
