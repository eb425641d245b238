"""A transformer on patches (DiT, 2212.09748): for diffusion, and for whatever else maps noisy images to images.

Its work is matrix products, which is what CPUs are quick at: patches are cut by a reshape, not by a convolution.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from generative.networks import blocks


class DiT(nnx.Module):
    """(x float32 [B, H, W, C], noise [B], label [B] or None) -> [B, H, W, C], zeros at first.

    Labels are 0..classes-1; `classes` itself, like None, says that there is none.
    """

    def __init__(
        self,
        *,
        image: tuple[int, ...],
        classes: int,
        patch: int = 4,
        width: int = 256,
        depth: int = 6,
        heads: int = 4,
        expansion: int = 4,
        dropout: float = 0.0,
        rngs: nnx.Rngs,
    ):
        if len(image) != 3 or image[0] % patch or image[1] % patch:
            raise ValueError(f"patch={patch}: does not divide images of shape {image} into squares")
        if width % heads:
            raise ValueError(f"heads={heads}: must divide width={width}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout={dropout}: must lie in [0, 1)")
        self.image, self.patch, self.depth = tuple(image), patch, depth
        rows, columns = image[0] // patch, image[1] // patch
        values = patch * patch * image[2]
        self.embed = blocks.dense(values, width, rngs=rngs)
        self.position = nnx.Param(_positions(rows, columns, width))
        self.conditions = blocks.Conditions(width, classes=classes, rngs=rngs)
        for index in range(depth):
            block = Block(width, heads=heads, expansion=expansion, dropout=dropout, rngs=rngs)
            setattr(self, f"block{index}", block)
        self.modulation = blocks.dense(width, 2 * width, zero=True, rngs=rngs)
        self.out = blocks.dense(width, values, zero=True, rngs=rngs)

    def __call__(
        self, x: jax.Array, noise: jax.Array, label: jax.Array | None = None, key: jax.Array | None = None
    ) -> jax.Array:
        tokens = self.embed(patches(x, self.patch))
        tokens = tokens + self.position[...][None].astype(tokens.dtype)
        condition = nnx.silu(self.conditions(noise, label))
        keys = [None] * self.depth if key is None else jax.random.split(key, self.depth)
        for index in range(self.depth):
            tokens = getattr(self, f"block{index}")(tokens, condition, keys[index])
        shift, scale = jnp.split(self.modulation(condition), 2, axis=-1)
        return from_patches(self.out(modulated(tokens, shift, scale)), self.image, self.patch)


class Block(nnx.Module):
    """Attention, then two dense layers, each a residual with shift, scale and gate by the condition (adaLN-zero)."""

    def __init__(self, width: int, *, heads: int, expansion: int, dropout: float, rngs: nnx.Rngs):
        self.heads, self.dropout = heads, dropout
        self.modulation = blocks.dense(width, 6 * width, zero=True, rngs=rngs)
        self.qkv = blocks.dense(width, 3 * width, rngs=rngs)
        self.attended = blocks.dense(width, width, rngs=rngs)
        self.dense1 = blocks.dense(width, expansion * width, rngs=rngs)
        self.dense2 = blocks.dense(expansion * width, width, rngs=rngs)

    def __call__(self, tokens: jax.Array, condition: jax.Array, key: jax.Array | None) -> jax.Array:
        keys = (None, None) if key is None else jax.random.split(key)
        shift1, scale1, gate1, shift2, scale2, gate2 = jnp.split(self.modulation(condition), 6, axis=-1)
        x = self.attended(blocks.attend(self.qkv(modulated(tokens, shift1, scale1)), self.heads))
        tokens = tokens + gate1[:, None] * blocks.drop(x, self.dropout, keys[0])
        x = self.dense2(nnx.gelu(self.dense1(modulated(tokens, shift2, scale2))))
        return tokens + gate2[:, None] * blocks.drop(x, self.dropout, keys[1])


def modulated(tokens: jax.Array, shift: jax.Array, scale: jax.Array) -> jax.Array:
    """Layer normalisation whose gain and shift come from outside: tokens [B, N, D], the others [B, D]."""
    mean = jnp.mean(tokens, axis=-1, keepdims=True, dtype=jnp.float32)
    square = jnp.mean(jnp.square(tokens.astype(jnp.float32)), axis=-1, keepdims=True)
    gain = jax.lax.rsqrt(jnp.maximum(square - mean * mean, 0) + 1e-6).astype(tokens.dtype)
    return (tokens - mean.astype(tokens.dtype)) * gain * (1 + scale[:, None]) + shift[:, None]


def patches(x: jax.Array, size: int) -> jax.Array:
    """[B, H, W, C] -> [B, H/size * W/size, size * size * C], row by row."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // size, size, width // size, size, channels).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, -1, size * size * channels)


def from_patches(x: jax.Array, image: tuple[int, ...], size: int) -> jax.Array:
    """The inverse of `patches`, for images of shape (H, W, C)."""
    height, width, channels = image
    x = x.reshape(-1, height // size, width // size, size, size, channels).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(-1, height, width, channels)


def _positions(rows: int, columns: int, width: int) -> jax.Array:
    """Where each patch lies, as waves along both sides, to begin with: [rows * columns, width]."""
    count = width // 4
    row, column = (np.repeat(np.arange(rows), columns), np.tile(np.arange(columns), rows))
    rates = 1e4 ** (-np.arange(count) / count)
    angles = [place[:, None] * rates for place in (row, column)]
    table = np.concatenate([wave(angle) for angle in angles for wave in (np.sin, np.cos)], axis=1)
    return jnp.asarray(np.pad(table, ((0, 0), (0, width - 4 * count))), jnp.float32)
