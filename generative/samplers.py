"""From noise to an image, along any path of levels, with any denoiser D(x; α, σ) = E[x₀ | x].

A denoiser splits x = α D + σ ε̂ into image and noise, and the probability-flow ODE is dx = D dα + ε̂ dσ. While D stays
the same its exact solution is `move`, which is DDIM; every rule below is `move` with something of its own added.
Nothing here knows what the network predicts, or along which levels it was trained.
"""

import dataclasses
from collections.abc import Callable
from typing import Annotated, Any, Literal, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from core import ranges
from generative import noise

Denoise = Callable[[jax.Array, noise.Level], jax.Array]  # x [B, H, W, C] at a level of [] arrays -> D like x
Draw = Callable[[jax.Array], jax.Array]  # number of a step [] -> standard normal like x
Carry = tuple[Any, ...]  # what a rule goes on with; x comes first, in the end the image

_START = 2**32 - 3  # what a key is folded with for the first noise, far from the numbers of steps
_LEAST = 1e-12


class Rule(Protocol):
    def evaluations(self, steps: int) -> int:
        """How often the denoiser is asked."""
        ...

    def begin(self, path: noise.Level, x: jax.Array) -> Carry:
        """At x [B, H, W, C], noise of the first level of path [N + 1]."""
        ...

    def evaluate(self, denoise: Denoise, draw: Draw, path: noise.Level, carry: Carry, number: jax.Array) -> Carry:
        """Asks the denoiser once, for the `number`-th time [] int32 of `evaluations`, and goes on from there."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampler:
    """`rule` over `steps` levels of `grid`, or of the path that the model was trained along where that is None.

    `guidance` s samples from u + s (c - u), with u the unconditional and c the conditional denoiser (2207.12598): 1 is
    the conditional model itself, 0 the unconditional one. `clip` keeps D within [-1, 1], where the mean of images lies:
    models of ε need it near pure noise, where D is a small difference divided by a small α.
    """

    rule: Rule
    steps: ranges.PositiveInt = 50
    guidance: Annotated[ranges.NonNegativeFloat, "1 is the plain conditional model"] = 1.0
    grid: noise.Path | None = None
    clip: bool = False

    def __post_init__(self):
        ranges.check(self)

    @property
    def evaluations(self) -> int:
        """How often the network is asked for an image (twice each time with guidance other than 0 and 1)."""
        return self.rule.evaluations(self.steps)

    def path(self, trained: noise.Noise) -> noise.Level:
        """Levels [steps + 1], within those that a model `trained` so has seen. Raises ValueError where none fit."""
        return trained.path(self.steps) if self.grid is None else self.grid.path(self.steps, trained.limits)

    def __call__(self, denoise: Denoise, path: noise.Level, keys: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Images float32 [B, *shape]; image i is a function of keys[i] alone."""
        carry = self.begin(path, keys, shape)
        return self.advance(denoise, path, keys, carry, 0, self.evaluations)[0]

    def begin(self, path: noise.Level, keys: jax.Array, shape: tuple[int, ...]) -> Carry:
        """Noise of the first level: where `advance` starts."""
        return self.rule.begin(_float32(path), float(path.sigma[0]) * _normal(keys, _START, shape))

    def advance(
        self, denoise: Denoise, path: noise.Level, keys: jax.Array, carry: Carry, first: Any, count: Any
    ) -> Carry:
        """`count` evaluations from number `first` on, which may be [] arrays; the image comes first after the last."""
        path, shape = _float32(path), carry[0].shape[1:]

        def clipped(x: jax.Array, level: noise.Level) -> jax.Array:
            clean = denoise(x, level)
            return jnp.clip(clean, -1, 1) if self.clip else clean

        evaluate = lambda number, carry: self.rule.evaluate(
            clipped, lambda step: _normal(keys, step, shape), path, carry, number
        )
        return jax.lax.fori_loop(first, first + count, evaluate, carry)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ancestral:
    """DDPM's chain backwards (2006.11239), with the variance of q(x_s | x_t, x₀) (`small`) or of q(x_t | x_s)."""

    variance: Literal["small", "large"] = "small"

    def __post_init__(self):
        if self.variance not in ("small", "large"):
            raise ValueError(f"variance={self.variance}: must be small or large")

    def evaluations(self, steps: int) -> int:
        return steps

    def begin(self, path: noise.Level, x: jax.Array) -> Carry:
        return (x,)

    def evaluate(self, denoise: Denoise, draw: Draw, path: noise.Level, carry: Carry, number: jax.Array) -> Carry:
        (x,), (now, then) = carry, _levels(path, number)
        small, large = posterior_variances(now, then)
        fresh = small if self.variance == "small" else jnp.where(then.sigma > 0, large, 0)
        return (_renoised(move(x, denoise(x, now), now, _without(then, small)), fresh, draw(number)),)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DDIM:
    """Song et al. 2020 (2010.02502, eq. 12): η = 0 is deterministic, 1 is `Ancestral` with its small variance."""

    eta: ranges.Share = 0.0

    def __post_init__(self):
        ranges.check(self)

    def evaluations(self, steps: int) -> int:
        return steps

    def begin(self, path: noise.Level, x: jax.Array) -> Carry:
        return (x,)

    def evaluate(self, denoise: Denoise, draw: Draw, path: noise.Level, carry: Carry, number: jax.Array) -> Carry:
        (x,), (now, then) = carry, _levels(path, number)
        if self.eta == 0:
            return (move(x, denoise(x, now), now, then),)
        fresh = self.eta**2 * posterior_variances(now, then)[0]
        return (_renoised(move(x, denoise(x, now), now, _without(then, fresh)), fresh, draw(number)),)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Churn:
    """Fresh noise before a step, where σ/α lies in [least, greatest] (2206.00364, algorithm 2)."""

    amount: ranges.NonNegativeFloat = 40.0
    least: float = 0.05
    greatest: float = 50.0
    inflation: float = 1.003  # of the fresh noise's standard deviation

    def __post_init__(self):
        ranges.check(self)

    def __call__(self, x: jax.Array, now: noise.Level, steps: int, fresh: jax.Array) -> tuple[jax.Array, noise.Level]:
        """(x, level) with more noise."""
        ratio = now.sigma / jnp.maximum(now.alpha, _LEAST)
        inside = (ratio >= self.least) & (ratio <= self.greatest)
        growth = jnp.where(inside, min(self.amount / steps, np.sqrt(2) - 1), 0)
        added = self.inflation * now.sigma * jnp.sqrt(growth * (2 + growth))
        return x + added * fresh, noise.Level(now.alpha, now.sigma * (1 + growth))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Euler:
    """Steps of the first order along the path: DDIM's η = 0, and churn if wanted."""

    churn: Churn | None = None

    def evaluations(self, steps: int) -> int:
        return steps

    def begin(self, path: noise.Level, x: jax.Array) -> Carry:
        return (x,)

    def evaluate(self, denoise: Denoise, draw: Draw, path: noise.Level, carry: Carry, number: jax.Array) -> Carry:
        (x,), (now, then) = carry, _levels(path, number)
        if self.churn is not None:
            x, now = self.churn(x, now, len(path.sigma) - 1, draw(number))
        return (move(x, denoise(x, now), now, then),)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Heun:
    """The trapezoidal rule of dx = D dα + ε̂ dσ, the last step plain (2206.00364, algorithms 1 and 2 at α = 1)."""

    churn: Churn | None = None

    def evaluations(self, steps: int) -> int:
        return 2 * steps - 1

    def begin(self, path: noise.Level, x: jax.Array) -> Carry:
        return x, x, jnp.zeros_like(x), jax.tree.map(lambda a: a[0], path)

    def evaluate(self, denoise: Denoise, draw: Draw, path: noise.Level, carry: Carry, number: jax.Array) -> Carry:
        """Even numbers step ahead from `x`; odd ones judge the slope where that led and step again."""
        ahead, x, clean, began = carry
        index, correct = number // 2, number % 2 == 1
        now, then = _levels(path, index)
        fresh, raised = (ahead, now)
        if self.churn is not None:
            fresh, raised = self.churn(ahead, now, len(path.sigma) - 1, draw(index))
        x, began = _choose(correct, (x, began), (fresh, raised))
        where, at = _choose(correct, (ahead, then), (x, began))
        found = denoise(where, at)
        slopes = (clean + found) / 2, (_noise_in(x, clean, began) + _noise_in(ahead, found, then)) / 2
        corrected = x + (then.alpha - began.alpha) * slopes[0] + (then.sigma - began.sigma) * slopes[1]
        return jnp.where(correct, corrected, move(x, found, began, then)), x, found, began


