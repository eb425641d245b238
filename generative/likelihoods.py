"""How probable a picture is, given what a decoder says of every pixel; log-probabilities are summed over pixels.

A decoder gives a likelihood its parameters as a tuple of float [B, H, W, C]: the first `maps` of them come from its
last layer, the last `shared` are one learned number for all pixels. Bytes v in 0..255 stand in float pictures at
(v + 0.5) / 128 - 1: 256 bins of width 1/128 that fill [-1, 1].
"""

import dataclasses
import math
from typing import Any, Literal, Protocol, get_args

import jax
import jax.numpy as jnp

from core import types

Parameters = tuple[jax.Array, ...]  # of [B, H, W, C] float

LEVELS = 256
_HALF = 1 / LEVELS  # of a bin, in [-1, 1]


class Likelihood(Protocol):
    @property
    def maps(self) -> int:
        """Numbers that the decoder gives for each pixel and channel."""
        ...

    @property
    def shared(self) -> int:
        """Learned numbers that hold for all pixels."""
        ...

    @property
    def of_bytes(self) -> bool:
        """Whether `log_prob` is that of an image of 256 levels, so that bits a dimension mean something."""
        ...

    @property
    def refusal(self) -> str | None:
        """Why figures would be no likelihood of any data, beginning with the setting at fault; None where they are."""
        ...

    @property
    def protocol(self) -> dict[str, Any]:
        """What a figure must be read with."""
        ...

    def prepare(self, image: jax.Array, key: jax.Array) -> jax.Array:
        """Uint8 [B, H, W, C] -> the float32 picture that is modelled, which the encoder sees, too."""
        ...

    def log_prob(self, parameters: Parameters, target: jax.Array) -> jax.Array:
        """[B] nats, the sum over pixels and channels."""
        ...

    def mean(self, parameters: Parameters) -> jax.Array:
        """The expected picture as uint8 [B, H, W, C]."""
        ...


