"""Each equation against values worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np

from agents import td

TARGET = jnp.array([[1.0, 5.0, 2.0], [0.0, -1.0, -2.0]])
ONLINE = jnp.array([[9.0, 0.0, 1.0], [-3.0, -2.0, 4.0]])


def test_max_bootstrap_takes_the_targets_largest():
    np.testing.assert_allclose(td.max_bootstrap(TARGET, ONLINE), [5.0, 0.0])


def test_double_bootstrap_lets_the_online_network_choose_and_the_target_judge():
    np.testing.assert_allclose(td.double_bootstrap(TARGET, ONLINE), [1.0, -2.0])


def test_target_is_reward_plus_discounted_bootstrap():
    reward, discount = jnp.array([1.0, -0.5]), jnp.array([0.99**3, 0.0])
    np.testing.assert_allclose(td.target(reward, discount, jnp.array([5.0, 7.0])), [1 + 0.970299 * 5, -0.5], rtol=1e-6)


def test_nothing_flows_through_the_target():
    gradient = jax.grad(lambda v: td.target(jnp.zeros(2), jnp.ones(2), v).sum())(jnp.ones(2))
    np.testing.assert_array_equal(gradient, [0.0, 0.0])


def test_chosen_picks_by_action():
    np.testing.assert_allclose(td.chosen(TARGET, jnp.array([2, 1])), [2.0, -1.0])


def test_losses_and_their_gradients():
    error = jnp.array([-3.0, -0.5, 0.0, 0.5, 3.0])
    np.testing.assert_allclose(td.huber(error), [2.5, 0.125, 0.0, 0.125, 2.5])
    np.testing.assert_allclose(td.squared(error), [4.5, 0.125, 0.0, 0.125, 4.5])
    slope = jax.vmap(jax.grad(lambda e: td.huber(e[None])[0]))(error)
    np.testing.assert_allclose(slope, [-1.0, -0.5, 0.0, 0.5, 1.0])  # Nature's clipped TD error
