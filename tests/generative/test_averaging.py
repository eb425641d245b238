"""Averages of weights against their formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from core import types
from generative import averaging, descent


@pytest.mark.parametrize("std, gamma", [(0.05, 16.972), (0.10, 6.937)])
def test_the_power_functions_exponent(std, gamma):
    """Pitfall 13."""
    assert averaging.Power(std=std).gamma == pytest.approx(gamma, abs=5e-4)


@pytest.mark.parametrize("std", [0.05, 0.1, 0.2])
def test_the_power_functions_profile_has_the_width_it_says(std):
    """The weights that an average gives to each update, as a distribution over time: relative deviation `std`."""
    updates, average = 4000, averaging.Power(std=std)
    seen = 32 * jnp.arange(1, updates + 1, dtype=jnp.float32)
    decay = np.asarray(jax.vmap(lambda images: average.decay(images, 32))(seen), np.float64)
    weight = (1 - decay) * np.append(np.cumprod(decay[::-1])[-2::-1], 1)
    time = np.arange(1, updates + 1) / updates
    assert weight.sum() == pytest.approx(1, abs=1e-4)
    mean = weight @ time / weight.sum()
    assert np.sqrt(weight @ (time - mean) ** 2) == pytest.approx(std, rel=0.01)


def test_the_power_function_stays_exact_after_a_billion_images():
    kept = averaging.Power(std=0.05).decay(jnp.float32(1e9), 128)
    assert 1 - float(kept) == pytest.approx(17.972 * 128e-9, rel=0.05)


def test_half_a_life_halves():
    average, value = averaging.HalfLife(images=1000, ramp=None), {"w": jnp.array([1.0])}
    for seen in range(110, 1101, 10):  # a hundred updates of ten images, after a first that copied
        value = averaging.update(average, value, {"w": jnp.array([0.0])}, jnp.float32(seen), 10)
    np.testing.assert_allclose(value["w"], 0.5, rtol=1e-4)


def test_a_ramp_shortens_early_lives():
    average = averaging.HalfLife(images=500_000, ramp=0.05)
    np.testing.assert_allclose(average.decay(jnp.float32(10_000), 100), 0.5 ** (100 / 500), rtol=1e-6)
    np.testing.assert_allclose(average.decay(jnp.float32(1e8), 100), 0.5 ** (100 / 500_000), rtol=1e-6)


@pytest.mark.parametrize("average", [averaging.HalfLife(), averaging.HalfLife(ramp=None), averaging.Power()])
def test_the_first_update_copies(average):
    """Pitfall 13."""
    old, new = {"w": jnp.array([5.0])}, {"w": jnp.array([-3.0])}
    np.testing.assert_array_equal(averaging.update(average, old, new, jnp.float32(64), 64)["w"], new["w"])


def test_what_is_chosen_is_the_first_average_and_it_alone_is_averaged():
    """Pitfall 13: two averages of one descent; weights, optimiser and constants (`aux`) stay what they are."""
    averages = {"slow": averaging.HalfLife(images=64, ramp=None), "fast": averaging.HalfLife(images=8, ramp=None)}
    optimizer = optax.adam(0.1)
    state = descent.begin(jax.random.key(0), {"w": jnp.zeros(2)}, optimizer, averages, table=jnp.arange(3))
    plain = descent.begin(jax.random.key(0), {"w": jnp.zeros(2)}, optimizer, {})
    batch = types.Images(image=np.zeros((16, 1, 1, 1), np.uint8), label=np.zeros(16, np.int32))
    loss = lambda params, batch, key: (jnp.sum((params["w"] - 3) ** 2), {})
    seen = []
    for _ in range(6):
        state, _ = descent.descend(state, loss, batch, optimizer, averages)
        plain, _ = descent.descend(plain, loss, batch, optimizer, {})
        seen.append(np.asarray(state.params["w"]))
    np.testing.assert_array_equal(state.params["w"], plain.params["w"])
    np.testing.assert_array_equal(state.aux["table"], [0, 1, 2])
    assert {name: set(average) for name, average in state.ema_params.items()} == {"slow": {"w"}, "fast": {"w"}}
    for name, life in (("slow", 64), ("fast", 8)):
        expected = seen[0]
        for value in seen[1:]:
            expected = value + 0.5 ** (16 / life) * (expected - value)
        np.testing.assert_allclose(state.ema_params[name]["w"], expected, rtol=1e-5)
    assert descent.chosen(state, averages)["params"] is state.ema_params["slow"]
    assert descent.chosen(plain, {})["params"] is plain.params


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: averaging.HalfLife(images=0), r"images=0"),
        (lambda: averaging.HalfLife(ramp=0.0), r"ramp=0\.0"),
        (lambda: averaging.Power(std=0.3), r"std=0\.3"),
    ],
)
def test_refuses_what_cannot_work(make, message):
    with pytest.raises(ValueError, match=message):
        make()
