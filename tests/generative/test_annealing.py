"""Values on one cosine: at hand-computed points, inside Adam and inside an average."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from core import optim
from generative import annealing


@pytest.mark.parametrize(
    ("progress", "wanted"),
    [(0.0, 8.0), (0.25, 2 + 6 * (1 + 0.5**0.5) / 2), (0.5, 5.0), (1.0, 2.0), (1.5, 2.0)],
)
def test_a_course_falls_on_half_a_cosine_and_stays_at_its_end(progress, wanted):
    assert float(annealing.at((8.0, 2.0), jnp.float32(progress))) == pytest.approx(wanted, rel=1e-6)
    assert float(annealing.at(3.0, jnp.float32(progress))) == 3.0


def descend(transformation, gradients, *, progress):
    """Updates of a parameter [2] by gradients in turn."""
    params = jnp.array([1.0, -2.0])
    state, moves = transformation.init(params), []
    for gradient, now in zip(gradients, progress, strict=True):
        update, state = transformation.update(gradient, state, params, progress=jnp.float32(now))
        moves.append(np.asarray(update))
    return np.stack(moves)


GRADIENTS = [jnp.array([0.3, -1.0]), jnp.array([-0.2, 4.0]), jnp.array([1.0, 0.5])]


def test_adam_that_stays_is_optax_adam():
    still = annealing.adam(1e-2, b1=0.5, b2=0.9)
    plain = optax.with_extra_args_support(optax.adam(1e-2, b1=0.5, b2=0.9))
    moves = [descend(rule, GRADIENTS, progress=(0.0, 0.5, 1.0)) for rule in (still, plain)]
    np.testing.assert_allclose(*moves, rtol=1e-6)


def test_adam_moves_its_rate_and_its_second_decay():
    moving = annealing.adam(4e-2, end=0.25, b1=0.0, b2=(0.5, 0.75))
    moves = descend(moving, GRADIENTS[:2], progress=(0.0, 1.0))
    first, second = (np.asarray(g) for g in GRADIENTS[:2])
    np.testing.assert_allclose(moves[0], -4e-2 * np.sign(first), rtol=1e-5)
    held = 0.75 * (0.5 * first**2) + 0.25 * second**2
    np.testing.assert_allclose(moves[1], -1e-2 * second / np.sqrt(held / (1 - 0.75**2)), rtol=1e-5)


def test_adam_goes_through_the_optimizer_of_the_config_with_clipping():
    rule = functools.partial(annealing.adam, end=0.0)
    clipped = optim.optimizer(rule=rule, learning_rate=1e-2, clip_norm=1.0)
    moves = descend(clipped, GRADIENTS, progress=(0.0, 0.5, 1.0))
    assert np.abs(moves[1]).max() > 0 and not moves[2].any()


def test_a_half_life_begins_by_copying_and_grows():
    average = annealing.HalfLife(images=(0, 1000), over=10_000)
    assert float(average.decay(jnp.float32(64), 64)) == 0
    assert float(average.decay(jnp.float32(128), 64)) < 1e-3  # its life is a tenth of an image yet
    assert float(average.decay(jnp.float32(5_100), 100)) == pytest.approx(0.5 ** (100 / 500), rel=1e-5)
    assert float(average.decay(jnp.float32(20_000), 1000)) == pytest.approx(0.5, rel=1e-5)


def test_refuses_what_cannot_be():
    for make, message in [
        (lambda: annealing.adam(1e-3, b2=(0.9, 1.0)), r"b2=\(0\.9, 1\.0\): must be at least 0 and below 1"),
        (lambda: annealing.adam(1e-3, end=1.5), r"end=1\.5"),
        (lambda: annealing.HalfLife(images=(-1.0, 5.0), over=10), r"images=\(-1\.0, 5\.0\): must be at least 0"),
        (lambda: annealing.HalfLife(images=1.0, over=0), "over=0"),
    ]:
        with pytest.raises(ValueError, match=message):
            make()


def test_the_course_is_traced_not_compiled_anew():
    value = jax.jit(lambda progress: annealing.at((1.0, 0.0), progress))
    assert [float(value(p)) for p in (0.0, 1.0)] == [1.0, 0.0]
    assert value._cache_size() == 1  # pyright: ignore
