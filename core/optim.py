"""Schedules and optimisers from config, and the one place where an update meets a gradient."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from core import types


def linear(*, start: float, end: float, frames: int) -> Callable[[float], float]:
    """`start` to `end` over the first `frames` (or images), `end` from then on."""
    if frames < 1:
        raise ValueError(f"frames={frames}: a schedule lasts at least 1 frame")
    return lambda now: start + (end - start) * min(max(now / frames, 0.0), 1.0)


def optimizer(
    *, rule: Callable[..., optax.GradientTransformation], learning_rate: float, clip_norm: float | None = None
) -> optax.GradientTransformation:
    """`rule(learning_rate)`, after clipping the gradient's global norm to `clip_norm` where that is given."""
    if not learning_rate > 0:
        raise ValueError(f"learning_rate={learning_rate}: must be greater than 0")
    if clip_norm is not None and not clip_norm > 0:
        raise ValueError(f"clip_norm={clip_norm}: must be greater than 0, or null for no clipping")
    update = rule(learning_rate)
    return update if clip_norm is None else optax.chain(optax.clip_by_global_norm(clip_norm), update)


def apply(
    transformation: optax.GradientTransformation,
    *,
    loss: jax.Array,
    gradient: types.Params,
    params: types.Params,
    opt_state: optax.OptState,
    healthy: jax.Array,
) -> tuple[types.Params, optax.OptState, jax.Array, jax.Array]:
    """One guarded update: once a loss or a gradient was not finite, the old values stay for good.

    Returns (params, opt_state, healthy [] bool, gradient norm [] before clipping).
    """
    norm = optax.tree.norm(gradient)
    healthy = healthy & jnp.isfinite(loss) & jnp.isfinite(norm)
    updates, moved = transformation.update(gradient, opt_state, params)
    keep = lambda new, old: jnp.where(healthy, new, old)
    params = jax.tree.map(lambda p, u: keep(p + u.astype(p.dtype), p), params, updates)
    return params, jax.tree.map(keep, moved, opt_state), healthy, norm
