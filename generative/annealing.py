"""Values that move over a run: from a start to an end on half a cosine of the images seen.

A modern GAN moves its learning rate, β2, penalty and average on one such cosine (R3GAN, 2501.05441). Wherever a
`Course` is wanted, `[start, end]` moves and a plain number stays.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from core import ranges

Course = float | tuple[float, float]


def at(course: Course, progress: jax.Array) -> jax.Array:
    """The value at `progress` [], 0 at the start of the run and 1 at its end; it stays at its end from then on."""
    start, end = course if isinstance(course, tuple) else (course, course)
    fallen = (1 + jnp.cos(jnp.pi * jnp.clip(progress, 0, 1))) / 2
    return end + (start - end) * jnp.asarray(fallen, jnp.float32)


def check(name: str, course: Course, *, least: float, below: float = float("inf")) -> None:
    """Raises: ValueError where a course leaves [least, below)."""
    if not all(least <= value < below for value in (course if isinstance(course, tuple) else (course,))):
        limit = f"at least {least:g}" + (f" and below {below:g}" if below < float("inf") else "")
        raise ValueError(f"{name}={course}: must be {limit}; [start, end] moves it over the run")


def adam(
    learning_rate: float, *, end: float = 1.0, b1: float = 0.0, b2: Course = 0.99, eps: float = 1e-8
) -> optax.GradientTransformationExtraArgs:
    """Adam whose learning rate moves to its share `end` and whose β2 is a course; its `update` wants `progress`."""
    if not 0 <= end <= 1:
        raise ValueError(f"end={end}: a share of the learning rate lies in [0, 1]")
    check("b2", b2, least=0, below=1)

    def update(gradient: Any, state: Any, params: Any = None, *, progress: jax.Array, **_: Any) -> Any:
        rate = learning_rate * at((1.0, end), progress)
        rule = optax.adam(rate, b1=b1, b2=at(b2, progress), eps=eps)  # type: ignore
        return rule.update(gradient, state, params)

    return optax.GradientTransformationExtraArgs(optax.adam(learning_rate).init, update)  # pyright: ignore


@dataclasses.dataclass(frozen=True, kw_only=True)
class HalfLife:
    """An `averaging.Average` in which old weights count half after `images`, a course over the first `over` images."""

    images: Course
    over: ranges.PositiveInt

    def __post_init__(self):
        ranges.check(self)
        check("images", self.images, least=0)

    def decay(self, images: jax.Array, batch: int) -> jax.Array:
        before = images - batch
        life = at(self.images, before / self.over)
        return jnp.where(before > 0, 0.5 ** (batch / jnp.maximum(life, 1e-6)), 0.0)
