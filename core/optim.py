"""Schedules and optimisers from config, and the one place where an update meets a gradient."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from core import types


def linear(*, start: float, end: float, frames: int, begin: int = 0) -> Callable[[float], float]:
    """A share in [0, 1]: `start` until `begin` frames (or images), to `end` over the next `frames`, then `end`."""
    for name, share in (("start", start), ("end", end)):
        if not 0 <= share <= 1:
            raise ValueError(f"{name}={share}: a share lies in [0, 1]")
    if frames < 1:
        raise ValueError(f"frames={frames}: a schedule lasts at least 1 frame")
    if begin < 0:
        raise ValueError(f"begin={begin}: must be at least 0")
    return lambda now: start + (end - start) * min(max((now - begin) / frames, 0.0), 1.0)


def cosine(*, images: int, batch: int, warmup: int = 0, end: float = 0.0) -> Callable[[jax.Array], jax.Array]:
    """The share of the learning rate that the next update uses, by the number of updates so far (each of `batch`).

    It rises linearly over the first `warmup` images, then falls on half a cosine to `end` at `images` and stays there.
    """
    if not 0 <= warmup < images:
        raise ValueError(f"warmup={warmup}: must be at least 0 and less than the {images} images of the whole schedule")
    if batch < 1:
        raise ValueError(f"batch={batch}: an update takes at least 1 image")
    if not 0 <= end <= 1:
        raise ValueError(f"end={end}: a share of the learning rate lies in [0, 1]")

    def share(updates: jax.Array) -> jax.Array:
        seen = updates * float(batch)
        fallen = jnp.clip((seen - float(warmup)) / float(images - warmup), 0, 1)
        rising = jnp.minimum((seen + batch) / float(max(warmup, batch)), 1)  # never 0: the first update counts, too
        return rising * (end + (1 - end) * (1 + jnp.cos(jnp.pi * fallen)) / 2)

    return share


def optimizer(
    *,
    rule: Callable[..., optax.GradientTransformation],
    learning_rate: float,
    clip_norm: float | None = None,
    schedule: Callable[[jax.Array], jax.Array] | None = None,
) -> optax.GradientTransformation:
    """`rule(learning_rate)`, after clipping the gradient's global norm to `clip_norm` where that is given.

    `schedule` gives the share of `learning_rate` by the number of updates so far, [] int32.
    """
    if not learning_rate > 0:
        raise ValueError(f"learning_rate={learning_rate}: must be greater than 0")
    if clip_norm is not None and not clip_norm > 0:
        raise ValueError(f"clip_norm={clip_norm}: must be greater than 0, or null for no clipping")
    numbers = {name: value for name, value in getattr(rule, "keywords", {}).items() if isinstance(value, int | float)}
    for name, value in numbers.items():
        if name in ("b1", "b2", "decay", "momentum") and not 0 <= value < 1:
            raise ValueError(f"rule.{name}={value}: must be at least 0 and less than 1")
        if name in ("eps", "eps_root", "weight_decay") and value < 0:
            raise ValueError(f"rule.{name}={value}: must be at least 0")
    update = rule(learning_rate if schedule is None else lambda updates: learning_rate * schedule(updates))
    return update if clip_norm is None else optax.chain(optax.clip_by_global_norm(clip_norm), update)


def gradient(
    loss: Callable[[types.Params, Any, jax.Array], tuple[jax.Array, types.Metrics]],
    params: types.Params,
    batch: Any,
    key: jax.Array,
    *,
    parts: int = 1,
) -> tuple[tuple[jax.Array, types.Metrics], types.Params]:
    """((loss, metrics), gradient) of `loss(params, batch, key)`, a mean over the leading axis of `batch`.

    With `parts` above 1 they are the means over so many parts of the batch, each with a key of its own, one after the
    other: the activations of one part alone take memory. Each part has rows of every device.
    """
    differentiate = jax.value_and_grad(loss, has_aux=True)
    if parts == 1:
        return differentiate(params, batch, key)
    cut = lambda leaf: jnp.moveaxis(leaf.reshape(-1, parts, *leaf.shape[1:]), 1, 0)
    pieces = (jax.tree.map(cut, batch), jax.random.split(key, parts))
    first = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), pieces)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(differentiate, params, *first))
    add = lambda total, piece: (jax.tree.map(jnp.add, total, differentiate(params, *piece)), None)
    return jax.tree.map(lambda leaf: leaf / parts, jax.lax.scan(add, zeros, pieces)[0])


def check_parts(parts: int, batch: int) -> None:
    """Raises ValueError where a batch of that size cannot be cut into so many parts."""
    if parts < 1 or batch % parts:
        fitting = [n for n in range(1, batch + 1) if batch % n == 0]
        near = sorted(fitting, key=lambda n: abs(n - parts))[:2]
        raise ValueError(
            f"learner.accumulate={parts}: does not divide the batch of {batch} images; take "
            f"{' or '.join(map(str, sorted(near)))}"
        )


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
