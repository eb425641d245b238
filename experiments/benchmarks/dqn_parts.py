"""The parts of a DQN run, each on its own: a process of the suite `dqn` (see `timing.serve`).

    python -m experiments.benchmarks.dqn_parts --batches 32 256 --convolutions ours experiment=dqn/nature [...]

Arrays have the sizes of the run that the overrides describe, and its replay is full.
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
from core import convolution, optim, platform, replay, windows
from experiments.benchmarks import timing
from experiments.config import build, command_line

MOST_SCANNED = 8  # updates, as in a step of the run
MOST_SAMPLED = 2**28  # bytes of samples for a scan, which bounds the updates of a large batch


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--convolutions", choices=("ours", "library"), required=True)
    parser.add_argument("--batches", type=int, nargs="+", required=True)
    parser.add_argument("overrides", nargs="*")
    given = parser.parse_intermixed_args()
    if given.convolutions == "library":
        convolution.conv_general_dilated = lax.conv_general_dilated
    platform.cache()
    settings = command_line.compose(*given.overrides)
    run = build.run(settings)
    parts = updating(run, given.batches)
    if given.convolutions == "ours":
        recipe = build.objects(settings["source"]["environments"], "source.environments")
        parts |= acting(run, recipe.make(settings["source"]["envs"])) | remembering(run) | prioritised()
    facts = {
        "update_every": run.learner.update_every,
        "frames_per_step": run.source.examples_per_step // run.source.spec.action.size,
        "transition_bytes": transition_bytes(run),
    }
    timing.serve(parts, facts)


def acting(run: build.Run, games: environments.Environments) -> dict[str, timing.Part]:
    """`environment` and `act`: one step of all games, and the actions for one. Counted in environment steps."""
    random = np.random.default_rng(0)
    observation, key = games.reset(seed=0), jax.random.key(0)
    view = {"params": run.learner.network.init(key)}
    first, epsilon = np.zeros(games.count, bool), np.full(games.count, 0.1, np.float32)
    act = jax.jit(run.learner.act)

    def environment() -> int:
        games.step(random.integers(games.actions, size=games.count).astype(np.int32))
        return games.count

    def choose() -> int:
        return len(np.asarray(act(view, (), observation, first, key, epsilon)[0]))

    return {"environment": environment, "act": choose}


def remembering(run: build.Run) -> dict[str, timing.Part]:
    """`insert` and `step` a rollout, counted in environment steps, and `sample` a batch.

    `step` is the learner's whole step: it inserts, samples and updates.
    """
    learner, key = run.learner, jax.random.key(0)
    random = np.random.default_rng(0)
    rollout = jax.tree.map(lambda leaf: noise(random, leaf.shape, leaf.dtype), run.source.spec)
    held = [_full(jax.jit(lambda key: learner.init(key, run.source.spec))(key))]
    absorb = jax.jit(learner.absorb, donate_argnums=0)
    step = jax.jit(lambda state, rollout: learner.step(state, rollout)[0], donate_argnums=0)
    draw = jax.jit(lambda state: learner.replay.sample(state, key, batch=learner.batch, discount=learner.discount))

    def taken(function: Any) -> timing.Part:
        def call() -> int:
            held[0] = jax.block_until_ready(function(held[0], rollout))
            return rollout.action.size

        return call

    def sample() -> int:
        jax.block_until_ready(draw(held[0].replay))
        return 1

    return {"insert": taken(absorb), "sample": sample, "step": taken(step)}


def prioritised() -> dict[str, timing.Part]:
    """`draw` of 32 by priority from a memory of 1,000,000 transitions of 8 games, without their frames."""
    sampler, rows, games, key = replay.Prioritized(), 125_000, 8, jax.random.key(0)
    priority = jax.random.uniform(key, (rows, games), minval=0.1)
    sums = {"row_sum": priority.sum(axis=1), "row_held": jnp.full(rows, games)}
    state = sampler.init(rows, games) | {"priority": priority} | sums
    age = jnp.int32
    window = replay.Window(rows=rows, streams=games, oldest=age(0), low=age(0), high=age(rows))
    drawn = jax.jit(lambda state, key: sampler.draw(state, key, lambda index: index >= 0, window, 32, jnp.int32(0)))

    def draw() -> int:
        jax.block_until_ready(drawn(state, key))
        return 1

    return {"draw": draw}


def updating(run: build.Run, batches: Sequence[int]) -> dict[str, timing.Part]:
    """`single <batch>` and `scan <batch>`: updates from samples at hand, one a call and many in a scan."""
    learner = run.learner
    params = learner.network.init(jax.random.key(0))
    update = one_update(learner)

    def repeated(function: Any, samples: windows.Sample, count: int) -> timing.Part:
        compiled = jax.jit(lambda weights, samples: function(weights, samples)[0], donate_argnums=0)
        held = [jax.tree.map(jnp.copy, (params, learner.optimizer.init(params), params))]

        def call() -> int:
            held[0] = jax.block_until_ready(compiled(held[0], samples))
            return count

        return call

    parts = {}
    for batch in batches:
        samples = random_samples(run, batch)
        one, many = jax.tree.map(lambda leaf: leaf[0], samples), len(samples.reward)
        parts[f"single {batch}"] = repeated(update, one, 1)
        parts[f"scan {batch}"] = repeated(lambda weights, samples: lax.scan(update, weights, samples), samples, many)
    return parts


def one_update(learner: Any) -> Callable[[Any, windows.Sample], tuple[Any, None]]:
    """(parameters, optimiser's state, target's parameters) after an update from a sample; fit for a scan."""

    def update(weights: Any, sample: windows.Sample) -> tuple[Any, None]:
        differentiate = jax.value_and_grad(learner.loss_and_errors, has_aux=True)
        (loss, _), gradient = differentiate(weights[0], weights[2], sample)
        moved = optim.apply(
            learner.optimizer,
            loss=loss,
            gradient=gradient,
            params=weights[0],
            opt_state=weights[1],
            healthy=jnp.asarray(True),
        )
        return (*moved[:2], weights[2]), None

    return update


def transition_bytes(run: build.Run) -> float:
    """What a transition takes in the replay, all arrays counted."""
    ring = jax.eval_shape(run.learner.replay.init, run.source.spec)
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(ring)) / ring.action.size


def noise(random: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Bytes and numbers at random; true flags are rare, as the ends of games are."""
    if dtype == np.uint8:
        return random.integers(256, size=shape, dtype=np.uint8)
    return (random.random(shape) < 0.01).astype(dtype)


