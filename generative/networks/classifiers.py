"""Classifiers of images: uint8 [B, H, W, C] -> logits [B, classes], and `features` [B, D], the layer before them.

Bytes are brought to [-1, 1] inside. Nothing here couples the images of a batch.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from generative import pixels
from generative.networks import blocks


class MLP(nnx.Module):
    """Dense layers with ReLU; by default the classic 784-512-10. D is the last width."""

    def __init__(self, *, image: tuple[int, ...], classes: int, widths: tuple[int, ...] = (512,), rngs: nnx.Rngs):
        _require("MLP", image, classes, at_least=1)
        if not widths:
            raise ValueError("widths=(): a classifier has at least one hidden layer, its features")
        sizes = (int(np.prod(image)), *widths)
        self.layers = len(widths)
        for index, (inward, outward) in enumerate(zip(sizes, widths, strict=False)):
            setattr(self, f"dense{index}", nnx.Linear(inward, outward, rngs=rngs))
        self.out = nnx.Linear(sizes[-1], classes, dtype=jnp.float32, rngs=rngs)

    def features(self, image: jax.Array) -> jax.Array:
        x = pixels.signed(image).reshape(image.shape[0], -1)
        for index in range(self.layers):
            x = nnx.relu(getattr(self, f"dense{index}")(x))
        return x

    def __call__(self, image: jax.Array) -> jax.Array:
        return self.out(self.features(image))


class LeNet(nnx.Module):
    """LeNet-5 (LeCun et al. 1998) with ReLU and max-pooling: 61,706 parameters at 28 x 28 x 1, D = 84."""

    def __init__(self, *, image: tuple[int, ...], classes: int, rngs: nnx.Rngs):
        _require("LeNet", image, classes, at_least=12)
        side = lambda size: -(-(-(-size // 2) - 4) // 2)  # halved, less the border of 5 x 5, halved
        flat = side(image[0]) * side(image[1]) * 16
        self.conv1 = blocks.conv(image[2], 6, 5, rngs=rngs)
        self.conv2 = blocks.conv(6, 16, 5, padding="VALID", rngs=rngs)
        self.dense1 = nnx.Linear(flat, 120, rngs=rngs)
        self.dense2 = nnx.Linear(120, 84, rngs=rngs)
        self.out = nnx.Linear(84, classes, dtype=jnp.float32, rngs=rngs)

    def features(self, image: jax.Array) -> jax.Array:
        x = _halve(nnx.relu(self.conv1(pixels.signed(image))))
        x = _halve(nnx.relu(self.conv2(x))).reshape(image.shape[0], -1)
        return nnx.relu(self.dense2(nnx.relu(self.dense1(x))))

    def __call__(self, image: jax.Array) -> jax.Array:
        return self.out(self.features(image))


class ResNet(nnx.Module):
    """Residual stages without normalisation, then the mean over the picture: D is the last width.

    Each stage halves the picture before its first convolution: the first by taking 2 x 2 pixels for one with four times
    the channels, the others by maxima. A block's second convolution starts at zero, so that the net begins as its
    shortcuts and needs no normalisation (2002.10444).
    """

    def __init__(
        self,
        *,
        image: tuple[int, ...],
        classes: int,
        widths: tuple[int, ...] = (32, 64, 128),
        depth: int = 1,  # blocks of a stage
        rngs: nnx.Rngs,
    ):
        _require("ResNet", image, classes, at_least=2 ** len(widths))
        if not widths or depth < 1:
            raise ValueError(f"widths={widths}, depth={depth}: a ResNet has at least one stage of one block")
        self.stages, self.depth = len(widths), depth
        for stage, (inward, outward) in enumerate(zip((4 * image[2], *widths), widths, strict=False)):
            setattr(self, f"entry{stage}", blocks.conv(inward, outward, rngs=rngs))
            for block in range(depth):
                setattr(self, f"block{stage}_{block}", Block(outward, rngs=rngs))
        self.out = nnx.Linear(widths[-1], classes, dtype=jnp.float32, rngs=rngs)

    def features(self, image: jax.Array) -> jax.Array:
        x = pixels.signed(image)
        for stage in range(self.stages):
            x = getattr(self, f"entry{stage}")(_halve(x) if stage else blocks.space_to_depth(x))
            for block in range(self.depth):
                x = getattr(self, f"block{stage}_{block}")(x)
        return jnp.mean(nnx.relu(x), axis=(1, 2))

    def __call__(self, image: jax.Array) -> jax.Array:
        return self.out(self.features(image))


class Block(nnx.Module):
    """x + conv(relu(conv(relu(x)))): [B, H, W, width] -> the same."""

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        self.conv1 = blocks.conv(width, width, rngs=rngs)
        self.conv2 = blocks.conv(width, width, zero=True, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return x + self.conv2(nnx.relu(self.conv1(nnx.relu(x))))


def _halve(x: jax.Array) -> jax.Array:
    """The largest of each 2 x 2 pixels. A maximum over axes: on a CPU a pooling window's gradient is slower."""
    return jnp.max(blocks.squares(x), axis=(2, 4))


def _require(name: str, image: tuple[int, ...], classes: int, *, at_least: int) -> None:
    if classes < 2:
        raise ValueError(
            f"classes={classes}: {name} tells classes apart and these images have no labels; "
            "use a source with labels (source=fashion_mnist), or an .npz that has `label`"
        )
    if len(image) != 3 or min(image[:2]) < at_least:
        raise ValueError(
            f"image={image}: {name} needs [H, W, C] of at least {at_least} x {at_least} pixels; use "
            "network=classifier_mlp for smaller ones"
        )
