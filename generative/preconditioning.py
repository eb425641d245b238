"""What a network is asked for, and how much each noise level counts.

A network F is wrapped to a denoiser D(x; α, σ) = c_skip x + c_out F(c_in x), an estimate of E[x₀ | x = α x₀ + σ ε]
(2206.00364, section 5). A *prediction* is the three coefficients as functions of the level. All hold for any α and σ,
not only along the curve that a paper has them on: scaling the level scales c_skip and c_in by the inverse, and D is
the same.

A *weighting* is the factor of |D - x₀|² in the loss.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from core import ranges
from generative import noise

_LEAST = 1e-12  # of a variance that is divided by


class Coefficients(NamedTuple):
    """Each of the level's shape."""

    skip: Any
    out: Any
    into: Any


def epsilon(level: noise.Level) -> Coefficients:
    """F is the noise ε (2006.11239). Knows nothing of the image where α is 0."""
    alpha, sigma = level
    return Coefficients(1 / alpha, -sigma / alpha, 1 / _norm(level))


def x0(level: noise.Level) -> Coefficients:
    """F is the image."""
    one = jnp.ones_like(_norm(level))
    return Coefficients(0 * one, one, 1 / _norm(level))


def v(level: noise.Level) -> Coefficients:
    """F is v = α ε - σ x₀ with α² + σ² = 1 (2202.00512, appendix D)."""
    alpha, sigma = level
    norm = _norm(level)
    return Coefficients(alpha / norm**2, -sigma / norm, 1 / norm)


def velocity(level: noise.Level) -> Coefficients:
    """F is ε - x₀, the speed at which flow matching's line leaves the image (2210.02747)."""
    alpha, sigma = level
    return Coefficients(1 / (alpha + sigma), -sigma / (alpha + sigma), 1 / (alpha + sigma))


@dataclasses.dataclass(frozen=True, kw_only=True)
class EDM:
    """Input and target of variance 1 at every level, for images of standard deviation `data` (2206.00364, table 1)."""

    data: ranges.PositiveFloat = 0.5

    def __post_init__(self):
        ranges.check(self)

    def __call__(self, level: noise.Level) -> Coefficients:
        alpha, sigma = level
        norm = _norm(level, self.data)
        return Coefficients(alpha * self.data**2 / norm**2, sigma * self.data / norm, 1 / norm)


def of_output(level: noise.Level, out: jax.Array) -> jax.Array:
    """The network's own error, 1 / c_out²: the plain loss of each paper, EDM's λ(σ) among them."""
    return 1 / out**2


def of_noise(level: noise.Level, out: jax.Array) -> jax.Array:
    """The error in ε, whatever is predicted: SNR = α² / σ²."""
    return _snr(level)


def of_image(level: noise.Level, out: jax.Array) -> jax.Array:
    """The error in x₀: 1."""
    return jnp.ones_like(out)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MinSNR:
    """min(SNR, γ) (2303.09556)."""

    gamma: ranges.PositiveFloat = 5.0

    def __post_init__(self):
        ranges.check(self)

    def __call__(self, level: noise.Level, out: jax.Array) -> jax.Array:
        return jnp.minimum(_snr(level), self.gamma)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SoftMinSNR:
    """1 / (σ²/α² + data²): min(SNR, 1 / data²) without its corner (2401.11605, k-diffusion)."""

    data: ranges.PositiveFloat = 0.5

    def __post_init__(self):
        ranges.check(self)

    def __call__(self, level: noise.Level, out: jax.Array) -> jax.Array:
        return 1 / (1 / _snr(level) + self.data**2)


def _norm(level: noise.Level, data: float = 1.0) -> jax.Array:
    """The standard deviation of x for images of standard deviation `data`."""
    return jnp.sqrt((data * level.alpha) ** 2 + level.sigma**2)


def _snr(level: noise.Level) -> jax.Array:
    return level.alpha**2 / jnp.maximum(level.sigma**2, _LEAST)
