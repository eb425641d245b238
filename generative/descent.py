"""What models trained by one loss share: a state with averaged weights, and one guarded update."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from core import optim, types
from generative import averaging

Averages = Mapping[str, averaging.Average]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class State(types.TrainState):
    """A `TrainState` with averages of the weights, by name."""

    ema_params: dict[str, types.Params]


def begin(
    key: jax.Array, params: types.Params, optimizer: optax.GradientTransformation, averages: Averages, **aux: Any
) -> State:
    """The state at step 0: every average starts as the weights."""
    return State(
        step=jnp.zeros((), jnp.int32),
        key=key,
        params=params,
        aux=aux,
        opt_state=optimizer.init(params),
        diverged=-jnp.ones((), jnp.int32),
        ema_params={name: jax.tree.map(jnp.copy, params) for name in averages},
    )


def descend(
    state: State,
    loss: Callable[[types.Params, types.Images, jax.Array], tuple[jax.Array, types.Metrics]],
    batch: types.Images,
    optimizer: optax.GradientTransformation,
    averages: Averages,
    *,
    accumulate: int = 1,
) -> tuple[State, types.Metrics]:
    """One update by `loss(params, batch, key)` -> ([] loss, metrics), its gradient taken in `accumulate` parts."""
    key, images = jax.random.fold_in(state.key, state.step), batch.image.shape[0]
    (value, metrics), gradient = optim.gradient(loss, state.params, batch, key, parts=accumulate)
    params, opt_state, healthy, norm = optim.apply(
        optimizer,
        loss=value,
        gradient=gradient,
        params=state.params,
        opt_state=state.opt_state,
        healthy=state.diverged < 0,
    )
    state = dataclasses.replace(
        state,
        step=state.step + 1,
        params=params,
        opt_state=opt_state,
        diverged=jnp.where(healthy | (state.diverged >= 0), state.diverged, state.step),
    )
    state = dataclasses.replace(state, ema_params=averaged(state, params, averages, images=images))
    return state, {"loss/total": value, "grad/norm": norm, **metrics}


def averaged(state: State, params: types.Params, averages: Averages, *, images: int) -> dict[str, types.Params]:
    """The averages as `params` enter, after `state.step` steps of so many `images`; once a loss diverged none do."""
    seen = state.step.astype(jnp.float32) * images
    moved = {
        name: averaging.update(average, state.ema_params[name], params, seen, images)
        for name, average in averages.items()
    }
    return jax.tree.map(lambda new, old: jnp.where(state.diverged < 0, new, old), moved, state.ema_params)


def chosen(state: State, averages: Averages) -> dict[str, types.Params]:
    """What is sampled with and judged: the average that the config names first, or the weights where none is kept."""
    name = next(iter(averages), None)
    return {"params": state.params if name is None else state.ema_params[name]}
