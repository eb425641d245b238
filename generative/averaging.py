"""Averages of weights over training, counted in images so that they mean the same at every batch size."""

import dataclasses
from typing import Annotated, Protocol

import annotated_types
import jax
import jax.numpy as jnp
import numpy as np

from core import ranges, types


class Average(Protocol):
    def decay(self, images: jax.Array, batch: int) -> jax.Array:
        """The share that the average keeps at the update after which `images` [] have been seen; 0 copies."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class HalfLife:
    """Old weights count half after so many images; `ramp` holds it to that share of the images seen (EDM: 0.05)."""

    images: ranges.PositiveFloat = 500_000
    ramp: ranges.PositiveFloat | None = 0.05

    def __post_init__(self):
        ranges.check(self)

    def decay(self, images: jax.Array, batch: int) -> jax.Array:
        before = images - batch
        life = jnp.asarray(self.images, jnp.float32)
        if self.ramp is not None:
            life = jnp.minimum(life, self.ramp * images)
        return jnp.where(before > 0, 0.5 ** (batch / life), 0.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Power:
    """The power-function average (2312.02696): its profile's relative width is `std`, at every length of training."""

    std: Annotated[float, annotated_types.Interval(gt=0, lt=0.28)] = 0.05

    def __post_init__(self):
        ranges.check(self)

    @property
    def gamma(self) -> float:
        """The exponent γ, the largest root of (γ + 1) / ((γ + 2)² (γ + 3)) = std²: std 0.05 gives 16.97."""
        target = self.std**-2
        roots = np.roots([1, 7, 16 - target, 12 - target])
        return float(np.max(roots.real))

    def decay(self, images: jax.Array, batch: int) -> jax.Array:
        # (1 - batch / images)^(γ + 1), kept exact where batch / images is near the rounding of 1.
        share = jnp.minimum(batch / images, 1)
        return jnp.exp((self.gamma + 1) * jnp.log1p(-share))


def update(average: Average, old: types.Params, params: types.Params, images: jax.Array, batch: int) -> types.Params:
    """The average after one more update. `images` [] float32: all that were seen, this batch of `batch` included."""
    decay = average.decay(images, batch)
    return jax.tree.map(lambda a, p: p + decay * (a - p), old, params)