def _full(state: Any) -> Any:
    """The state with a replay in which every row may be drawn."""
    ring = state.replay
    ring = dataclasses.replace(ring, valid=jnp.ones_like(ring.valid), count=jnp.asarray(ring.valid.shape[1], jnp.int32))
    return dataclasses.replace(state, replay=ring)


def random_samples(run: build.Run, batch: int) -> windows.Sample:
    """Random ones, [U, B, ...] each."""
    sizes, dtype = run.source.sizes, run.source.spec.observation.dtype
    bytes_each = 2 * batch * int(np.prod(sizes["observation"])) * dtype.itemsize
    lead = (max(2, min(MOST_SCANNED, MOST_SAMPLED // bytes_each)), batch)
    random = np.random.default_rng(0)
    frames = lambda: jnp.asarray(noise(random, (*lead, *sizes["observation"]), dtype))
    return windows.Sample(
        observation=frames(),
        action=jnp.asarray(random.integers(sizes["actions"], size=lead), jnp.int32),
        reward=jnp.asarray(random.random(lead), jnp.float32),
        discount=jnp.full(lead, 0.99),
        next_observation=frames(),
        extras=(),
        weight=jnp.ones(lead),
        index=jnp.zeros((lead[0], 1, batch), jnp.int32),
    )


if __name__ == "__main__":
    main()
