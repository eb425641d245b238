"""Generators and discriminators of GANs, without normalisation: nothing couples the images of a batch.

A generator maps z [B, Z] (standard normal) to images [B, H, W, C] in [-1, 1]; a discriminator maps such images to
logits [B]. With `classes` above 0 both take labels int32 [B]: the generator beside z, as an embedding; the
discriminator by projection (1802.05637): its features times the label's embedding join the logit.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

from generative.networks import blocks

SMALLEST = 7  # pixels a side, about: pictures are halved until they are no larger
leaky = functools.partial(nnx.leaky_relu, negative_slope=0.2)
_he = nnx.initializers.variance_scaling(2 / 1.04, "fan_in", "truncated_normal")  # keeps the scale under `leaky`


class DCGANGenerator(nnx.Module):
    """One dense layer, then transposed convolutions with ReLU, each twice the size and half the channels, and tanh.

    The shape of DCGAN (1511.06434) and of WGAN-GP's nets for 28 x 28: `width` channels before the last convolution.
    Kernels are of 4 x 4, as in DCGAN's code, whose stride divides them: every pixel is made by as many taps.
    """

    def __init__(
        self, *, image: tuple[int, int, int], classes: int, latent: int = 128, width: int = 64, rngs: nnx.Rngs
    ):
        self.latent, self.image, self.sizes = latent, image, _halvings(image)
        levels = len(self.sizes) - 1
        channels = [image[-1], *(width * 2**level for level in range(levels))]
        self.entry = _Entry(latent, classes, (*self.sizes[-1], channels[-1]), rngs=rngs)
        for level in reversed(range(levels)):
            layer = blocks.conv_transpose(channels[level + 1], channels[level], rngs=rngs)
            setattr(self, f"up{level}", layer)

    def __call__(self, z: jax.Array, label: jax.Array | None = None) -> jax.Array:
        x = self.entry(z, label)
        for level in reversed(range(len(self.sizes) - 1)):
            x = _crop(getattr(self, f"up{level}")(nnx.relu(x)), self.sizes[level])
        return jnp.tanh(x)


class DCGANDiscriminator(nnx.Module):
    """Convolutions of 4 x 4 and stride 2 with leaky ReLU, each half the size and twice the channels, then one logit."""

    def __init__(self, *, image: tuple[int, int, int], classes: int, width: int = 64, rngs: nnx.Rngs):
        self.levels = len(_halvings(image)) - 1
        channels = [image[-1], *(width * 2**level for level in range(self.levels))]
        for level in range(self.levels):
            layer = blocks.conv(channels[level], channels[level + 1], 4, stride=2, rngs=rngs, kernel_init=_he)
            setattr(self, f"down{level}", layer)
        rows, columns = _halvings(image)[-1]
        self.out = _Exit(rows * columns * channels[-1], classes, rngs=rngs)

    def __call__(self, image: jax.Array, label: jax.Array | None = None) -> jax.Array:
        x = image
        for level in range(self.levels):
            x = leaky(getattr(self, f"down{level}")(x))
        return self.out(x.reshape(x.shape[0], -1), label)


class ResNetGenerator(nnx.Module):
    """R3GAN's generator (2501.05441), scaled down: residual stages without normalisation, a linear output.

    `widths` are the channels of the stages, from the largest pictures to the smallest. There is no stage at full size:
    the last convolution makes four pixels at once.
    """

    def __init__(
        self,
        *,
        image: tuple[int, int, int],
        classes: int,
        latent: int = 64,
        widths: tuple[int, ...] = (64, 128),
        depth: int = 2,  # blocks of a stage
        rngs: nnx.Rngs,
    ):
        self.latent, self.depth, self.stages, self.sizes = latent, depth, len(widths), _stages(image, widths)
        self.entry = _Entry(latent, classes, (*self.sizes[-1], widths[-1]), rngs=rngs)
        for stage in reversed(range(self.stages)):
            for block in range(depth):
                setattr(self, f"block{stage}_{block}", Bottleneck(widths[stage], rngs=rngs))
            if stage:
                change = blocks.conv(widths[stage], widths[stage - 1], 1, rngs=rngs, use_bias=False)
                setattr(self, f"change{stage}", change)
        self.out = blocks.conv(widths[0], 4 * image[-1], rngs=rngs)

    def __call__(self, z: jax.Array, label: jax.Array | None = None) -> jax.Array:
        x = self.entry(z, label)
        for stage in reversed(range(self.stages)):
            for block in range(self.depth):
                x = getattr(self, f"block{stage}_{block}")(x)
            if stage:
                x = _crop(blocks.upsample(getattr(self, f"change{stage}")(x)), self.sizes[stage])
        return _crop(blocks.depth_to_space(self.out(x)), self.sizes[0])


class ResNetDiscriminator(nnx.Module):
    """The generator's mirror image, which takes four pixels at once."""

    def __init__(
        self,
        *,
        image: tuple[int, int, int],
        classes: int,
        widths: tuple[int, ...] = (64, 128),
        depth: int = 2,
        rngs: nnx.Rngs,
    ):
        rows, columns = _stages(image, widths)[-1]
        self.depth, self.stages = depth, len(widths)
        self.entry = blocks.conv(4 * image[-1], widths[0], rngs=rngs)
        for stage in range(self.stages):
            if stage:
                change = blocks.conv(widths[stage - 1], widths[stage], 1, rngs=rngs, use_bias=False)
                setattr(self, f"change{stage}", change)
            for block in range(depth):
                setattr(self, f"block{stage}_{block}", Bottleneck(widths[stage], rngs=rngs))
        self.out = _Exit(rows * columns * widths[-1], classes, rngs=rngs)

    def __call__(self, image: jax.Array, label: jax.Array | None = None) -> jax.Array:
        x = self.entry(blocks.space_to_depth(image))
        for stage in range(self.stages):
            if stage:
                x = getattr(self, f"change{stage}")(_halve(x))
            for block in range(self.depth):
                x = getattr(self, f"block{stage}_{block}")(x)
        return self.out(leaky(x).reshape(x.shape[0], -1), label)


