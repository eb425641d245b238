"""Likelihoods against closed forms, and what they make of bytes."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from generative import likelihoods

GREY = jnp.arange(256, dtype=jnp.uint8).reshape(1, 16, 16, 1)  # every level once


def repeated(image: jax.Array, times: int) -> jax.Array:
    return jnp.tile(image, (times, 1, 1, 1))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("logit", [-110.0, 0.0, 110.0])
def test_bernoulli_is_finite_with_a_finite_gradient(logit: float, dtype):
    """Pitfall 3; by hand: -110 nats for what a logit of 110 holds for impossible, 0 for what it is sure of."""
    target = jnp.array([0.0, 1.0]).reshape(2, 1, 1, 1)
    log_prob = lambda logits: likelihoods.Bernoulli().log_prob((logits,), target)
    logits = jnp.full((2, 1, 1, 1), logit, dtype)
    np.testing.assert_allclose(log_prob(logits), [min(-logit, 0), min(logit, 0)] if logit else [-math.log(2)] * 2)
    gradient = jax.grad(lambda logits: log_prob(logits).sum())(logits)
    np.testing.assert_allclose(gradient.ravel(), np.array([0.0, 1]) - 1 / (1 + math.exp(-logit)), atol=1e-12)
    assert gradient.dtype == dtype


def test_grey_data_never_reach_zero():
    """Pitfall 4: an all-0.5 picture of 28 x 28 costs at least 784 ln 2 = 543.4 nats, so that none are reported."""
    grey = likelihoods.Bernoulli(binarisation="none")
    half = jnp.full((1, 28, 28, 1), 0.5)
    costs = [-grey.log_prob((jnp.full_like(half, logit),), half)[0] for logit in np.linspace(-3, 3, 61)]
    assert min(costs) == pytest.approx(543.4, abs=0.05) and int(np.argmin(costs)) == 30
    assert "binarisation=none" in str(grey.refusal)
    for binarisation in ("dynamic", "static", "threshold"):
        named = likelihoods.Bernoulli(binarisation=binarisation)
        assert named.refusal is None and named.protocol["binarisation"] == binarisation


def test_dynamic_binarisation_follows_the_grey_value_and_is_drawn_anew():
    prepare, many = jax.jit(likelihoods.Bernoulli(binarisation="dynamic").prepare), repeated(GREY, 4000)
    drawn = np.asarray(prepare(many, jax.random.key(0)))
    assert set(np.unique(drawn)) == {0.0, 1.0}
    share = drawn.mean(axis=0).ravel()
    assert share[0] == 0 and share[255] == 1  # exactly: black is never 1 and white always
    expected = np.arange(256) / 255
    assert np.abs(share - expected).max() < 5 * 0.5 / math.sqrt(4000)
    np.testing.assert_allclose(share.mean(), expected.mean(), atol=5 * 0.5 / 1000)
    again = np.asarray(prepare(many, jax.random.key(1)))
    assert 0.2 < (drawn != again).mean() < 0.5  # 1/3 on average over the levels
    centred = drawn.reshape(4000, 2, 128) - expected.reshape(2, 128)[None]  # both halves of a word of the generator
    assert np.abs((centred[:, 0] * centred[:, 1]).mean(axis=0)).max() < 5 * 0.25 / math.sqrt(4000)


def test_static_binarisation_is_fixed_by_seed_and_content():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (6, 7, 5, 1), dtype=np.uint8)  # an odd number of pixels
    static = jax.jit(likelihoods.Bernoulli(binarisation="static").prepare)
    drawn = np.asarray(static(images, jax.random.key(0)))
    shuffled = np.array([4, 2, 2, 0, 1, 5])
    np.testing.assert_array_equal(drawn[shuffled], static(images[shuffled], jax.random.key(7)))
    assert len({row.tobytes() for row in drawn}) == 6
    other = jax.jit(likelihoods.Bernoulli(binarisation="static", seed=1).prepare)
    assert (drawn != np.asarray(other(images, jax.random.key(0)))).mean() > 0.2
    brighter = images.copy()
    brighter[0, 0, 0, 0] += 1  # one level of one pixel makes another image, with a draw of its own
    assert (np.asarray(static(brighter, jax.random.key(0)))[0] != drawn[0]).mean() > 0.2


def test_threshold_leaves_binary_data_alone():
    black_and_white = jnp.array([0, 255, 127, 128], jnp.uint8).reshape(1, 2, 2, 1)
    drawn = likelihoods.Bernoulli(binarisation="threshold").prepare(black_and_white, jax.random.key(0))
    np.testing.assert_array_equal(drawn.ravel(), [0, 1, 0, 1])


@pytest.mark.parametrize("scale", [0.3, "shared", "pixel"])
def test_gaussian_is_the_density_times_the_bin(scale):
    """By hand: log N(0.5; 0.2, 0.3²) = -0.5 ln 2π - ln 0.3 - 0.5."""
    parameters = (jnp.full((2, 3, 1, 1), 0.2),)
    if scale != 0.3:
        parameters += (jnp.full((2, 3, 1, 1), math.log(0.3)),)
    plain = likelihoods.Gaussian(scale=scale, dequantise=False)
    assert (plain.maps, plain.shared) == {0.3: (1, 0), "shared": (1, 1), "pixel": (2, 0)}[scale]
    target = jnp.full((2, 3, 1, 1), 0.5)
    density = -0.5 * math.log(2 * math.pi) - math.log(0.3) - 0.5
    np.testing.assert_allclose(plain.log_prob(parameters, target), [3 * density] * 2, rtol=1e-6)
    byte = likelihoods.Gaussian(scale=scale, dequantise=True)
    np.testing.assert_allclose(byte.log_prob(parameters, target), [3 * (density - math.log(128))] * 2, rtol=1e-6)
    assert byte.refusal is None and "dequantise=false" in str(plain.refusal)


def test_dequantised_bytes_fill_their_bins():
    drawn = np.asarray(jax.jit(likelihoods.Gaussian().prepare)(repeated(GREY, 500), jax.random.key(0)))
    place = ((drawn + 1) * 128).reshape(500, 256) - np.arange(256)
    assert place.min() >= -1e-3 and place.max() <= 1 + 1e-3
    assert place.mean() == pytest.approx(0.5, abs=0.005) and place.var() == pytest.approx(1 / 12, abs=0.002)


@pytest.mark.parametrize("mean, scale", [(0.0, 0.05), (-0.99, 0.002), (0.3, 1e-4), (0.0, 30.0)])
def test_discretised_logistic_masses_add_up_to_one(mean: float, scale: float):
    likelihood = likelihoods.DiscretisedLogistic(scale=scale)
    levels = GREY.reshape(256, 1, 1, 1)
    log_mass = likelihood.log_prob((jnp.full((256, 1, 1, 1), mean),), likelihood.prepare(levels, jax.random.key(0)))
    assert np.isfinite(log_mass).all()
    assert np.exp(np.asarray(log_mass, np.float64)).sum() == pytest.approx(1, abs=1e-4)
    cdf = lambda x: 0.5 * (1 + np.tanh((x - mean) / (2 * scale)))
    at = (np.arange(1, 256)) / 128 - 1
    expected = np.diff(cdf(at), prepend=0, append=1)
    large = expected > 1e-3
    np.testing.assert_allclose(np.exp(log_mass)[large], expected[large], rtol=2e-3)


def test_discretised_logistic_has_finite_gradients_far_away():
    likelihood = likelihoods.DiscretisedLogistic(scale="pixel")
    target = likelihood.prepare(GREY, jax.random.key(0))
    gradient = jax.jit(jax.grad(lambda mean, scale: likelihood.log_prob((mean, scale), target).sum(), (0, 1)))
    for log_scale in (-9.0, 3.0):
        for mean in (-50.0, 0.0, 50.0):
            gradients = gradient(jnp.full(GREY.shape, mean), jnp.full(GREY.shape, log_scale))
            assert all(np.isfinite(gradient).all() for gradient in gradients)


def test_bits_per_dimension():
    """Pitfall 11's numbers: a uniform model of 256 levels has 8 bits, and a density in [-1, 1] 7 more than its own."""
    uniform = jnp.array([-3 * math.log(256)])
    np.testing.assert_allclose(likelihoods.bits_per_dimension(uniform, (1, 3, 1)), 8, rtol=1e-6)
    parameters, target = (jnp.zeros((1, 2, 2, 1)),), jnp.zeros((1, 2, 2, 1))
    log_probs = [likelihoods.Gaussian(scale=1.0, dequantise=on).log_prob(parameters, target) for on in (True, False)]
    byte, density = (likelihoods.bits_per_dimension(each, (2, 2, 1)) for each in log_probs)
    np.testing.assert_allclose(byte - density, 7, rtol=1e-5)


