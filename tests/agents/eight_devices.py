"""Run by test_dqn.py on eight simulated devices: the same numbers as on one, and one all-reduce an update."""

import functools
from collections import Counter

import jax
import numpy as np
import optax

from agents import dqn, networks, td
from core import mesh, network, optim, replay, types, windows
from experiments.benchmarks import programs

SHARDS, STEPS, STREAMS, FRAME = 8, 4, 1, (84, 84)
UPDATES, PER_STEP = 20, 2


def learner() -> dqn.DQN:
    make = functools.partial(networks.QNetwork, torso=networks.NatureCNN, head=networks.PlainHead)
    return dqn.DQN(
        network=network.Network(make=make, sizes={"observation": (4, *FRAME), "actions": 6}),
        optimizer=optim.optimizer(rule=optax.sgd, learning_rate=1e-2),
        replay=replay.Replay(
            capacity=SHARDS * 64, shards=SHARDS, read=windows.Transitions(n_step=3), sampler=replay.Prioritized()
        ),
        target=dqn.HardUpdate(period=6),
        bootstrap=td.double_bootstrap,
        update_every=SHARDS * STEPS * STREAMS // PER_STEP,
        learning_starts=64,
    )


def rollouts(count: int) -> list[types.Rollout]:
    rng, shape = np.random.default_rng(0), (SHARDS, STEPS, STREAMS)
    flag = lambda share: rng.random(shape) < share
    return [
        types.Rollout(
            observation=rng.integers(0, 256, (*shape, *FRAME), dtype=np.uint8),
            action=rng.integers(0, 6, shape, dtype=np.int32),
            reward=rng.normal(size=shape).astype(np.float32),
            terminal=flag(0.05),
            truncated=flag(0.05),
            first=flag(0.05),
            valid=flag(0.95),
            context=np.zeros((SHARDS, 3, STREAMS, *FRAME), np.uint8),
            tail=np.zeros((SHARDS, STREAMS, *FRAME), np.uint8),
            extras=(),
        )
        for _ in range(count)
    ]


def train(devices: int) -> tuple[dict, str]:
    """The state's arrays after `UPDATES` updates, and the compiled step."""
    agent, placement = learner(), mesh.Placement(data=devices)
    over, batches = placement.mesh(), rollouts(8 + UPDATES // PER_STEP)
    abstract = jax.eval_shape(agent.init, jax.random.key(0), batches[0])
    shardings = placement.shardings(abstract, over)
    state = jax.jit(lambda key: agent.init(key, batches[0]), out_shardings=shardings)(jax.random.key(0))
    step = jax.jit(agent.step, donate_argnums=0, out_shardings=(shardings, None))
    absorb = jax.jit(agent.absorb, donate_argnums=0, out_shardings=shardings)
    for index, batch in enumerate(batches):
        batch = mesh.globalize(batch, over)
        state = absorb(state, batch) if index < 8 else step(state, batch)[0]
        jax.block_until_ready(state)
    program = step.lower(state, mesh.globalize(batches[0], over)).compile().as_text() or ""
    return jax.tree.map(np.asarray, jax.device_get(state_arrays(state))), program


def state_arrays(state: dqn.DQNState) -> dict:
    return {"params": state.params, "target": state.target_params, "replay": state.replay, "updates": state.updates}


def main() -> None:
    assert jax.device_count() == 8
    one, _ = train(1)
    eight, program = train(8)
    assert int(one["updates"]) == UPDATES
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), one, eight)

    # Once an update: all gradients and the loss's means in one all-reduce, and the largest weight of the batch.
    crossing = programs.crossings(program)
    assert {each.operation for each in crossing} == {"all-reduce"}, crossing
    elements = Counter(size for each in crossing for size in each.elements)
    parameters = Counter(leaf.size for leaf in jax.tree.leaves(one["params"]))
    scalars = elements - parameters
    assert not parameters - elements, "a gradient is not reduced"
    assert set(scalars) == {1} and scalars[1] == 4, scalars  # loss, mean value, mean error; the largest weight
    assert len(crossing) == 2, crossing


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    main()
