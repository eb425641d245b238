"""Encoders and decoders: shapes, labels, and no image that touches another."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from core import network
from generative.networks import autoencoders


def mlp(widths: tuple[int, ...] = (400,), latent: int = 20):
    return functools.partial(
        autoencoders.Autoencoder,
        encoder=functools.partial(autoencoders.MLPEncoder, widths=widths),
        decoder=functools.partial(autoencoders.MLPDecoder, widths=widths[::-1]),
        latent=latent,
    )


def resnet(widths: tuple[int, ...] = (4, 8), latent: int = 3):
    return functools.partial(
        autoencoders.Autoencoder,
        encoder=functools.partial(autoencoders.ResNetEncoder, widths=widths),
        decoder=functools.partial(autoencoders.ResNetDecoder, widths=widths),
        latent=latent,
    )


def count(params) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize("classes", [0, 10])
@pytest.mark.parametrize(
    "make, image",
    [(mlp((16,)), (28, 28, 1)), (resnet(), (28, 28, 1)), (resnet((4, 8, 8)), (32, 32, 3)), (resnet(), (64, 64, 3))],
    ids=["mlp", "28", "32", "64"],
)
def test_shapes(make, image, classes: int):
    net = network.Network(make=make, sizes={"image": image, "classes": classes, "maps": 2, "shared": 1})
    params = jax.eval_shape(net.init, jax.random.key(0))
    x, label = jax.ShapeDtypeStruct((5, *image), jnp.float32), jax.ShapeDtypeStruct((5,), jnp.int32)
    mean, log_variance = jax.eval_shape(lambda p, x, y: net.bind(p).encode(x, y), params, x, label)
    latent = make.keywords["latent"]
    assert mean.shape == log_variance.shape == (5, latent)
    decoded = jax.eval_shape(lambda p, z, y: net.bind(p).decode(z, y), params, mean, label)
    assert [(part.shape, part.dtype) for part in decoded] == [((5, *image), jnp.float32)] * 3


def test_the_classic_sizes():
    """784-400-20: 784·400 + 400 + 400·40 + 40 one way, 20·400 + 400 + 400·784 + 784 the other."""
    sizes = {"image": (28, 28, 1), "classes": 0}
    assert count(jax.eval_shape(network.Network(make=mlp(), sizes=sizes).init, jax.random.key(0))) == 652_824
    iwae = network.Network(make=mlp((200, 200), latent=50), sizes=sizes)
    params = jax.eval_shape(iwae.init, jax.random.key(0))
    assert params["decoder"]["mlp"]["dense0"]["kernel"].shape == (50, 200)
    assert count(params) == 784 * 200 + 200 * 200 + 200 * 100 + 500 + 50 * 200 + 200 * 200 + 200 * 784 + 1184


def test_what_is_shared_is_one_number_for_all_pixels():
    made = mlp((2,))(image=(2, 2, 1), shared=1, rngs=nnx.Rngs(0))
    made.shared0[...] = jnp.float32(0.7)  # pyright: ignore
    _, scale = made.decode(jnp.zeros((3, 20)))
    np.testing.assert_allclose(scale, np.full((3, 2, 2, 1), 0.7), rtol=1e-6)


@pytest.mark.parametrize("make", [mlp((8,), latent=3), resnet((4,))], ids=["mlp", "resnet"])
def test_labels_reach_both_sides_and_images_never_meet(make):
    net = network.Network(make=make, sizes={"image": (4, 4, 1), "classes": 3})
    params = jax.jit(net.init)(jax.random.key(0))
    encode = jax.jit(lambda x, label: net.bind(params).encode(x, label)[0])
    decode = jax.jit(lambda code, label: net.bind(params).decode(code, label)[0])
    x = np.random.default_rng(0).normal(1, 1, (3, 4, 4, 1)).astype(np.float32)
    label, other = np.array([0, 1, 2]), np.array([0, 1, 1])
    code, changed = np.asarray(encode(x, label)), np.asarray(encode(x, other))
    np.testing.assert_array_equal(code[:2], changed[:2])
    assert (code[2] != changed[2]).any()
    picture, changed = np.asarray(decode(code, label)), np.asarray(decode(code, other))
    np.testing.assert_array_equal(picture[:2], changed[:2])
    assert (picture[2] != changed[2]).any()
    np.testing.assert_allclose(code[1:2], encode(x[1:2], label[1:2]), rtol=1e-5, atol=1e-6)


def test_refuses_what_cannot_work():
    with pytest.raises(ValueError, match=r"latent=0: must be at least 1 dimension"):
        mlp(latent=0)(image=(4, 4, 1), rngs=nnx.Rngs(0))
    with pytest.raises(
        ValueError, match=r"widths: 3 of them halve a picture of 28 x 28 pixels 3 times, which does not"
    ):
        resnet((4, 4, 4))(image=(28, 28, 1), rngs=nnx.Rngs(0))