@pytest.mark.parametrize(
    "likelihood",
    [likelihoods.Gaussian(dequantise=False), likelihoods.DiscretisedLogistic()],
    ids=["gaussian", "logistic"],
)
def test_the_mean_picture_gives_every_byte_back(likelihood):
    np.testing.assert_array_equal(likelihood.mean((likelihood.prepare(GREY, None),)), GREY)
    np.testing.assert_array_equal(likelihood.mean((jnp.array([[[[-3.0, 3.0]]]]),)), [[[[0, 255]]]])


def test_bernoulli_pictures_are_probabilities():
    logits = jnp.array([-200.0, 0.0, math.log(3), 200.0]).reshape(1, 2, 2, 1)
    np.testing.assert_array_equal(likelihoods.Bernoulli().mean((logits,)).ravel(), [0, 128, 191, 255])


def test_refuses_what_cannot_work():
    with pytest.raises(ValueError, match=r"scale=0: must be greater than 0"):
        likelihoods.Gaussian(scale=0)
    with pytest.raises(ValueError, match=r"scale=-1: must be greater than 0"):
        likelihoods.DiscretisedLogistic(scale=-1)
    with pytest.raises(ValueError, match=r"seed=-1: must lie in 0"):
        likelihoods.Bernoulli(seed=-1)
