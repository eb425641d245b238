"""From noise to an image, along any path of levels, with any denoiser D(x; α, σ) = E[x₀ | x].

A denoiser splits x = α D + σ ε̂ into image and noise, and the probability-flow ODE is dx = D dα + ε̂ dσ. While D stays
the same its exact solution is `move`, which is DDIM; every rule below is `move` with something of its own added.
Nothing here knows what the network predicts, or along which levels it was trained.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from generative import noise

Denoise = Callable[[jax.Array, noise.Level], jax.Array]  # x [B, H, W, C] at a level of [] arrays -> D like x
Draw = Callable[[jax.Array], jax.Array]  # number of a step [] -> standard normal like x

_START = 2**32 - 3  # what a key is folded with for the first noise, far from the numbers of steps
_LEAST = 1e-12


class Rule(Protocol):
    def evaluations(self, steps: int) -> int:
        """How often the denoiser is asked."""
        ...

    def __call__(self, denoise: Denoise, draw: Draw, path: noise.Level, x: jax.Array) -> jax.Array:
        """From x [B, H, W, C] at the first level of path [N + 1] to the image at the last."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampler:
    """`rule` over `steps` levels of `grid`, or of the path that the model was trained along where that is None.

    `guidance` s samples from u + s (c - u), with u the unconditional and c the conditional denoiser (2207.12598): 1 is
    the conditional model itself, 0 the unconditional one. `clip` keeps D within [-1, 1], where the mean of images lies:
    models of ε need it near pure noise, where D is a small difference divided by a small α. `watch` is called at every
    evaluation, to show progress.
    """

    rule: Rule
    steps: int = 50
    guidance: float = 1.0
    grid: noise.Path | None = None
    clip: bool = False
    watch: Callable[[], None] | None = None

    def __post_init__(self):
        if self.steps < 1:
            raise ValueError(f"steps={self.steps}: must be at least 1")
        if not self.guidance >= 0:
            raise ValueError(f"guidance={self.guidance}: must be at least 0; 1 is the plain conditional model")

    @property
    def evaluations(self) -> int:
        """How often the network is asked for an image (twice each time with guidance other than 0 and 1)."""
        return self.rule.evaluations(self.steps)

    def path(self, trained: noise.Noise) -> noise.Level:
        """Levels [steps + 1], within those that a model `trained` so has seen. Raises ValueError where none fit."""
        return trained.path(self.steps) if self.grid is None else self.grid.path(self.steps, trained.limits)

    def __call__(self, denoise: Denoise, path: noise.Level, keys: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Images float32 [B, *shape]; image i is a function of keys[i] alone."""

        def draw(step: jax.Array | int) -> jax.Array:
            return jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, step), shape))(keys)

        def watched(x: jax.Array, level: noise.Level) -> jax.Array:
            if self.watch is not None:
                jax.debug.callback(self.watch)
            clean = denoise(x, level)
            return jnp.clip(clean, -1, 1) if self.clip else clean

        start = float(path.sigma[0]) * draw(_START)
        return self.rule(watched, draw, path, start)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ancestral:
    """DDPM's chain backwards (2006.11239), with the variance of q(x_s | x_t, x₀) (`small`) or of q(x_t | x_s)."""

    variance: Literal["small", "large"] = "small"

    def __post_init__(self):
        if self.variance not in ("small", "large"):
            raise ValueError(f"variance={self.variance}: must be small or large")

    def evaluations(self, steps: int) -> int:
        return steps

    def __call__(self, denoise: Denoise, draw: Draw, path: noise.Level, x: jax.Array) -> jax.Array:
        def step(x: jax.Array, now: noise.Level, then: noise.Level, index: jax.Array) -> jax.Array:
            small, large = posterior_variances(now, then)
            fresh = small if self.variance == "small" else jnp.where(then.sigma > 0, large, 0)
            return _renoised(move(x, denoise(x, now), now, _without(then, small)), fresh, draw(index))

        return _walk(step, path, x)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DDIM:
    """Song et al. 2020 (2010.02502, eq. 12): η = 0 is deterministic, 1 is `Ancestral` with its small variance."""

    eta: float = 0.0

    def __post_init__(self):
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta={self.eta}: must lie in [0, 1]")

    def evaluations(self, steps: int) -> int:
        return steps

    def __call__(self, denoise: Denoise, draw: Draw, path: noise.Level, x: jax.Array) -> jax.Array:
        def step(x: jax.Array, now: noise.Level, then: noise.Level, index: jax.Array) -> jax.Array:
            if self.eta == 0:
                return move(x, denoise(x, now), now, then)
            fresh = self.eta**2 * posterior_variances(now, then)[0]
            return _renoised(move(x, denoise(x, now), now, _without(then, fresh)), fresh, draw(index))

        return _walk(step, path, x)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Churn:
    """Fresh noise before a step, where σ/α lies in [least, greatest] (2206.00364, algorithm 2)."""

    amount: float = 40.0
    least: float = 0.05
    greatest: float = 50.0
    inflation: float = 1.003  # of the fresh noise's standard deviation

    def __post_init__(self):
        if not self.amount >= 0:
            raise ValueError(f"amount={self.amount}: must be at least 0")

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

    def __call__(self, denoise: Denoise, draw: Draw, path: noise.Level, x: jax.Array) -> jax.Array:
        def step(x: jax.Array, now: noise.Level, then: noise.Level, index: jax.Array) -> jax.Array:
            if self.churn is not None:
                x, now = self.churn(x, now, len(path.sigma) - 1, draw(index))
            return move(x, denoise(x, now), now, then)

        return _walk(step, path, x)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Heun:
    """The trapezoidal rule of dx = D dα + ε̂ dσ, the last step plain (2206.00364, algorithms 1 and 2 at α = 1)."""

    churn: Churn | None = None

    def evaluations(self, steps: int) -> int:
        return 2 * steps - 1

    def __call__(self, denoise: Denoise, draw: Draw, path: noise.Level, x: jax.Array) -> jax.Array:
        steps = len(path.sigma) - 1

        def evaluate(carry: tuple, given: tuple) -> tuple[tuple, None]:
            """Even numbers step ahead from `x`; odd ones judge the slope where that led and step again."""
            x, clean, began, ahead = carry
            index, correct, now, then = given
            fresh, raised = (ahead, now) if self.churn is None else self.churn(ahead, now, steps, draw(index))
            x, began = _choose(correct, (x, began), (fresh, raised))
            where, at = _choose(correct, (ahead, then), (x, began))
            found = denoise(where, at)
            slopes = (clean + found) / 2, (_noise_in(x, clean, began) + _noise_in(ahead, found, then)) / 2
            corrected = x + (then.alpha - began.alpha) * slopes[0] + (then.sigma - began.sigma) * slopes[1]
            ahead = jnp.where(correct, corrected, move(x, found, began, then))
            return (x, found, began, ahead), None

        number = np.arange(self.evaluations(steps))
        path = _float32(path)
        now, then = (jax.tree.map(lambda a, k=k: a[number // 2 + k], path) for k in (0, 1))
        first = jax.tree.map(lambda a: a[0], path)
        carry = (x, jnp.zeros_like(x), first, x)
        return jax.lax.scan(evaluate, carry, (number // 2, number % 2 == 1, now, then))[0][3]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DPMSolver:
    """DPM-Solver++ 2M (2211.01095, algorithm 2): D is extrapolated in ln(α/σ), not in the first and the last step."""

    def evaluations(self, steps: int) -> int:
        return steps

    def __call__(self, denoise: Denoise, draw: Draw, path: noise.Level, x: jax.Array) -> jax.Array:
        def step(carry: tuple, now: noise.Level, then: noise.Level, index: jax.Array) -> tuple:
            x, before, width = carry
            clean = denoise(x, now)
            ahead = noise.log_ratio(now) - noise.log_ratio(then)
            plain = (index == 0) | (then.sigma == 0)
            slope = jnp.where(plain, 0, ahead / (2 * jnp.maximum(width, _LEAST)))
            return move(x, clean + slope * (clean - before), now, then), clean, ahead

        return _walk(step, path, (x, jnp.zeros_like(x), jnp.zeros(())))[0]


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


def _walk(step: Callable, path: noise.Level, carry: Any) -> Any:
    """`carry = step(carry, now, then, index)` from level to level, as one loop."""
    path = _float32(path)
    now, then = (jax.tree.map(lambda a, part=part: a[part], path) for part in (slice(None, -1), slice(1, None)))
    body = lambda carry, given: (step(carry, *given), None)
    return jax.lax.scan(body, carry, (now, then, jnp.arange(len(now.sigma))))[0]


def _float32(path: noise.Level) -> noise.Level:
    return jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), path)
