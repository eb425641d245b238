"""Temporal-difference learning, one equation a function. All take and return a leading batch axis [B]."""

import jax
import jax.numpy as jnp
import optax


def max_bootstrap(target: jax.Array, online: jax.Array) -> jax.Array:
    """max_a Q(s', a; θ⁻), the value that Q-learning bootstraps from (Mnih et al. 2015, eq. 2).

    Args:
      target: [B, A] the target network's values of s'.
      online: [B, A] the online network's, unused here.
    """
    del online
    return jnp.max(target, axis=-1)


def double_bootstrap(target: jax.Array, online: jax.Array) -> jax.Array:
    """Q(s', argmax_a Q(s', a; θ); θ⁻): the online network chooses, the target judges (1509.06461, eq. 4)."""
    return jnp.take_along_axis(target, jnp.argmax(online, axis=-1)[:, None], axis=-1)[:, 0]


def target(reward: jax.Array, discount: jax.Array, bootstrap: jax.Array) -> jax.Array:
    """R + d·v: `reward` the discounted n-step sum, `discount` γ^k for the steps really taken, 0 at a terminal."""
    return jax.lax.stop_gradient(reward + discount * bootstrap)


def chosen(values: jax.Array, action: jax.Array) -> jax.Array:
    """Q(s, a) for the actions taken: [B, A], [B] -> [B]."""
    return jnp.take_along_axis(values, action[:, None], axis=-1)[:, 0]


def huber(error: jax.Array) -> jax.Array:
    """½δ² within ±1 and |δ| - ½ beyond: its gradient is Nature's clipped TD error. [B] -> [B]."""
    return optax.losses.huber_loss(error, delta=1.0)


def squared(error: jax.Array) -> jax.Array:
    """½δ². [B] -> [B]."""
    return 0.5 * jnp.square(error)
