"""Schedules, optimisers from config, and the guard around every update."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from core import optim
from tests import runs


def test_linear_goes_from_start_to_end_and_stays():
    schedule = optim.linear(start=1.0, end=0.1, frames=1000)
    assert [schedule(now) for now in (-5, 0, 500, 1000, 10**9)] == pytest.approx([1.0, 1.0, 0.55, 0.1, 0.1])
    late = optim.linear(start=1.0, end=0.1, frames=1000, begin=500)
    assert [late(now) for now in (0, 500, 1000, 1500, 2000)] == pytest.approx([1.0, 1.0, 0.55, 0.1, 0.1])
    with pytest.raises(ValueError, match="begin=-1: must be at least 0"):
        optim.linear(start=1.0, end=0.1, frames=10, begin=-1)
    with pytest.raises(ValueError, match=r"rule\.b1=1\.5: must be at least 0 and less than 1"):
        optim.optimizer(rule=functools.partial(optax.adam, b1=1.5), learning_rate=1.0)
    with pytest.raises(ValueError, match=r"rule\.eps=-1: must be at least 0"):
        optim.optimizer(rule=functools.partial(optax.adam, eps=-1), learning_rate=1.0)
    with pytest.raises(ValueError, match="frames=0: a schedule lasts at least 1 frame"):
        optim.linear(start=1.0, end=0.1, frames=0)
    with pytest.raises(ValueError, match=r"start=5: a share lies in \[0, 1\]"):
        optim.linear(start=5, end=0.1, frames=10)
    with pytest.raises(ValueError, match=r"end=-0.5: a share lies in \[0, 1\]"):
        optim.linear(start=1.0, end=-0.5, frames=10)


def test_cosine_rises_then_falls_by_images_seen():
    schedule = optim.cosine(images=100, batch=10, warmup=20, end=0.1)
    # Before update n, 10 n images have been seen; the fall from 1 to 0.1 lasts 80 images, half of it at update 6.
    shares = [float(schedule(jnp.array(n))) for n in (0, 1, 2, 6, 10, 1000)]
    assert shares == pytest.approx([0.5, 1.0, 1.0, 0.55, 0.1, 0.1])
    assert float(optim.cosine(images=100, batch=10)(jnp.array(0))) == 1
    with pytest.raises(ValueError, match="warmup=100: must be at least 0 and less than the 100 images"):
        optim.cosine(images=100, batch=10, warmup=100)
    with pytest.raises(ValueError, match=r"end=1.5: a share of the learning rate lies in \[0, 1\]"):
        optim.cosine(images=100, batch=10, end=1.5)
    with pytest.raises(ValueError, match="batch=0: an update takes at least 1 image"):
        optim.cosine(images=100, batch=0)


def test_a_schedule_scales_the_learning_rate_of_each_update():
    rule = optim.optimizer(rule=optax.sgd, learning_rate=0.5, clip_norm=10.0, schedule=lambda n: 1.0 / (1 + n))
    gradient, moves = {"a": jnp.array([2.0])}, []
    state = rule.init(gradient)
    for _ in range(3):
        update: Any
        update, state = rule.update(gradient, state)
        moves.append(float(update["a"][0]))
    assert moves == pytest.approx([-1.0, -0.5, -1 / 3])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate=0.0: must be greater than 0"),
        ({"learning_rate": float("nan")}, "learning_rate=nan: must be greater than 0"),
        ({"learning_rate": 1.0, "clip_norm": 0.0}, "clip_norm=0.0: must be greater than 0, or null"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict, message: str):
    with pytest.raises(ValueError, match=message):
        optim.optimizer(rule=optax.sgd, **settings)


@pytest.mark.parametrize(("clip_norm", "scale"), [(None, 1.0), (10.0, 1.0), (1.0, 0.2)])
def test_the_whole_gradient_is_clipped_before_the_rule_sees_it(clip_norm: float | None, scale: float):
    rule = optim.optimizer(rule=optax.sgd, learning_rate=0.5, clip_norm=clip_norm)
    gradient = {"a": jnp.array([3.0]), "b": jnp.array([4.0])}  # norm 5
    update: Any
    update, _ = rule.update(gradient, rule.init(gradient))
    np.testing.assert_allclose([update["a"][0], update["b"][0]], [-1.5 * scale, -2.0 * scale], rtol=1e-6)


RULES = {
    "adam": optim.optimizer(rule=optax.adam, learning_rate=0.1, clip_norm=1.0),
    "rmsprop": optim.optimizer(rule=functools.partial(optax.rmsprop, centered=True, momentum=0.9), learning_rate=0.1),
}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize(("loss", "part"), [(np.nan, 1.0), (np.inf, 1.0), (0.0, np.nan), (0.0, -np.inf)])
def test_from_the_first_bad_update_on_nothing_moves(rule: optax.GradientTransformation, loss: float, part: float):
    @jax.jit
    def update(loss, gradient, params, opt_state, healthy):
        return optim.apply(rule, loss=loss, gradient=gradient, params=params, opt_state=opt_state, healthy=healthy)

    params = {"a": jnp.array([1.0, 2.0]), "b": jnp.array(3.0, jnp.bfloat16)}
    ones = jax.tree.map(jnp.ones_like, params)
    before = params, rule.init(params), jnp.array(True)
    good = update(jnp.float32(0.5), ones, *before)
    assert bool(good[2]) and float(good[3]) == pytest.approx(3**0.5)
    assert good[0]["b"].dtype == jnp.bfloat16 and float(good[0]["a"][0]) < 1.0
    bad = update(jnp.float32(loss), ones | {"a": jnp.array([1.0, part])}, *good[:3])
    after = update(jnp.float32(0.5), ones, *bad[:3])
    for kept in (bad, after):
        assert not bool(kept[2])
        runs.assert_same(kept[:2], good[:2])
    assert np.isfinite(after[3])  # the norm is told as it is


def test_an_update_is_the_rules_own():
    rule = RULES["adam"]
    params, gradient = {"a": jnp.array([1.0, -2.0])}, {"a": jnp.array([0.3, 0.4])}
    moved, _, healthy, _ = optim.apply(
        rule,
        loss=jnp.float32(0),
        gradient=gradient,
        params=params,
        opt_state=rule.init(params),
        healthy=jnp.array(True),
    )
    assert bool(healthy)
    np.testing.assert_allclose(moved["a"], [0.9, -2.1], rtol=1e-5)  # Adam's first step is the learning rate


def test_a_gradient_in_parts_is_the_batches_own():
    """The means over the parts are those over the batch, of the loss, its metrics and its gradient."""
    rng = np.random.default_rng(0)
    params = {"w": jnp.array(rng.normal(size=(3,)), jnp.float32)}
    batch = {"x": jnp.array(rng.normal(size=(12, 3)), jnp.float32), "y": jnp.array(rng.normal(size=12), jnp.float32)}

    def loss(params: Any, batch: Any, key: jax.Array) -> Any:
        error = batch["x"] @ params["w"] - batch["y"]
        return jnp.mean(error**2), {"rows": jnp.float32(len(error)), "error": jnp.mean(error), "key": key[0]}

    key = jax.random.PRNGKey(7)
    whole = optim.gradient(loss, params, batch, key)
    parts = jax.jit(functools.partial(optim.gradient, loss, parts=4))(params, batch, key)
    assert float(parts[0][1].pop("rows")) == 3 and float(whole[0][1].pop("rows")) == 12
    assert parts[0][1].pop("key") != whole[0][1].pop("key")  # each part draws its own noise
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), parts, whole)
    by_hand = 2 * (np.asarray(batch["x"]).T @ np.asarray(batch["x"] @ params["w"] - batch["y"])) / 12
    np.testing.assert_allclose(parts[1]["w"], by_hand, rtol=1e-5)


@pytest.mark.parametrize(("parts", "remedy"), [(5, "4 or 6"), (0, "1 or 2"), (24, "6 or 12")])
def test_a_batch_that_cannot_be_cut_is_refused(parts: int, remedy: str):
    optim.check_parts(3, 12)
    with pytest.raises(ValueError, match=f"accumulate={parts}: does not divide the batch of 12 images; take {remedy}"):
        optim.check_parts(parts, 12)
