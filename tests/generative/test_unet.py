"""The U-Net and the blocks it is made of."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from core import network
from generative.networks import blocks, unet

IMAGE = (8, 8, 1)


@functools.cache
def net(image=IMAGE, classes=3, **options) -> network.Network:
    options = {"channels": (8, 16), "depth": 1, "attention": (2,), "heads": 2} | options
    return network.Network(make=functools.partial(unet.UNet, **options), sizes={"image": image, "classes": classes})


@functools.cache
def scrambled(net: network.Network) -> dict:
    """Parameters without the zeros of a fresh network, behind which nothing shows."""
    rng = np.random.default_rng(0)
    draw = lambda leaf: (
        rng.normal(0.3, 0.3, leaf.shape) if leaf.ndim < 2 else rng.normal(0, leaf[..., 0].size ** -0.5, leaf.shape)
    )
    shapes = jax.eval_shape(net.init, jax.random.key(0))
    return jax.tree.map(lambda leaf: draw(np.empty(leaf.shape)).astype(np.float32), shapes)


@functools.partial(jax.jit, static_argnums=0)
def run(net: network.Network, params, x, noise, label, key):
    return net.bind(params)(x, noise, label, key=key)


def outputs(net: network.Network, x, noise=None, label=None, key=None):
    return np.asarray(run(net, scrambled(net), x, jnp.zeros(len(x)) if noise is None else noise, label, key))


def pictures(*shape: int, seed: int = 0) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape)


@pytest.mark.parametrize("norm", ["pixel", "group"])
def test_it_begins_with_zeros_and_depends_on_all_it_is_given(norm):
    model, x, label = net(norm=norm), pictures(3, 8, 8, 1), jnp.array([0, 1, 2])
    assert not np.asarray(run(model, jax.jit(model.init)(jax.random.key(0)), x, jnp.zeros(3), label, None)).any()
    plain = outputs(model, x, label=label)
    assert plain.shape == x.shape and plain.dtype == np.float32
    for other in (
        outputs(model, x + 0.1, label=label),
        outputs(model, x, noise=jnp.full(3, 0.2), label=label),
        outputs(model, x, label=jnp.array([1, 2, 0])),
    ):
        assert (np.abs(other - plain).max(axis=(1, 2, 3)) > 1e-4).all()
    np.testing.assert_allclose(outputs(model, x), outputs(model, x, label=jnp.full(3, 3)), atol=1e-6)  # 3: no label


@pytest.mark.parametrize("norm", ["pixel", "group"])
def test_nothing_couples_the_images_of_a_batch(norm):
    model, x = net(norm=norm), pictures(4, 8, 8, 1)
    alone = outputs(model, x[1:3])
    np.testing.assert_allclose(alone, outputs(model, x)[1:3], rtol=1e-4, atol=1e-4)


def test_sizes_that_do_not_halve_are_filled_up_and_cut():
    model = net(image=(7, 10, 3), channels=(8, 8, 8), attention=())
    x = pictures(2, 7, 10, 3)
    assert outputs(model, x).shape == x.shape
    filled = net(image=(8, 12, 3), channels=(8, 8, 8), attention=())
    whole = outputs(filled, jnp.pad(x, ((0, 0), (0, 1), (0, 2), (0, 0))))
    np.testing.assert_allclose(outputs(model, x), whole[:, :7, :10], rtol=1e-4, atol=1e-4)


def test_attention_reaches_across_the_image():
    """A pixel far away moves this one through attention, but not through two levels of convolutions."""
    reach = {}
    for attention in ((), (2,)):
        model = net(image=(64, 8, 1), attention=attention)
        x = pictures(1, 64, 8, 1)
        reach[attention] = np.abs(outputs(model, x.at[0, 0].add(1)) - outputs(model, x))[0, -1].max()
    assert reach[()] == 0 < reach[(2,)]


@pytest.mark.long
@pytest.mark.parametrize("norm", ["pixel", "group"])
def test_bfloat16_is_the_same_less_precisely(norm):
    model, x = net(norm=norm), pictures(2, 8, 8, 1)
    exact, found = outputs(model, x), outputs(dataclasses.replace(model, compute="bfloat16"), x)
    assert 0 < np.abs(found - exact).max() < 0.1 * np.abs(exact).max()


def test_dropout_needs_a_key_and_only_then_drops():
    x = pictures(2, 8, 8, 1)
    plain, dropping = net(), net(dropout=0.5)
    np.testing.assert_array_equal(outputs(dropping, x), outputs(plain, x))
    one, other = (outputs(dropping, x, key=jax.random.key(seed)) for seed in (0, 1))
    assert (one != other).any() and (one != outputs(plain, x)).any()


def test_the_default_has_about_four_million_parameters():
    model = network.Network(make=unet.UNet, sizes={"image": (28, 28, 1), "classes": 10})
    count = sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(model.init, jax.random.key(0))))
    assert 4.0e6 < count < 4.2e6


def test_group_normalisation_is_flaxs_own():
    ours, flaxs = (
        blocks.GroupNorm(12, groups=4, rngs=nnx.Rngs(0)),
        nnx.GroupNorm(12, num_groups=4, epsilon=1e-5, rngs=nnx.Rngs(0)),
    )
    for module in (ours, flaxs):
        module.scale[...], module.bias[...] = jnp.arange(12.0), jnp.arange(12.0) - 5  # pyright: ignore
    x = 3 + 2 * pictures(2, 5, 4, 12)
    np.testing.assert_allclose(ours(x), flaxs(x), rtol=1e-4, atol=1e-4)
    gradient = lambda module: jax.grad(lambda x: jnp.sum(jnp.sin(module(x))))(x)
    np.testing.assert_allclose(gradient(ours), gradient(flaxs), rtol=1e-3, atol=1e-4)


def test_pixel_normalisation_by_hand():
    norm = blocks.PixelNorm(2, rngs=nnx.Rngs(0))
    found = norm(jnp.array([3.0, 4.0]).reshape(1, 1, 1, 2))
    np.testing.assert_allclose(found.ravel(), np.array([3, 4]) / np.sqrt(12.5), rtol=1e-5)


def test_resizing_by_hand():
    x = jnp.arange(4.0).reshape(1, 2, 2, 1)
    np.testing.assert_array_equal(blocks.upsample(x)[0, :, :, 0], np.kron([[0, 1], [2, 3]], np.ones((2, 2))))
    deep = jnp.arange(8.0).reshape(1, 1, 2, 4)
    np.testing.assert_array_equal(blocks.depth_to_space(deep)[0, :, :, 0], [[0, 1, 4, 5], [2, 3, 6, 7]])


def test_dropout_keeps_the_mean():
    x = jnp.ones((200, 500))
    dropped = blocks.drop(x, 0.25, jax.random.key(0))
    assert set(np.unique(dropped)) == {0, np.float32(1 / 0.75)}
    assert float(dropped.mean()) == pytest.approx(1, abs=0.01)
    assert blocks.drop(x, 0.25, None) is x
    odd = blocks.drop(jnp.ones((300, 7)), 0.1, jax.random.key(1))  # 26 of 256
    assert set(np.unique(odd)) == {0, np.float32(256 / 230)} and 0.05 < float((odd == 0).mean()) < 0.15


@pytest.mark.parametrize(
    "options, message",
    [
        ({"channels": (8,) * 5}, r"channels=\(8, 8, 8, 8, 8\): 5 levels do not fit images of shape \(8, 8, 1\)"),
        ({"attention": (8,)}, r"attention=\(8,\): must be some of the factors \(1, 2\)"),
        ({"heads": 3}, r"heads=3: must divide channels=\(8, 16\)"),
        ({"norm": "batch"}, r"norm=batch: must be one of pixel, group"),
        ({"dropout": 1.0}, r"dropout=1\.0: must lie in \[0, 1\)"),
        ({"depth": 0}, r"depth=0: must be at least 1"),
        ({"image": (8,)}, r"do not fit images of shape \(8,\)"),
    ],
)
def test_refuses_what_cannot_be_built(options, message):
    with pytest.raises(ValueError, match=message):
        net(**options).init(jax.random.key(0))
