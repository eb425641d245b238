"""Losses by hand, and penalties against closed forms and against differentiating a gradient."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from core import convolution
from generative import adversarial

REAL, FAKE = jnp.array([1.0, -2.0]), jnp.array([0.5, 3.0])
softplus = lambda x: math.log1p(math.exp(x))
RELATIVISTIC, START, KEY = adversarial.Relativistic, jnp.float32(0), jax.random.key(0)


@pytest.mark.parametrize(
    ("loss", "discriminator", "generator"),
    [
        (
            adversarial.NonSaturating,
            [softplus(-1) + softplus(0.5), softplus(2) + softplus(3)],
            [softplus(-0.5), softplus(-3)],
        ),
        (adversarial.Wasserstein, [-0.5, 5.0], [-0.5, -3.0]),
        (adversarial.Hinge, [0 + 1.5, 3 + 4.0], [-0.5, -3.0]),
        (adversarial.Relativistic, [softplus(-0.5), softplus(5)], [softplus(0.5), softplus(-5)]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_losses_by_hand(loss, discriminator, generator):
    np.testing.assert_allclose(loss.discriminator(REAL, FAKE), discriminator, rtol=1e-6)
    np.testing.assert_allclose(loss.generator(REAL, FAKE), generator, rtol=1e-6)


@pytest.mark.parametrize("constant", [0.0, -7.5])
def test_a_constant_discriminator_gives_ln_2(constant):
    """Pitfall 14."""
    logit = jnp.full(5, constant)
    for player in (RELATIVISTIC.discriminator, RELATIVISTIC.generator):
        np.testing.assert_allclose(player(logit, logit), math.log(2), rtol=1e-6)


def test_losses_stay_finite_where_logits_are_huge():
    for loss in (adversarial.NonSaturating, RELATIVISTIC):
        for player in (loss.discriminator, loss.generator):
            value, slope = jax.value_and_grad(lambda x, player=player: jnp.sum(player(x, -x)))(jnp.array([1e4, -1e4]))
            assert np.isfinite(value) and np.isfinite(slope).all()


# ---- penalties ----

WEIGHT = jax.random.normal(jax.random.key(1), (4, 3, 2))
SQUARE = float(jnp.sum(WEIGHT**2))


def linear(params, images):
    return jnp.einsum("bhwc,hwc->b", images, params)


def pictures(batch, seed=0):
    return jax.random.normal(jax.random.key(seed), (batch, 4, 3, 2))


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_a_linear_discriminator_has_the_norm_of_its_weights(batch):
    """Pitfall 14."""
    real, fake = pictures(batch), pictures(batch, 1)
    critic = functools.partial(linear, WEIGHT)
    for penalty, wanted in [
        (adversarial.R1(gamma=2.0), SQUARE),
        (adversarial.R2(gamma=0.5), SQUARE / 4),
        (adversarial.GradientPenalty(weight=10.0), 10 * (math.sqrt(SQUARE) - 1) ** 2),
    ]:
        value = jax.jit(lambda *given, penalty=penalty: penalty(critic, *given))(real, fake, KEY, START)
        assert value.shape == (batch,)
        np.testing.assert_allclose(value, wanted, rtol=1e-5)


@pytest.mark.parametrize("batch", [1, 50])
def test_a_linear_discriminators_penalties_have_the_gradient_of_the_closed_form(batch):
    images = pictures(batch)

    def total(params, penalty):
        return jnp.mean(penalty(functools.partial(linear, params), images, images, KEY, START))

    norm = math.sqrt(SQUARE)
    for penalty, factor in [
        (adversarial.R1(gamma=3.0), 3.0),  # γ/2 |w|²
        (adversarial.GradientPenalty(weight=10.0), 20 * (norm - 1) / norm),  # λ (|w| - 1)²
    ]:
        np.testing.assert_allclose(jax.grad(total)(WEIGHT, penalty), factor * WEIGHT, rtol=2e-5, atol=1e-6)


def test_each_penalty_looks_where_it_says():
    """D(x) = |x|²/2 has the gradient x."""
    critic = lambda x: jnp.sum(x**2, axis=(1, 2, 3)) / 2
    real, fake = pictures(5), 3 * pictures(5, 1)
    square = lambda x: np.sum(np.asarray(x) ** 2, axis=(1, 2, 3))
    np.testing.assert_allclose(adversarial.R1(gamma=2.0)(critic, real, fake, KEY, START), square(real), rtol=1e-5)
    np.testing.assert_allclose(adversarial.R2(gamma=2.0)(critic, real, fake, KEY, START), square(fake), rtol=1e-5)

    zero, one = jnp.zeros_like(real), jnp.ones_like(real)  # the point's norm is its share times √24
    found = adversarial.GradientPenalty(weight=1.0)(critic, one, zero, KEY, START)
    share = jax.random.uniform(KEY, (5, 1, 1, 1)).reshape(5)
    assert len(set(np.asarray(share).tolist())) == 5  # a point of its own for each pair
    np.testing.assert_allclose(found, (share * math.sqrt(24) - 1) ** 2, rtol=1e-4)


def test_weights_move_with_the_run():
    critic, images = functools.partial(linear, WEIGHT), pictures(2)
    at = lambda penalty, progress: float(penalty(critic, images, images, KEY, jnp.float32(progress))[0])
    assert at(adversarial.R1(gamma=(2.0, 1.0)), 0.5) == pytest.approx(0.75 * SQUARE, rel=1e-5)
    assert at(adversarial.R2(gamma=(2.0, 1.0)), 1.0) == pytest.approx(0.5 * SQUARE, rel=1e-5)
    steep = (math.sqrt(SQUARE) - 1) ** 2
    assert at(adversarial.GradientPenalty(weight=(1.0, 5.0)), 1.0) == pytest.approx(5 * steep, rel=1e-5)


def convolutional(params, images):
    """Two convolutions, one with a stride, with a kink and a bend between them."""
    convolve = functools.partial(convolution.conv_general_dilated, dimension_numbers=("NHWC", "HWIO", "NHWC"))
    x = jax.nn.leaky_relu(convolve(images, params["first"], (1, 1), "SAME") + params["bias"][None, None, None])
    x = jnp.tanh(convolve(x, params["second"], (2, 2), "SAME"))
    return x.reshape(x.shape[0], -1) @ params["out"]


def convolutional_params():
    keys = jax.random.split(jax.random.key(2), 4)
    shapes = {"first": (3, 3, 2, 5), "bias": (5,), "second": (3, 3, 5, 4), "out": (2 * 2 * 4,)}
    return {name: jax.random.normal(key, shape) / 2 for key, (name, shape) in zip(keys, shapes.items(), strict=True)}


PENALTY = adversarial.gradient_penalty


def by_hand(critic, images, curve):
    """The penalty as it is usually written, which differentiates a gradient."""
    gradient = jax.grad(lambda x: jnp.sum(critic(x)))(images)
    return curve(jnp.sum(gradient**2, axis=(1, 2, 3)))


@pytest.mark.parametrize("batch", [1, 6])
@pytest.mark.parametrize("curve", [lambda s: 1.5 * s, lambda s: 10 * (jnp.sqrt(s) - 1) ** 2], ids=["squared", "to_one"])
def test_value_and_gradient_are_those_of_differentiating_a_gradient(curve, batch):
    params, images = convolutional_params(), pictures(batch)

    def total(penalty, params):
        critic = functools.partial(convolutional, params)
        return jnp.mean(jax.nn.softplus(critic(images)) + penalty(critic, images, curve))

    ours, theirs = (jax.jit(jax.value_and_grad(functools.partial(total, f)))(params) for f in (PENALTY, by_hand))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), ours, theirs)


def test_a_penalty_is_each_images_own():
    """Pitfall 14."""
    critic = functools.partial(convolutional, convolutional_params())
    images = pictures(6)
    penalty = jax.jit(lambda x: PENALTY(critic, x, lambda s: s))
    together = penalty(images)
    alone = jnp.concatenate([penalty(image[None]) for image in images])
    np.testing.assert_allclose(together, alone, rtol=1e-5)
    assert len(set(np.asarray(together).round(4).tolist())) == 6


def test_where_a_discriminator_is_flat_the_gradient_stays_finite():
    images = pictures(3)

    def total(params):
        critic = functools.partial(linear, params)
        return jnp.mean(adversarial.GradientPenalty()(critic, images, images, KEY, START))

    value, gradient = jax.value_and_grad(total)(jnp.zeros_like(WEIGHT))
    assert float(value) == pytest.approx(10, rel=1e-4)
    assert np.isfinite(gradient).all()


def test_refuses_negative_weights():
    for make, message in [
        (lambda: adversarial.R1(gamma=-1.0), r"gamma=-1\.0"),
        (lambda: adversarial.R2(gamma=(1.0, -1.0)), r"gamma=\(1\.0, -1\.0\)"),
        (lambda: adversarial.GradientPenalty(weight=-1.0), r"weight=-1\.0"),
    ]:
        with pytest.raises(ValueError, match=message):
            make()
