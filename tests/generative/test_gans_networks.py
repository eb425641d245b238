"""Generators and discriminators: shapes at every size, claims about convolutions, labels, images kept apart."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from core import network
from generative.networks import blocks, gans

PAIRS = {
    "dcgan": (functools.partial(gans.DCGANGenerator, width=4), functools.partial(gans.DCGANDiscriminator, width=4)),
    "resnet": (
        functools.partial(gans.ResNetGenerator, widths=(4, 8), depth=1),
        functools.partial(gans.ResNetDiscriminator, widths=(4, 8), depth=1),
    ),
}
pairs = pytest.mark.parametrize("pair", PAIRS)


def players(pair: str, *, image=(8, 8, 1), classes=0):
    return [network.Network(make=make, sizes={"image": image, "classes": classes}) for make in PAIRS[pair]]


@pairs
@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("image", [(28, 28, 1), (32, 32, 3), (64, 64, 3), (21, 17, 1)])
def test_every_size_is_made_and_judged(pair, classes, image):
    generator, discriminator = players(pair, image=image, classes=classes)
    params = [jax.eval_shape(player.init, jax.random.key(0)) for player in (generator, discriminator)]
    label = jax.ShapeDtypeStruct((5,), jnp.int32)
    z = jax.ShapeDtypeStruct((5, generator.bind(params[0]).latent), jnp.float32)
    drawn = jax.eval_shape(lambda p, z, y: generator.bind(p)(z, y if classes else None), params[0], z, label)
    assert (drawn.shape, drawn.dtype) == ((5, *image), jnp.float32)
    logit = jax.eval_shape(lambda p, x, y: discriminator.bind(p)(x, y if classes else None), params[1], drawn, label)
    assert (logit.shape, logit.dtype) == ((5,), jnp.float32)


def test_the_nets_of_wgan_gp_have_its_sizes():
    generator, discriminator = (
        network.Network(make=make, sizes={"image": (28, 28, 1), "classes": 0})
        for make in (gans.DCGANGenerator, gans.DCGANDiscriminator)
    )
    shapes = [jax.eval_shape(player.init, jax.random.key(0)) for player in (generator, discriminator)]
    assert shapes[0]["entry"]["dense"]["kernel"].shape == (128, 7 * 7 * 128)
    assert shapes[0]["up1"]["kernel"].shape == (4, 4, 128, 64)
    assert shapes[0]["up0"]["kernel"].shape == (4, 4, 64, 1)
    assert shapes[1]["down0"]["kernel"].shape == (4, 4, 1, 64)
    assert shapes[1]["down1"]["kernel"].shape == (4, 4, 64, 128)


def test_a_transposed_convolution_is_laxs():
    layer = blocks.conv_transpose(3, 5, rngs=nnx.Rngs(0))
    assert layer.bias is not None
    layer.bias[...] = jnp.arange(5.0)
    x = jax.random.normal(jax.random.key(0), (2, 6, 5, 3))
    wanted = lax.conv_transpose(x, layer.kernel[...], (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    assert wanted.shape == (2, 12, 10, 5)
    np.testing.assert_allclose(layer(x), np.asarray(wanted) + np.arange(5), rtol=1e-5, atol=1e-5)


def test_four_pixels_become_channels_and_back():
    x = jax.random.normal(jax.random.key(0), (2, 6, 4, 3))
    np.testing.assert_array_equal(blocks.depth_to_space(blocks.space_to_depth(x)), x)
    odd = blocks.space_to_depth(x[:, :5, :3])
    assert odd.shape == (2, 3, 2, 12)
    np.testing.assert_array_equal(blocks.depth_to_space(odd)[:, :5, :3], x[:, :5, :3])


def test_halving_takes_the_mean_of_four_pixels():
    x = jnp.arange(8.0).reshape(1, 2, 4, 1)
    np.testing.assert_array_equal(gans._halve(x)[0, :, :, 0], [[(0 + 1 + 4 + 5) / 4, (2 + 3 + 6 + 7) / 4]])
    assert gans._halve(jnp.ones((1, 5, 3, 2))).shape == (1, 3, 2, 2)


def live(player):
    """(the function, compiled, its parameters without zeros so that every path counts; the module)."""
    params = jax.jit(player.init)(jax.random.key(0))
    params = jax.tree.map(lambda leaf: leaf + 0.1 * np.random.default_rng(0).normal(size=leaf.shape), params)
    module = player.bind(params)
    return jax.jit(lambda *inputs: player.bind(params)(*inputs)), module


@pairs
def test_nothing_couples_the_images_of_a_batch(pair):
    """Pitfall 14."""
    generator, discriminator = players(pair)
    (drawn, module), (judged, _) = live(generator), live(discriminator)
    z = jax.random.normal(jax.random.key(2), (4, module.latent))
    images = drawn(z)
    np.testing.assert_allclose(images[1:2], drawn(z[1:2]), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(judged(images)[1:2], judged(images[1:2]), rtol=1e-4, atol=1e-5)
    assert len(set(np.asarray(judged(images)).tolist())) == 4


@pairs
def test_labels_reach_both_players(pair):
    generator, discriminator = players(pair, classes=3)
    (drawn, module), (judged, _) = live(generator), live(discriminator)
    z = jnp.ones((3, module.latent))
    images = drawn(z, jnp.array([0, 1, 1]))
    assert (images[0] != images[1]).any() and (images[1] == images[2]).all()
    same = jnp.repeat(images[:1], 3, axis=0)
    logits = np.asarray(judged(same, jnp.array([0, 2, 2])))
    assert logits[0] != logits[1] and logits[1] == logits[2]


def test_a_label_is_projected_on_the_features():
    exit_ = gans._Exit(3, 2, rngs=nnx.Rngs(0))
    x = jnp.array([[1.0, 2.0, -1.0]])
    plain = (x @ exit_.dense.kernel[...])[:, 0]
    for label in (0, 1):
        np.testing.assert_allclose(exit_(x, jnp.array([label])), plain + x @ exit_.label.embedding[label], rtol=1e-6)


def test_a_residual_block_starts_as_nothing():
    block, x = gans.Bottleneck(6, rngs=nnx.Rngs(0)), jax.random.normal(jax.random.key(0), (2, 4, 4, 6))
    np.testing.assert_array_equal(block(x), x)


def test_refuses_what_cannot_be():
    for make, message in [
        (functools.partial(gans.DCGANGenerator, image=(7, 7, 1), classes=0), r"image=\(7, 7, 1\): must be more than 7"),
        (functools.partial(gans.DCGANGenerator, image=(8, 8, 1), classes=0, latent=0), "latent=0"),
        (functools.partial(gans.ResNetGenerator, image=(8, 8, 1), classes=0, widths=()), r"widths=\(\)"),
        (functools.partial(gans.ResNetDiscriminator, image=(8, 8, 1), classes=0, widths=(1,)), r"widths=\(1,\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            make(rngs=nnx.Rngs(0))
