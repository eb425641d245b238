"""Predictions and weightings, in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from generative import noise, preconditioning

PREDICTIONS = {
    "epsilon": preconditioning.epsilon,
    "x0": preconditioning.x0,
    "v": preconditioning.v,
    "velocity": preconditioning.velocity,
    "edm": preconditioning.EDM(data=0.5),
}
# What the network is to say of an image a and noise e; the last one only up to what x tells of both.
TARGETS = {
    "epsilon": lambda a, e, level: e,
    "x0": lambda a, e, level: a,
    "v": lambda a, e, level: (level.alpha * e - level.sigma * a) / jnp.hypot(level.alpha, level.sigma),
    "velocity": lambda a, e, level: e - a,
}
RATIOS = np.geomspace(0.002, 80, 9)


def levels(ratio):
    """The same noise on the three curves: variance preserving, exploding, straight."""
    return [
        noise.Level(*(np.float32(part / scale) for part in (1, ratio))) for scale in (np.hypot(1, ratio), 1, 1 + ratio)
    ]


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("ratio", RATIOS)
def test_the_right_output_gives_the_image_back(name, ratio):
    a, e = jnp.array([0.3, -0.9]), jnp.array([1.2, -0.4])
    for level in levels(ratio):
        c = PREDICTIONS[name](level)
        x = level.alpha * a + level.sigma * e
        np.testing.assert_allclose(c.skip * x + c.out * TARGETS[name](a, e, level), a, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", PREDICTIONS)
@pytest.mark.parametrize("ratio", RATIOS)
def test_a_denoiser_is_the_same_along_every_curve(name, ratio):
    """Scaling x and its level by k leaves the denoised image and what the network sees as they are."""
    first, *others = [PREDICTIONS[name](level) for level in levels(ratio)]
    for level, c in zip(levels(ratio)[1:], others, strict=True):
        k = level.alpha / levels(ratio)[0].alpha
        np.testing.assert_allclose([c.skip * k, c.out, c.into * k], list(first), rtol=1e-5)


@pytest.mark.parametrize("ratio", RATIOS)
def test_edms_weight_undoes_its_output_scale(ratio):
    """Pitfall 9: λ(σ) c_out² = 1, with λ in the paper's own words; input and target have variance 1."""
    data, level = 0.5, noise.Level(np.float32(1), np.float32(ratio))
    c = preconditioning.EDM(data=data)(level)
    weight = (ratio**2 + data**2) / (ratio * data) ** 2
    np.testing.assert_allclose(preconditioning.of_output(level, c.out), weight, rtol=1e-5)
    np.testing.assert_allclose(weight * c.out**2, 1, rtol=1e-5)
    np.testing.assert_allclose(c.into**2 * (data**2 + ratio**2), 1, rtol=1e-5)
    target_variance = ((1 - c.skip) ** 2 * data**2 + (c.skip * ratio) ** 2) / c.out**2
    np.testing.assert_allclose(target_variance, 1, rtol=1e-3)


@pytest.mark.parametrize("ratio", RATIOS)
def test_a_network_that_says_nothing_costs_one_a_pixel(ratio):
    """Pitfall 9: EDM with F = 0 on data of variance data²: the expected weighted loss is 1 at every σ."""
    data, count = 0.5, 200_000
    a, e = (jax.random.normal(jax.random.key(seed), (count,)) for seed in (0, 1))
    level = noise.Level(jnp.float32(1), jnp.float32(ratio))
    c = preconditioning.EDM(data=data)(level)
    error = c.skip * (data * a + ratio * e) - data * a
    loss = jnp.mean(preconditioning.of_output(level, c.out) * error**2)
    np.testing.assert_allclose(loss, 1, atol=0.02)  # six standard errors


@pytest.mark.parametrize("alpha2", [0.999, 0.5, 0.01])
def test_errors_of_all_predictions_are_one_error(alpha2):
    """Pitfall 10: ‖Δε‖² = SNR ‖Δx₀‖² = ᾱ ‖Δv‖²."""
    level = noise.Level(np.float32(np.sqrt(alpha2)), np.float32(np.sqrt(1 - alpha2)))
    x, image = jnp.array([0.2, -1.1, 0.7]), jnp.array([0.1, -0.5, 0.9])
    off = image + jnp.array([0.03, -0.05, 0.11])
    said = lambda name, clean: (clean - PREDICTIONS[name](level).skip * x) / PREDICTIONS[name](level).out
    apart = {name: float(jnp.sum((said(name, off) - said(name, image)) ** 2)) for name in ("epsilon", "x0", "v")}
    snr = alpha2 / (1 - alpha2)
    np.testing.assert_allclose(apart["epsilon"], snr * apart["x0"], rtol=1e-3)
    np.testing.assert_allclose(apart["epsilon"], alpha2 * apart["v"], rtol=1e-3)


@pytest.mark.parametrize("ratio", RATIOS)
def test_weightings(ratio):
    for level in levels(ratio):
        snr, out = 1 / ratio**2, preconditioning.epsilon(level).out
        np.testing.assert_allclose(preconditioning.of_output(level, out), snr, rtol=1e-4)
        np.testing.assert_allclose(preconditioning.of_noise(level, out), snr, rtol=1e-4)
        assert preconditioning.of_image(level, out) == 1
        np.testing.assert_allclose(preconditioning.MinSNR(gamma=5.0)(level, out), min(snr, 5), rtol=1e-4)
        soft = preconditioning.SoftMinSNR(data=0.5)(level, out)
        np.testing.assert_allclose(soft, 1 / (ratio**2 + 0.25), rtol=1e-4)


def test_only_epsilon_knows_nothing_of_pure_noise():
    level = noise.Level(jnp.float32(0), jnp.float32(1))
    finite = {name: all(bool(jnp.isfinite(part)) for part in f(level)) for name, f in PREDICTIONS.items()}
    assert finite == {"epsilon": False, "x0": True, "v": True, "velocity": True, "edm": True}


@pytest.mark.parametrize(
    "make", [lambda: preconditioning.EDM(data=0.0), lambda: preconditioning.SoftMinSNR(data=0.0)], ids=["edm", "soft"]
)
def test_refuses_what_cannot_work(make):
    with pytest.raises(ValueError, match=r"data=0\.0: must be greater than 0"):
        make()
