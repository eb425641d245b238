"""Encoders, decoders, and the pair of them that a VAE trains.

The boundary: float [B, H, W, C] goes in and becomes the mean and log-variance of a code, [B, Z] each; a code becomes
the parameters of a likelihood, a tuple of [B, H, W, C]. Labels come as int32 [B] and reach both sides.
"""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from generative.networks import blocks, classifiers

Activation = Callable[[jax.Array], jax.Array]


class Autoencoder(nnx.Module):
    """`encoder` and `decoder` around a code of `latent` dimensions; `classes` above 0 makes both conditional.

    `maps` and `shared` are the likelihood's: how many numbers each pixel and channel needs, and how many more are
    learned once for all pixels.
    """

    def __init__(
        self,
        *,
        encoder: Callable[..., Any],
        decoder: Callable[..., Any],
        latent: int,
        image: tuple[int, int, int],
        classes: int = 0,
        maps: int = 1,
        shared: int = 0,
        rngs: nnx.Rngs,
    ):
        if latent < 1:
            raise ValueError(f"latent={latent}: must be at least 1 dimension")
        height, width, channels = image
        self.image, self.latent, self.classes, self.maps, self.shared = image, latent, classes, maps, shared
        self.encoder = encoder(image=image, classes=classes, features=2 * latent, rngs=rngs)
        self.decoder = decoder(features=latent + classes, image=(height, width, maps * channels), rngs=rngs)
        for index in range(shared):
            setattr(self, f"shared{index}", nnx.Param(jnp.zeros(())))

    def encode(self, x: jax.Array, label: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
        """[B, H, W, C], [B] -> the code's mean and log-variance, [B, Z] each."""
        mean, log_variance = jnp.split(self.encoder(x, self._one_hot(label)), 2, axis=-1)
        return mean, log_variance

    def decode(self, code: jax.Array, label: jax.Array | None = None) -> tuple[jax.Array, ...]:
        """[B, Z], [B] -> the likelihood's parameters, each [B, H, W, C]."""
        hot = self._one_hot(label)
        out = self.decoder(code if hot is None else jnp.concatenate([code, hot], axis=-1))
        one_for_all = [getattr(self, f"shared{index}")[...] for index in range(self.shared)]
        parts = jnp.split(out, self.maps, axis=-1) if self.maps > 1 else [out]
        return (*parts, *(jnp.broadcast_to(value, parts[0].shape) for value in one_for_all))

    def _one_hot(self, label: jax.Array | None) -> jax.Array | None:
        return None if not self.classes else jax.nn.one_hot(label, self.classes)


class MLPEncoder(nnx.Module):
    """Dense layers over the flat picture, with the label beside it: [B, H, W, C] -> [B, features]."""

    def __init__(
        self,
        *,
        widths: tuple[int, ...] = (400,),
        activation: Activation = nnx.relu,
        image: tuple[int, int, int],
        classes: int,
        features: int,
        rngs: nnx.Rngs,
    ):
        self.mlp = MLP(sizes=(int(np.prod(image)) + classes, *widths, features), activation=activation, rngs=rngs)

    def __call__(self, x: jax.Array, hot: jax.Array | None) -> jax.Array:
        flat = x.reshape(x.shape[0], -1)
        return self.mlp(flat if hot is None else jnp.concatenate([flat, hot], axis=-1))


class MLPDecoder(nnx.Module):
    """Dense layers to every pixel: [B, features] -> [B, H, W, C]."""

    def __init__(
        self,
        *,
        widths: tuple[int, ...] = (400,),
        activation: Activation = nnx.relu,
        features: int,
        image: tuple[int, int, int],
        rngs: nnx.Rngs,
    ):
        self.image = image
        self.mlp = MLP(sizes=(features, *widths, int(np.prod(image))), activation=activation, rngs=rngs)

    def __call__(self, code: jax.Array) -> jax.Array:
        return self.mlp(code).reshape(-1, *self.image)


class MLP(nnx.Module):
    """Dense layers of `sizes`, the activation between them: [B, sizes[0]] -> [B, sizes[-1]]."""

    def __init__(self, *, sizes: tuple[int, ...], activation: Activation, rngs: nnx.Rngs):
        self.layers, self.activation = len(sizes) - 1, activation
        for index, (inward, outward) in enumerate(itertools.pairwise(sizes)):
            setattr(self, f"dense{index}", nnx.Linear(inward, outward, rngs=rngs))

    def __call__(self, x: jax.Array) -> jax.Array:
        for index in range(self.layers):
            x = getattr(self, f"dense{index}")(x if index == 0 else self.activation(x))
        return x


class ResNetEncoder(nnx.Module):
    """Convolutions of stride 2, each followed by residual blocks: [B, H, W, C] -> [B, features].

    The first layer adds a number for each label to its channels, so that all others see it.
    """

    def __init__(
        self,
        *,
        widths: tuple[int, ...] = (32, 64),  # of the stages; each halves height and width
        depth: int = 1,  # residual blocks of a stage
        image: tuple[int, int, int],
        classes: int,
        features: int,
        rngs: nnx.Rngs,
    ):
        channels = image[-1]
        self.stages, self.depth = len(widths), depth
        rows, columns = _coarsest(image, self.stages)
        self.label = nnx.Linear(classes, widths[0], use_bias=False, rngs=rngs) if classes else None
        for stage, (inward, outward) in enumerate(zip((channels, *widths), widths, strict=False)):
            setattr(self, f"down{stage}", blocks.conv(inward, outward, stride=2, rngs=rngs))
            for block in range(depth):
                setattr(self, f"block{stage}_{block}", classifiers.Block(outward, rngs=rngs))
        self.out = nnx.Linear(rows * columns * widths[-1], features, rngs=rngs)

    def __call__(self, x: jax.Array, hot: jax.Array | None) -> jax.Array:
        for stage in range(self.stages):
            x = getattr(self, f"down{stage}")(x)
            if stage == 0 and self.label is not None and hot is not None:
                x = x + self.label(hot)[:, None, None]
            for block in range(self.depth):
                x = getattr(self, f"block{stage}_{block}")(x)
        return self.out(nnx.relu(x).reshape(x.shape[0], -1))


class ResNetDecoder(nnx.Module):
    """The encoder's mirror, with sub-pixel convolutions: [B, features] -> [B, H, W, C]."""

    def __init__(
        self,
        *,
        widths: tuple[int, ...] = (32, 64),  # as the encoder's: the last one belongs to the smallest map
        depth: int = 1,
        features: int,
        image: tuple[int, int, int],
        rngs: nnx.Rngs,
    ):
        channels = image[-1]
        self.stages, self.depth = len(widths), depth
        self.coarsest = (*_coarsest(image, self.stages), widths[-1])
        self.entry = nnx.Linear(features, int(np.prod(self.coarsest)), rngs=rngs)
        for stage, (inward, outward) in enumerate(zip(widths, (channels, *widths), strict=False)):
            for block in range(depth):
                setattr(self, f"block{stage}_{block}", classifiers.Block(inward, rngs=rngs))
            setattr(self, f"up{stage}", blocks.conv(inward, 4 * outward, rngs=rngs))

    def __call__(self, code: jax.Array) -> jax.Array:
        x = self.entry(code).reshape(-1, *self.coarsest)
        for stage in reversed(range(self.stages)):
            for block in range(self.depth):
                x = getattr(self, f"block{stage}_{block}")(x)
            x = blocks.depth_to_space(getattr(self, f"up{stage}")(nnx.relu(x)))
        return x


def _coarsest(image: tuple[int, int, int], stages: int) -> tuple[int, int]:
    """Height and width after halving `stages` times."""
    if any(side % 2**stages for side in image[:2]):
        raise ValueError(
            f"widths: {stages} of them halve a picture of {image[0]} x {image[1]} pixels {stages} times, which does "
            "not come out even; give fewer widths"
        )
    return image[0] >> stages, image[1] >> stages
