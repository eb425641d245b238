"""The parts of a DQN run, each on its own: a process of the suite `dqn` (see `timing.serve`).

    python -m experiments.benchmarks.dqn_parts --convolutions ours --batches 32 256 experiment=dqn/nature [...]

Arrays have the sizes of the run that the overrides describe, with a full replay.
"""

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from agents import environments
from core import convolution, optim, platform, replay, types
from experiments import build, config
from experiments.benchmarks import timing

Part = Callable[[], Any]
SCANNED = 8  # updates in one scan, as in a step of the run; fewer for a large batch
SCANNED_BYTES = 10**8  # of samples that one scan goes through


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--convolutions", choices=("ours", "library"), required=True)
    parser.add_argument("--batches", type=int, nargs="+", required=True)
    parser.add_argument("overrides", nargs="*")
    given = parser.parse_intermixed_args()
    if given.convolutions == "library":
        convolution.conv_general_dilated = lax.conv_general_dilated
    platform.cache()
    settings = config.compose(*given.overrides)
    run = build.run(settings)
    parts = updates(run, given.batches)
    if given.convolutions == "ours":
        games = build.objects(settings["source"]["environments"], "source.environments").make(settings["source"]["envs"])
        parts |= acting(run, games) | remembering(run)
    timing.serve(parts)


def acting(run: build.Run, games: environments.Environments) -> dict[str, Part]:
    """`environment` and `act`: one step of all games, and the actions for it."""
    random = np.random.default_rng(0)
    observation = games.reset(seed=0)
    act = jax.jit(run.learner.act)
    view = run.learner.view(types_state(run))
    first, epsilon = np.zeros(games.count, bool), np.full(games.count, 0.1, np.float32)
    key = jax.random.key(0)
    return {
        "environment": lambda: games.step(random.integers(games.actions, size=games.count, dtype=np.int32)),
        "act": lambda: np.asarray(act(view, (), observation, first, key, epsilon)[0]),
    }


def remembering(run: build.Run) -> dict[str, Part]:
    """`insert` a rollout, `sample` a batch, and `step`: the learner's whole step, with its updates."""
    learner, random = run.learner, np.random.default_rng(0)
    rollout = jax.tree.map(lambda leaf: _noise(random, leaf), run.source.spec)
    rollout = dataclasses.replace(rollout, valid=np.ones_like(rollout.valid))
    memory = _Held(full(run))
    absorb = jax.jit(learner.absorb, donate_argnums=0)
    step = jax.jit(lambda state, rollout: learner.step(state, rollout)[0], donate_argnums=0)
    draw = jax.jit(lambda state, key: learner.replay.sample(state, key, batch=learner.batch, discount=learner.discount))
    key = jax.random.key(0)
    return {
        "insert": lambda: memory.become(absorb(memory.value, rollout)),
        "sample": lambda: jax.block_until_ready(draw(memory.value.replay, key)),
        "step": lambda: memory.become(step(memory.value, rollout)),
    }


def updates(run: build.Run, batches: Sequence[int]) -> dict[str, Part]:
    """`single <batch>` and `scan <batch>`: updates from samples at hand, called one by one and in a scan."""
    learner, parts = run.learner, {}
    state = types_state(run)

    def update(weights: Any, sample: replay.Sample) -> tuple[Any, None]:
        params, opt_state = weights
        differentiate = jax.value_and_grad(learner.loss_and_errors, has_aux=True)
        (loss, _), gradient = differentiate(params, state.target_params, sample)
        params, opt_state, _, _ = optim.apply(
            learner.optimizer,
            loss=loss,
            gradient=gradient,
            params=params,
            opt_state=opt_state,
            healthy=jnp.asarray(True),
        )
        return (params, opt_state), None

    for batch in batches:
        samples = _samples(run, batch)
        one, many = jax.tree.map(lambda leaf: leaf[0], samples), len(samples.reward)
        for name, function, data in (("single", lambda w, s: update(w, s)[0], one), ("scan", _scanned(update), samples)):
            held = _Held(jax.tree.map(jnp.copy, (state.params, state.opt_state)))
            parts[f"{name} {batch}"] = _stepping(held, jax.jit(function, donate_argnums=0), data)
        parts[f"updates in scan {batch}"] = lambda many=many: many
    return parts
