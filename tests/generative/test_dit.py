"""The transformer on patches."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from core import network
from generative.networks import blocks, dit

IMAGE = (8, 12, 2)


@functools.cache
def net(image=IMAGE, classes=3, **options) -> network.Network:
    options = {"patch": 4, "width": 32, "depth": 2, "heads": 2} | options
    return network.Network(make=functools.partial(dit.DiT, **options), sizes={"image": image, "classes": classes})


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


def test_it_begins_with_zeros_and_depends_on_all_it_is_given():
    model, x, label = net(), pictures(3, 8, 12, 2), jnp.array([0, 1, 2])
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


def test_a_block_begins_as_the_identity():
    """adaLN-zero: its gates are closed at first, whatever the rest of it says."""
    from flax import nnx

    block = dit.Block(16, heads=2, expansion=4, dropout=0.0, rngs=nnx.Rngs(0))
    tokens = pictures(2, 6, 16)
    np.testing.assert_array_equal(block(tokens, pictures(2, 16), None), tokens)


def test_every_patch_sees_every_other_and_knows_its_place():
    model, x = net(), pictures(1, 8, 12, 2)
    moved = np.abs(outputs(model, x.at[0, 0, 0].add(1)) - outputs(model, x))
    assert (moved.max(axis=(0, 3)) > 0).all()
    swapped = outputs(model, jnp.concatenate([x[:, 4:], x[:, :4]], axis=1))
    assert not np.allclose(swapped[:, 4:], outputs(model, x)[:, :4], atol=1e-3)


def test_nothing_couples_the_images_of_a_batch():
    model, x = net(), pictures(4, 8, 12, 2)
    np.testing.assert_allclose(outputs(model, x[1:3]), outputs(model, x)[1:3], rtol=1e-4, atol=1e-4)


def test_bfloat16_is_the_same_less_precisely():
    model, x = net(), pictures(2, 8, 12, 2)
    exact, found = outputs(model, x), outputs(dataclasses.replace(model, compute="bfloat16"), x)
    assert 0 < np.abs(found - exact).max() < 0.1 * np.abs(exact).max()


def test_dropout_needs_a_key_and_only_then_drops():
    x = pictures(2, 8, 12, 2)
    plain, dropping = net(), net(dropout=0.5)
    np.testing.assert_array_equal(outputs(dropping, x), outputs(plain, x))
    one, other = (outputs(dropping, x, key=jax.random.key(seed)) for seed in (0, 1))
    assert (one != other).any() and (one != outputs(plain, x)).any()


def test_patches_are_squares_row_by_row_and_come_back():
    x = jnp.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3)
    cut = dit.patches(x, 2)
    assert cut.shape == (2, 6, 12)
    np.testing.assert_array_equal(cut[1, 4].reshape(2, 2, 3), x[1, 2:4, 2:4])
    np.testing.assert_array_equal(dit.from_patches(cut, (4, 6, 3), 2), x)


def test_layer_normalisation_by_hand():
    tokens = jnp.array([1.0, 2.0, 3.0, 6.0]).reshape(1, 1, 4)
    found = dit.modulated(tokens, jnp.full((1, 4), 0.5), jnp.full((1, 4), 1.0))
    np.testing.assert_allclose(found.ravel(), 2 * (np.array([1, 2, 3, 6]) - 3) / np.sqrt(3.5) + 0.5, rtol=1e-5)


@pytest.mark.parametrize("heads", [1, 4])
def test_attention_by_hand(heads):
    """Value and gradient of softmax(q kᵀ / √d) v, head by head."""
    qkv = pictures(3, 5, 24)

    def by_hand(qkv):
        found = []
        for part in range(heads):
            d = 8 // heads
            q, k, v = (qkv[..., 8 * which + part * d : 8 * which + (part + 1) * d] for which in range(3))
            found.append(jax.nn.softmax(q @ k.swapaxes(1, 2) / np.sqrt(d), axis=-1) @ v)
        return jnp.concatenate(found, axis=-1)

    @functools.partial(jax.jit, static_argnums=0)
    def value_and_gradient(f, qkv):
        return f(qkv), jax.grad(lambda x: jnp.sum(jnp.sin(f(x))))(qkv)

    found, moved = value_and_gradient(lambda x: blocks.attend(x, heads), qkv)
    expected, wanted = value_and_gradient(by_hand, qkv)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(moved, wanted, rtol=1e-3, atol=1e-5)


def test_the_default_has_the_size_of_the_reference():
    model = network.Network(make=dit.DiT, sizes={"image": (28, 28, 1), "classes": 10})
    count = sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(model.init, jax.random.key(0))))
    assert 7.2e6 < count < 7.5e6


@pytest.mark.parametrize(
    "options, message",
    [
        ({"patch": 5}, r"patch=5: does not divide images of shape \(8, 12, 2\)"),
        ({"heads": 5}, r"heads=5: must divide width=32"),
        ({"dropout": 1.0}, r"dropout=1\.0: must lie in \[0, 1\)"),
    ],
)
def test_refuses_what_cannot_be_built(options, message):
    with pytest.raises(ValueError, match=message):
        net(**options).init(jax.random.key(0))
