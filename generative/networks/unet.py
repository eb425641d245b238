"""A U-Net with attention (1505.04597; in the form of 2006.11239 and 2105.05233).

`norm="group"` is the form of Hugging Face's `UNet2DModel(resnet_time_scale_shift="scale_shift")`. `norm="pixel"`, the
default, normalises every pixel by itself, as newer networks do (2312.02696), and is quicker on a CPU
(docs/performance.md).
"""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from generative.networks import blocks

_NORMS: dict[str, Callable[..., Any]] = {"pixel": blocks.PixelNorm, "group": blocks.GroupNorm}


class UNet(nnx.Module):
    """(x float32 [B, H, W, C], noise [B], label [B] or None) -> [B, H, W, C], zeros at first.

    `channels` are those of each level, each with half the height and width of the one before. `attention` names the
    factors, out of 1, 2, 4, ..., by which the image is smaller where positions attend to each other. A height or width
    that 2^(levels - 1) does not divide is filled up with zeros and cut again. Labels are 0..classes-1; `classes`
    itself, like None, says that there is none.
    """

    def __init__(
        self,
        *,
        image: tuple[int, ...],
        classes: int,
        channels: tuple[int, ...] = (32, 64, 128),
        depth: int = 2,
        attention: tuple[int, ...] = (4,),
        heads: int = 4,
        norm: Literal["pixel", "group"] = "pixel",
        dropout: float = 0.0,
        rngs: nnx.Rngs,
    ):
        factors = tuple(2**level for level in range(len(channels)))
        _check(image, channels, factors, depth=depth, attention=attention, heads=heads, norm=norm, dropout=dropout)
        self.factor, self.levels, self.depth = factors[-1], len(channels), depth
        width = 4 * channels[0]
        self.conditions = blocks.Conditions(width, classes=classes, rngs=rngs)
        normalise = _NORMS[norm]

        def stage(inward: int, outward: int, factor: int) -> Stage:
            heads_here = heads if factor in attention else 0
            return Stage(inward, outward, width, heads=heads_here, norm=normalise, dropout=dropout, rngs=rngs)

        self.entry = blocks.conv(image[2], channels[0], rngs=rngs)
        skips, now = [channels[0]], channels[0]
        for level, (wide, factor) in enumerate(zip(channels, factors, strict=True)):
            for index in range(depth):
                setattr(self, f"down{level}_{index}", stage(now, wide, factor))
                now = wide
                skips.append(now)
            if level < self.levels - 1:
                setattr(self, f"shrink{level}", blocks.conv(now, now, stride=2, rngs=rngs))
                skips.append(now)
        self.middle0 = stage(now, now, factors[-1])
        self.middle1 = stage(now, now, 0)
        for level, (wide, factor) in reversed(list(enumerate(zip(channels, factors, strict=True)))):
            for index in range(depth + 1):
                setattr(self, f"up{level}_{index}", stage(now + skips.pop(), wide, factor))
                now = wide
            if level:
                setattr(self, f"grow{level}", blocks.conv(now, now, rngs=rngs))
        self.norm = normalise(now, rngs=rngs)
        self.out = blocks.conv(now, image[2], zero=True, rngs=rngs)

    def __call__(
        self, x: jax.Array, noise: jax.Array, label: jax.Array | None = None, key: jax.Array | None = None
    ) -> jax.Array:
        height, width = x.shape[1:3]
        condition = nnx.silu(self.conditions(noise, label))
        stages = iter(range(self.levels * (2 * self.depth + 1) + 2))

        def apply(name: str, x: jax.Array) -> jax.Array:
            number = next(stages)
            return getattr(self, name)(x, condition, None if key is None else jax.random.fold_in(key, number))

        x = self.entry(jnp.pad(x, ((0, 0), (0, -height % self.factor), (0, -width % self.factor), (0, 0))))
        skips = [x]
        for level in range(self.levels):
            for index in range(self.depth):
                x = apply(f"down{level}_{index}", x)
                skips.append(x)
            if level < self.levels - 1:
                x = getattr(self, f"shrink{level}")(x)
                skips.append(x)
        x = apply("middle1", apply("middle0", x))
        for level in reversed(range(self.levels)):
            for index in range(self.depth + 1):
                x = apply(f"up{level}_{index}", jnp.concatenate([x, skips.pop()], axis=-1))
            if level:
                x = getattr(self, f"grow{level}")(blocks.upsample(x))
        return self.out(nnx.silu(self.norm(x)))[:, :height, :width]


class Stage(nnx.Module):
    """Two convolutions as a residual, with scale and shift by the condition [B, D]; then attention, for `heads` > 0."""

    def __init__(self, inward: int, outward: int, width: int, *, heads: int, norm: Any, dropout: float, rngs: nnx.Rngs):
        self.heads, self.dropout = heads, dropout
        self.norm1 = norm(inward, rngs=rngs)
        self.conv1 = blocks.conv(inward, outward, rngs=rngs)
        self.modulation = blocks.dense(width, 2 * outward, rngs=rngs)
        self.norm2 = norm(outward, rngs=rngs)
        self.conv2 = blocks.conv(outward, outward, zero=True, rngs=rngs)
        self.skip = blocks.dense(inward, outward, rngs=rngs) if inward != outward else None
        if heads:
            self.norm3 = norm(outward, rngs=rngs)
            self.qkv = blocks.dense(outward, 3 * outward, rngs=rngs)
            self.attended = blocks.dense(outward, outward, zero=True, rngs=rngs)

    def __call__(self, x: jax.Array, condition: jax.Array, key: jax.Array | None) -> jax.Array:
        scale, shift = jnp.split(self.modulation(condition)[:, None, None], 2, axis=-1)
        residual = self.norm2(self.conv1(nnx.silu(self.norm1(x)))) * (1 + scale) + shift
        x = x if self.skip is None else self.skip(x)
        x = x + self.conv2(blocks.drop(nnx.silu(residual), self.dropout, key))
        if not self.heads:
            return x
        tokens = self.qkv(self.norm3(x).reshape(x.shape[0], -1, x.shape[-1]))
        return x + self.attended(blocks.attend(tokens, self.heads)).reshape(x.shape)


def _check(image: tuple[int, ...], channels: tuple[int, ...], factors: tuple[int, ...], **options: Any) -> None:
    """Refuses what cannot be built, before anything is."""
    if len(image) != 3 or not channels or min(image[:2]) < factors[-1]:
        raise ValueError(f"channels={channels}: {len(channels)} levels do not fit images of shape {image}")
    if options["depth"] < 1:
        raise ValueError(f"depth={options['depth']}: must be at least 1")
    if not set(options["attention"]) <= set(factors):
        raise ValueError(f"attention={options['attention']}: must be some of the factors {factors} of these levels")
    if any(wide % options["heads"] for wide in channels):
        raise ValueError(f"heads={options['heads']}: must divide channels={channels}")
    if options["norm"] not in _NORMS:
        raise ValueError(f"norm={options['norm']}: must be one of {', '.join(_NORMS)}")
    if not 0 <= options["dropout"] < 1:
        raise ValueError(f"dropout={options['dropout']}: must lie in [0, 1)")
