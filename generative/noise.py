"""How much noise: every diffusion and every flow is x = α x₀ + σ ε, with x₀ an image, ε a standard normal.

A *level* is the pair (α, σ). Since x may be scaled at will, only the ratio σ/α says how much noise there is, so that
a model trained along one curve of levels can be sampled along any other (2206.00364, section 2; 2303.00848).

A *noise distribution* says which levels a model is trained on, as its quantile function: `levels(u)` for u in (0, 1),
growing with u. Evenly spread u are then evenly spread levels, whatever the distribution. A *path* is the curve from
noise to image that a sampler walks down; a noise distribution has one of its own, `Karras` is another.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from core import ranges

MOST = 1e4  # σ/α beyond this, and below its inverse, count as pure noise and as no noise at all


class Level(NamedTuple):
    """Two arrays of one shape: what is left of the image, and the noise's standard deviation."""

    alpha: Any  # jax.Array, or np.ndarray of a path that is fixed
    sigma: Any


Limits = tuple[float, float]  # the least and the greatest σ/α


@runtime_checkable
class Path(Protocol):
    def path(self, steps: int, limits: Limits = (0.0, np.inf)) -> Level:
        """Levels [steps + 1] float64 downwards, the last being the image itself, (1, 0), the others within `limits`."""
        ...


class Noise(Path, Protocol):
    @property
    def limits(self) -> Limits:
        """What a model sees in training, as far as it can be relied on."""
        ...

    def levels(self, u: jax.Array) -> Level:
        """The levels [B] at the quantiles u [B] in (0, 1)."""
        ...


def linear_betas(timesteps: int) -> np.ndarray:
    """1e-4 to 0.02 for 1,000 timesteps (2006.11239), scaled for others so that about as little is left of an image."""
    return np.minimum(np.linspace(0.1, 20, timesteps) / timesteps, 0.999)


def cosine_betas(timesteps: int) -> np.ndarray:
    """From ᾱ(t) = cos²((t + 0.008) / 1.008 · π/2), with β ≤ 0.999 (2102.09672, eq. 17)."""
    kept = np.cos((np.linspace(0, 1, timesteps + 1) + 0.008) / 1.008 * np.pi / 2) ** 2
    return np.minimum(1 - kept[1:] / kept[:-1], 0.999)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chain:
    """The discrete timesteps of DDPM, drawn uniformly: α² = ᾱ = Π(1 - β), σ² = 1 - ᾱ (2006.11239)."""

    timesteps: ranges.PositiveInt = 1000
    betas: Callable[[int], np.ndarray] = linear_betas

    def __post_init__(self):
        ranges.check(self)

    @property
    def limits(self) -> Limits:
        ratio = self._table().sigma / self._table().alpha
        return float(ratio[0]), float(ratio[-1])

    def levels(self, u: jax.Array) -> Level:
        index = jnp.minimum((u * self.timesteps).astype(jnp.int32), self.timesteps - 1)
        return Level(*(jnp.asarray(table, jnp.float32)[index] for table in self._table()))

    def path(self, steps: int, limits: Limits = (0.0, np.inf)) -> Level:
        """`steps` of the timesteps, evenly, from the last one to the first.

        Raises:
          ValueError: more steps than there are timesteps.
        """
        table = self._table()
        usable = np.flatnonzero((table.sigma >= limits[0] * table.alpha) & (table.sigma <= limits[1] * table.alpha))
        if steps > len(usable):
            raise ValueError(
                f"steps={steps}: a chain of timesteps={self.timesteps} has {len(usable)} to take; take at most those"
            )
        visited = usable[np.round(np.linspace(len(usable) - 1, 0, steps)).astype(int)]
        return _ending_clean(table.alpha[visited], table.sigma[visited])

    def _table(self) -> Level:
        return _chain(self)