@dataclasses.dataclass(frozen=True, kw_only=True)
class DPMSolver:
    """DPM-Solver++ 2M (2211.01095, algorithm 2): D is extrapolated in ln(α/σ), not in the first and the last step."""

    def evaluations(self, steps: int) -> int:
        return steps

    def begin(self, path: noise.Level, x: jax.Array) -> Carry:
        return x, jnp.zeros_like(x), jnp.zeros(())

    def evaluate(self, denoise: Denoise, draw: Draw, path: noise.Level, carry: Carry, number: jax.Array) -> Carry:
        (x, before, width), (now, then) = carry, _levels(path, number)
        clean = denoise(x, now)
        ahead = noise.log_ratio(now) - noise.log_ratio(then)
        plain = (number == 0) | (then.sigma == 0)
        slope = jnp.where(plain, 0, ahead / (2 * jnp.maximum(width, _LEAST)))
        return move(x, clean + slope * (clean - before), now, then), clean, ahead


def move(x: jax.Array, clean: jax.Array, now: noise.Level, then: noise.Level) -> jax.Array:
    """The same D and ε̂, put together at another level: α D + σ ε̂."""
    ratio = then.sigma / now.sigma
    return ratio * x + (then.alpha - now.alpha * ratio) * clean


def posterior_variances(now: noise.Level, then: noise.Level) -> tuple[jax.Array, jax.Array]:
    """Of q(x_then | x_now, x₀), and of q(x_now | x_then): β̃ and β in DDPM's words."""
    large = now.sigma**2 - (now.alpha / then.alpha * then.sigma) ** 2
    return large * (then.sigma / now.sigma) ** 2, large


def _without(level: noise.Level, variance: jax.Array) -> noise.Level:
    return noise.Level(level.alpha, jnp.sqrt(jnp.maximum(level.sigma**2 - variance, 0)))


def _renoised(x: jax.Array, variance: jax.Array, fresh: jax.Array) -> jax.Array:
    return x + jnp.sqrt(jnp.maximum(variance, 0)) * fresh


def _noise_in(x: jax.Array, clean: jax.Array, level: noise.Level) -> jax.Array:
    return (x - level.alpha * clean) / jnp.maximum(level.sigma, _LEAST)


def _choose(condition: jax.Array, yes: tuple, no: tuple) -> tuple:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)


def _levels(path: noise.Level, number: jax.Array) -> tuple[noise.Level, noise.Level]:
    """Between which levels [] a step goes."""
    now, then = (jax.tree.map(lambda a, k=k: a[number + k], path) for k in (0, 1))
    return now, then


def _normal(keys: jax.Array, number: Any, shape: tuple[int, ...]) -> jax.Array:
    """Standard normal [B, *shape], an image for each key."""
    return jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, number), shape))(keys)


def _float32(path: noise.Level) -> noise.Level:
    return jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), path)