def bits_per_dimension(log_prob: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """[B] nats of images of `shape` (H, W, C) at 256 levels -> [B] bits; a uniform model has 8."""
    return -log_prob / (math.prod(shape) * math.log(2))


Binarisation = Literal["dynamic", "static", "threshold", "none"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bernoulli:
    """Pixels of two values; the decoder gives logits.

    Grey pixels become 0 or 1 first. `dynamic`: drawn anew at every step, 1 with probability v / 255. `static`: one
    such draw for each image, fixed by `seed` and the image's content, in every epoch and for every batch. `threshold`:
    1 where v >= 128, which leaves data that are binary already as they are. `none`: the cross-entropy with grey values,
    which trains well but is no likelihood of anything: it does not reach 0 (784 pixels of 0.5 cost 543.4 nats at the
    least), and is refused where likelihoods are reported.
    """

    binarisation: Binarisation = "dynamic"
    seed: int = 0  # of `static`

    maps = 1
    shared = 0
    of_bytes = False

    def __post_init__(self):
        types.check_seed(self.seed)
        if self.binarisation not in get_args(Binarisation):
            raise ValueError(f"binarisation={self.binarisation}: must be one of {', '.join(get_args(Binarisation))}")

    @property
    def refusal(self) -> str | None:
        if self.binarisation != "none":
            return None
        return (
            "binarisation=none: grey values are neither binary nor binarised, so that their cross-entropy is no "
            "likelihood; report one with dynamic, static or threshold"
        )

    @property
    def protocol(self) -> dict[str, Any]:
        fixed = {"binarisation_seed": self.seed} if self.binarisation == "static" else {}
        return {"likelihood": "Bernoulli", "binarisation": self.binarisation, **fixed}

    def prepare(self, image: jax.Array, key: jax.Array) -> jax.Array:
        flat = image.reshape(image.shape[0], -1)
        if self.binarisation == "none":
            target = flat.astype(jnp.float32) / 255
        elif self.binarisation == "threshold":
            target = (flat >= 128).astype(jnp.float32)
        else:
            # An exact comparison of u / 65536 with v / 255: 255 is always 1, and 0 never.
            target = (self._draws(flat, key) * 255 < flat.astype(jnp.uint32) * 65536).astype(jnp.float32)
        return target.reshape(image.shape)

    def _draws(self, flat: jax.Array, key: jax.Array) -> jax.Array:
        """[B, N] uint32, uniform in 0..65535."""
        if self.binarisation == "dynamic":
            return _bits16(key, flat.shape)
        fixed = jax.random.key(self.seed)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(fixed, _fingerprint(flat, fixed))
        return jax.vmap(lambda key: _bits16(key, flat.shape[1:]))(keys)

    def log_prob(self, parameters: Parameters, target: jax.Array) -> jax.Array:
        """Finite, with a finite gradient (x - σ(logit)), at any finite logit."""
        logits = _flat(parameters[0])
        return jnp.sum(_flat(target) * logits - jax.nn.softplus(logits), axis=1)

    def mean(self, parameters: Parameters) -> jax.Array:
        return jnp.round(255 * jax.nn.sigmoid(parameters[0].astype(jnp.float32))).astype(jnp.uint8)


Scale = float | Literal["shared", "pixel"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gaussian:
    """A density over [-1, 1]; `scale` is its standard deviation: fixed, or one learned number, or one a pixel.

    With `dequantise` a byte becomes a uniform draw from its bin, so that the density is a lower bound on the
    probability of the byte (1511.01844); without, its middle, and no likelihood is reported.
    """

    scale: Scale = "shared"
    dequantise: bool = True

    def __post_init__(self):
        _check_scale(self.scale)

    @property
    def maps(self) -> int:
        return 2 if self.scale == "pixel" else 1

    @property
    def shared(self) -> int:
        return int(self.scale == "shared")

    @property
    def of_bytes(self) -> bool:
        return self.dequantise

    @property
    def refusal(self) -> str | None:
        if self.dequantise:
            return None
        return "dequantise=false: densities at the middle of bytes' bins know no bound; report them with true"

    @property
    def protocol(self) -> dict[str, Any]:
        return {"likelihood": "Gaussian", "scale": self.scale, "dequantisation": "uniform"}

    def prepare(self, image: jax.Array, key: jax.Array) -> jax.Array:
        flat = _flat(image)
        place = (_bits16(key, flat.shape) + 0.5) / 65536 if self.dequantise else 0.5
        return ((flat + place) / (LEVELS / 2) - 1).reshape(image.shape)

    def log_prob(self, parameters: Parameters, target: jax.Array) -> jax.Array:
        """Of the byte: the density in [-1, 1] times the width of a bin where the data were dequantised."""
        mean, log_scale = _located(parameters, self.scale)
        width = math.log(2 * _HALF) if self.dequantise else 0.0
        error = (_flat(target) - mean) * jnp.exp(-log_scale)
        return jnp.sum(width - 0.5 * math.log(2 * math.pi) - log_scale - 0.5 * error**2, axis=1)

    def mean(self, parameters: Parameters) -> jax.Array:
        return _to_byte(parameters[0])


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiscretisedLogistic:
    """The mass that a logistic distribution puts on each of 256 levels (1606.04934, eq. 17).

    The outermost bins reach to infinity, so that the masses add up to 1. `scale` as in `Gaussian`.
    """

    scale: Scale = "shared"

    of_bytes = True
    refusal = None

    def __post_init__(self):
        _check_scale(self.scale)

    @property
    def maps(self) -> int:
        return 2 if self.scale == "pixel" else 1

    @property
    def shared(self) -> int:
        return int(self.scale == "shared")

    @property
    def protocol(self) -> dict[str, Any]:
        return {"likelihood": "discretised logistic", "scale": self.scale, "levels": LEVELS}

    def prepare(self, image: jax.Array, key: jax.Array) -> jax.Array:
        return ((_flat(image) + 0.5) / (LEVELS / 2) - 1).reshape(image.shape)

    def log_prob(self, parameters: Parameters, target: jax.Array) -> jax.Array:
        """log(σ(b) - σ(a)) = log σ(b) + log σ(-a) + log(1 - exp(a - b)), exact where the difference is not."""
        mean, log_scale = _located(parameters, self.scale)
        target, sharpness = _flat(target), jnp.exp(-log_scale)
        lowest, highest = target < -1 + 2 * _HALF, target > 1 - 2 * _HALF
        above = jnp.where(lowest, 0.0, jax.nn.log_sigmoid((mean - target + _HALF) * sharpness))  # log σ(-a)
        below = jnp.where(highest, 0.0, jax.nn.log_sigmoid((target + _HALF - mean) * sharpness))  # log σ(b)
        between = jnp.where(lowest | highest, 0.0, jnp.log(-jnp.expm1(-2 * _HALF * sharpness)))
        return jnp.sum(above + below + between, axis=1)

    def mean(self, parameters: Parameters) -> jax.Array:
        return _to_byte(parameters[0])


def _check_scale(scale: Scale) -> None:
    if not isinstance(scale, str) and not scale > 0:
        raise ValueError(f"scale={scale}: must be greater than 0, or shared or pixel, which are learned")


def _located(parameters: Parameters, scale: Scale) -> tuple[jax.Array, jax.Array]:
    """(mean, log scale), both [B, H W C] float32."""
    mean = _flat(parameters[0])
    return mean, _flat(parameters[1]) if isinstance(scale, str) else jnp.full_like(mean, math.log(scale))


def _to_byte(mean: jax.Array) -> jax.Array:
    return jnp.clip(jnp.floor((mean.astype(jnp.float32) + 1) * (LEVELS / 2)), 0, LEVELS - 1).astype(jnp.uint8)


def _flat(x: jax.Array) -> jax.Array:
    """[B, ...] -> [B, N] float32: XLA:CPU takes twice as long for the same sum over [B, H, W, 1]."""
    return x.reshape(x.shape[0], -1).astype(jnp.float32)


def _bits16(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Uniform draws from 0..65535 as uint32, two from every word of the generator, which is what costs."""
    *front, last = shape
    words = jax.random.bits(key, (*front, -(-last // 2)), jnp.uint32)
    return jnp.concatenate([words & 0xFFFF, words >> 16], axis=-1)[..., :last]


def _fingerprint(flat: jax.Array, key: jax.Array) -> jax.Array:
    """[B] uint32 that all [B, N] bytes and their places determine: odd weights, so that any one byte changes it."""
    weights = jax.random.bits(key, (1, flat.shape[1]), jnp.uint32) | 1
    return jnp.sum(flat.astype(jnp.uint32) * weights, axis=1, dtype=jnp.uint32)
