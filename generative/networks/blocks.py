"""What networks on images are made of. Channels are last: x is [B, H, W, C], and a vector of conditions is [B, D]."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from core import convolution


def conv(
    inward: int, outward: int, size: int = 3, *, stride: int = 1, zero: bool = False, rngs: nnx.Rngs, **options: Any
) -> nnx.Conv:
    """A square convolution, padded to keep H and W (their `stride`-th part). `zero`: a kernel that starts as zeros."""
    if zero:
        options["kernel_init"] = nnx.initializers.zeros_init()
    return nnx.Conv(
        inward,
        outward,
        (size, size),
        strides=stride,
        conv_general_dilated=convolution.conv_general_dilated,
        rngs=rngs,
        **options,
    )


def conv_transpose(inward: int, outward: int, *, rngs: nnx.Rngs) -> nnx.Conv:
    """A transposed convolution of 4 x 4 and stride 2: [B, H, W, I] -> [B, 2H, 2W, O], each pixel made by 2 x 2."""
    init = nnx.initializers.variance_scaling(2 * 4, "fan_in", "truncated_normal")  # He's, for a quarter of the taps
    return conv(inward, outward, 4, padding=((2, 2), (2, 2)), input_dilation=2, kernel_init=init, rngs=rngs)


def dense(inward: int, outward: int, *, zero: bool = False, rngs: nnx.Rngs) -> nnx.Linear:
    """`zero`: a kernel that starts as zeros, so that a residual branch starts as nothing."""
    init = nnx.initializers.zeros_init() if zero else nnx.initializers.xavier_uniform()
    return nnx.Linear(inward, outward, kernel_init=init, rngs=rngs)


def upsample(x: jax.Array) -> jax.Array:
    """Every pixel four times: [B, H, W, C] -> [B, 2H, 2W, C]."""
    batch, height, width, channels = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None], (batch, height, 2, width, 2, channels))
    return x.reshape(batch, 2 * height, 2 * width, channels)


def depth_to_space(x: jax.Array) -> jax.Array:
    """Four channels become four pixels: [B, H, W, 4C] -> [B, 2H, 2W, C]."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height, width, 2, 2, channels // 4).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, 2 * height, 2 * width, channels // 4)


def space_to_depth(x: jax.Array) -> jax.Array:
    """Undoes `depth_to_space`; an odd last row or column is doubled: [B, H, W, C] -> [B, H/2, W/2, 4C], rounded up."""
    x = squares(x).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(*x.shape[:3], -1)


def squares(x: jax.Array) -> jax.Array:
    """[B, H, W, C] -> [B, H/2, 2, W/2, 2, C], rounded up; an odd last row or column is doubled."""
    batch, height, width, channels = x.shape
    x = jnp.pad(x, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return x.reshape(batch, x.shape[1] // 2, 2, x.shape[2] // 2, 2, channels)


def drop(x: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    """Dropout by a key; without one, x itself. Each value has one byte of chance: rates are rounded to 256ths."""
    if key is None or rate == 0:
        return x
    kept = max(1, 256 - round(256 * rate))
    # Whole words, cut into bytes here: `random.bits` would make a word for each.
    words = jax.random.bits(key, (*x.shape[:-1], -(-x.shape[-1] // 4)))
    chance = jax.lax.bitcast_convert_type(words, jnp.uint8).reshape(*x.shape[:-1], -1)[..., : x.shape[-1]]
    return jnp.where(chance < kept, x * (256 / kept), 0)


def attend(qkv: jax.Array, heads: int) -> jax.Array:
    """Self-attention of N tokens: [B, N, 3D] -> [B, N, D]."""
    batch, tokens, width = qkv.shape
    features = width // 3 // heads
    # Tokens and features last, before the products: on a CPU 1.4 times as quick as `jax.nn.dot_product_attention`.
    query, key, value = qkv.reshape(batch, tokens, 3, heads, features).transpose(2, 0, 3, 1, 4)
    score = jnp.einsum("bhnd,bhmd->bhnm", query * features**-0.5, key, preferred_element_type=jnp.float32)
    mixed = jnp.einsum("bhnm,bhmd->bhnd", jax.nn.softmax(score, axis=-1).astype(value.dtype), value)
    return mixed.transpose(0, 2, 1, 3).reshape(batch, tokens, width // 3)


class PixelNorm(nnx.Module):
    """RMS normalisation of each pixel over its channels (2312.02696): nothing is learned, and no sum crosses pixels."""

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        del channels, rngs

    def __call__(self, x: jax.Array) -> jax.Array:
        square = jnp.mean(jnp.square(x.astype(jnp.float32)), axis=-1, keepdims=True)
        gain = jax.lax.rsqrt(square + 1e-6).astype(x.dtype)
        if convolution.on_cpu():
            # XLA:CPU gives a sum, and all that surrounds it, to kernels that are slow at what surrounds it.
            x, gain = jax.lax.optimization_barrier((x, gain))
        return x * gain


class GroupNorm(nnx.Module):
    """Group normalisation (1803.08494) over H, W and C / groups, with a gain and a shift of each channel."""

    def __init__(self, channels: int, *, groups: int = 32, rngs: nnx.Rngs):
        self.groups = int(np.gcd(groups, channels))
        self.scale = nnx.Param(jnp.ones((channels,)))
        self.bias = nnx.Param(jnp.zeros((channels,)))

    def __call__(self, x: jax.Array) -> jax.Array:
        # The sums of x and x² by channel come first: one pass over x, and all that follows is [B, C].
        by_group = lambda sums: jnp.mean(sums.reshape(-1, self.groups, sums.shape[-1] // self.groups), axis=-1)
        back = lambda groups: jnp.repeat(groups, x.shape[-1] // self.groups, axis=-1)
        mean = by_group(jnp.mean(x, axis=(1, 2), dtype=jnp.float32))
        square = by_group(jnp.mean(jnp.square(x.astype(jnp.float32)), axis=(1, 2)))
        gain = back(jax.lax.rsqrt(jnp.maximum(square - mean * mean, 0) + 1e-5)) * self.scale[...][None]
        shift = self.bias[...][None] - back(mean) * gain
        return x * gain[:, None, None].astype(x.dtype) + shift[:, None, None].astype(x.dtype)


class Conditions(nnx.Module):
    """A noise level and a label as one vector: noise [B] float32, label [B] int32 or None -> [B, width].

    Labels are 0..classes-1; `classes` itself, like None, says that there is none.
    """

    def __init__(self, width: int, *, classes: int, frequencies: int = 64, rngs: nnx.Rngs):
        self.frequencies = frequencies
        self.classes = classes
        self.dense1 = dense(2 * frequencies, width, rngs=rngs)
        self.dense2 = dense(width, width, rngs=rngs)
        if classes:
            self.label = nnx.Embed(classes + 1, width, embedding_init=nnx.initializers.normal(0.02), rngs=rngs)

    def __call__(self, noise: jax.Array, label: jax.Array | None) -> jax.Array:
        x = self.dense2(nnx.silu(self.dense1(waves(noise, self.frequencies))))
        if not self.classes:
            return x
        return x + self.label(jnp.full(noise.shape, self.classes) if label is None else label)


def waves(value: jax.Array, count: int, *, slowest: float = 0.1, fastest: float = 10.0) -> jax.Array:
    """Cosines and sines of value [B] of about unit size, at `count` frequencies in cycles a unit: [B, 2 count]."""
    angles = value[:, None] * np.geomspace(2 * np.pi * slowest, 2 * np.pi * fastest, count, dtype=np.float32)[None]
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)