@functools.cache
def _chain(chain: Chain) -> Level:
    kept = np.cumprod(1 - chain.betas(chain.timesteps))
    return Level(np.sqrt(kept), np.sqrt(1 - kept))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Karras:
    """Levels (1, σ) with σ^(1/ρ) evenly from the greatest to the least, then 0 (2206.00364, eq. 5)."""

    least: float = 0.002
    greatest: float = 80.0
    rho: ranges.PositiveFloat = 7.0

    def __post_init__(self):
        ranges.check(self)
        if not 0 < self.least < self.greatest:
            raise ValueError(f"least={self.least}: must lie between 0 and greatest={self.greatest}")

    def path(self, steps: int, limits: Limits = (0.0, np.inf)) -> Level:
        """Raises ValueError where the limits leave no range."""
        greatest, least = min(self.greatest, limits[1]), max(self.least, limits[0])
        if not least < greatest:
            raise ValueError(
                f"greatest={self.greatest}: the model knows noise between {limits[0]:g} and {limits[1]:g} only"
            )
        sigma = np.linspace(greatest ** (1 / self.rho), least ** (1 / self.rho), steps) ** self.rho
        return _ending_clean(np.ones_like(sigma), sigma)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogNormal:
    """ln σ ~ N(mean, std²) at α = 1 (EDM's training). Its path is `sampling`, which also bounds what to rely on."""

    mean: float = -1.2
    std: ranges.PositiveFloat = 1.2
    sampling: Karras = dataclasses.field(default_factory=Karras)

    def __post_init__(self):
        ranges.check(self)

    @property
    def limits(self) -> Limits:
        return self.sampling.least, self.sampling.greatest

    def levels(self, u: jax.Array) -> Level:
        sigma = jnp.exp(self.mean + self.std * _normal(u))
        return Level(jnp.ones_like(sigma), sigma)

    def path(self, steps: int, limits: Limits = (0.0, np.inf)) -> Level:
        return self.sampling.path(steps, limits)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flow:
    """The line x = (1 - t) x₀ + t ε (2210.02747, 2209.03003), t uniform or its logit N(mean, std²) (2403.03206)."""

    time: Literal["uniform", "logit_normal"] = "uniform"
    mean: float = 0.0
    std: ranges.PositiveFloat = 1.0

    def __post_init__(self):
        if self.time not in ("uniform", "logit_normal"):
            raise ValueError(f"time={self.time}: must be uniform or logit_normal")
        ranges.check(self)

    @property
    def limits(self) -> Limits:
        return 1 / MOST, MOST

    def levels(self, u: jax.Array) -> Level:
        time = u if self.time == "uniform" else jax.nn.sigmoid(self.mean + self.std * _normal(u))
        time = jnp.clip(time, 1 / MOST, 1 - 1 / MOST)
        return Level(1 - time, time)

    def path(self, steps: int, limits: Limits = (0.0, np.inf)) -> Level:
        """Evenly in t; without limits, from pure noise, where α is 0."""
        least, greatest = (1 / (1 + 1 / limit) if limit else 0.0 for limit in limits)
        time = np.linspace(greatest, max(greatest / steps, least), steps)
        return _ending_clean(1 - time, time)


def stratified(key: jax.Array, count: int) -> jax.Array:
    """[count] in (0, 1), one in each of so many equal parts, each uniform by itself (2107.00630, appendix I.1)."""
    u = (jax.random.uniform(key) + jnp.arange(count) / count) % 1.0
    return jnp.clip(u, 1e-6, 1 - 1e-6)


def log_ratio(level: Level) -> jax.Array:
    """ln(σ/α), cut where nothing changes any more."""
    most = float(np.log(MOST))
    tiny = 1e-30
    return jnp.clip(jnp.log(jnp.maximum(level.sigma, tiny)) - jnp.log(jnp.maximum(level.alpha, tiny)), -most, most)


def _ending_clean(alpha: np.ndarray, sigma: np.ndarray) -> Level:
    return Level(np.append(alpha, 1.0), np.append(sigma, 0.0))


def _normal(u: jax.Array) -> jax.Array:
    return jax.scipy.special.ndtri(u)