class Bottleneck(nnx.Module):
    """x plus 1 x 1 to half the channels, 3 x 3, 1 x 1 back, which starts at zero: R3GAN's block.

    R3GAN has more channels inside, convolved in groups; XLA has no fast kernels for groups on a CPU.
    """

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        self.narrow = blocks.conv(width, width // 2, 1, rngs=rngs, kernel_init=_he)
        self.middle = blocks.conv(width // 2, width // 2, rngs=rngs, kernel_init=_he)
        self.widen = blocks.conv(width // 2, width, 1, zero=True, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return x + self.widen(leaky(self.middle(leaky(self.narrow(leaky(x))))))


class _Entry(nnx.Module):
    """z [B, Z], and a label's embedding of as many numbers, -> [B, *shape]."""

    def __init__(self, latent: int, classes: int, shape: tuple[int, int, int], *, rngs: nnx.Rngs):
        if latent < 1:
            raise ValueError(f"latent={latent}: must be at least 1")
        self.shape, self.classes = shape, classes
        if classes:
            self.label = nnx.Embed(classes, latent, embedding_init=nnx.initializers.normal(1.0), rngs=rngs)
        self.dense = nnx.Linear(2 * latent if classes else latent, shape[0] * shape[1] * shape[2], rngs=rngs)

    def __call__(self, z: jax.Array, label: jax.Array | None) -> jax.Array:
        if self.classes:
            assert label is not None
            z = jnp.concatenate([z, self.label(label)], axis=-1)
        return self.dense(z).reshape(-1, *self.shape)


class _Exit(nnx.Module):
    """Features [B, F] -> logits [B], with the label's embedding projected on them."""

    def __init__(self, features: int, classes: int, *, rngs: nnx.Rngs):
        self.classes = classes
        self.dense = nnx.Linear(features, 1, dtype=jnp.float32, rngs=rngs)
        if classes:
            init = nnx.initializers.normal(features**-0.5)
            self.label = nnx.Embed(classes, features, embedding_init=init, rngs=rngs)

    def __call__(self, x: jax.Array, label: jax.Array | None) -> jax.Array:
        logit = self.dense(x)[:, 0]
        if self.classes:
            assert label is not None
            logit += jnp.sum(x * self.label(label), axis=-1)
        return logit


def _halvings(image: tuple[int, int, int]) -> tuple[tuple[int, int], ...]:
    """(H, W) from the full size down: 28 x 28 gives 28, 14, 7."""
    count = 0
    while -(-max(image[:2]) // 2**count) > SMALLEST:
        count += 1
    if not count:
        raise ValueError(f"image={image}: must be more than {SMALLEST} pixels a side")
    return _sizes(image, count)


def _stages(image: tuple[int, int, int], widths: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """(H, W) in full, and of each stage from the largest pictures down."""
    if not widths or any(width < 2 for width in widths):
        raise ValueError(f"widths={widths}: at least one stage, of 2 channels or more")
    return _sizes(image, len(widths))


def _sizes(image: tuple[int, int, int], halvings: int) -> tuple[tuple[int, int], ...]:
    return tuple((-(-image[0] // 2**count), -(-image[1] // 2**count)) for count in range(halvings + 1))


def _crop(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Drops the last row and column where pictures of odd sizes were doubled from one pixel too many."""
    return x[:, : size[0], : size[1]]


def _halve(x: jax.Array) -> jax.Array:
    """The mean of four pixels: [B, H, W, C] -> [B, H/2, W/2, C], rounded up."""
    batch, height, width, channels = x.shape
    x = jnp.pad(x, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))
    return jnp.mean(x.reshape(batch, -(-height // 2), 2, -(-width // 2), 2, channels), axis=(2, 4))
