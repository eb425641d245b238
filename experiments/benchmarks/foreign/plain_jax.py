"""The DQN that one writes first: one gymnasium game, a NumPy replay of stacks, a jitted update.

`plain_jax <seconds>`
"""
# pyright: reportMissingImports=false, reportArgumentType=false, reportAttributeAccessIssue=false

import sys

import ale_py
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen

from experiments.benchmarks import timing

CAPACITY, STARTS, BATCH = 100_000, 1_000, 32
EPSILON, DISCOUNT, TARGET_EVERY = 0.1, 0.99, 10_000  # the last in environment steps


class Network(linen.Module):
    """Nature's, for [B, 84, 84, 4] uint8."""

    actions: int

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = x.astype(jnp.float32) / 255
        for features, size, stride in ((32, 8, 4), (64, 4, 2), (64, 3, 1)):
            x = linen.relu(linen.Conv(features, (size, size), (stride, stride), padding="VALID")(x))
        x = linen.relu(linen.Dense(512)(x.reshape(x.shape[0], -1)))
        return linen.Dense(self.actions)(x)


class Ring:
    """Transitions in NumPy; the next observation of row i is that of row i + 1."""

    def __init__(self):
        self._observation = np.zeros((CAPACITY, 84, 84, 4), np.uint8)
        self._rest = np.zeros((CAPACITY, 3), np.float32)  # action, reward, terminal
        self._count = 0

    def add(self, observation: np.ndarray, action: int, reward: float, terminal: bool) -> None:
        row = self._count % CAPACITY
        self._observation[row], self._rest[row] = observation, (action, np.clip(reward, -1, 1), terminal)
        self._count += 1

    def sample(self, random: np.random.Generator) -> tuple[np.ndarray, ...]:
        rows = random.integers(min(self._count, CAPACITY) - 1, size=BATCH)
        return self._observation[rows], self._observation[(rows + 1) % CAPACITY], self._rest[rows]


def main() -> None:
    gymnasium.register_envs(ale_py)
    game = gymnasium.make("ALE/Pong-v5", frameskip=1, repeat_action_probability=0.0)
    game = gymnasium.wrappers.AtariPreprocessing(game, noop_max=30, frame_skip=4, screen_size=84)
    game = gymnasium.wrappers.FrameStackObservation(game, 4)
    stack = lambda frames: np.moveaxis(np.asarray(frames), 0, -1)
    network = Network(int(game.action_space.n))
    params = network.init(jax.random.key(0), np.zeros((1, 84, 84, 4), np.uint8))
    optimizer = optax.adam(2.5e-4, eps=1.5e-4)
    target, opt_state = params, optimizer.init(params)
    greedy = jax.jit(lambda params, observation: jnp.argmax(network.apply(params, observation[None])[0]))

    @jax.jit
    def update(params, target, opt_state, observation, later, rest):
        action, reward, terminal = rest[:, 0].astype(jnp.int32), rest[:, 1], rest[:, 2]
        wanted = reward + DISCOUNT * (1 - terminal) * network.apply(target, later).max(axis=1)

        def loss(params):
            value = jnp.take_along_axis(network.apply(params, observation), action[:, None], axis=1)[:, 0]
            return optax.huber_loss(value, wanted).mean()

        updates, opt_state = optimizer.update(jax.grad(loss)(params), opt_state)
        return optax.apply_updates(params, updates), opt_state

    watch = timing.Stopwatch(seconds=float(sys.argv[1]), after=STARTS + 100)
    ring, random, steps = Ring(), np.random.default_rng(0), 0
    observation = stack(game.reset(seed=0)[0])
    while watch.step():
        steps += 1
        action = random.integers(network.actions) if random.random() < EPSILON else int(greedy(params, observation))
        frames, reward, terminal, truncated, _ = game.step(action)
        ring.add(observation, action, float(reward), terminal)
        observation = stack(game.reset()[0] if terminal or truncated else frames)
        if steps > STARTS and steps % 4 == 0:
            params, opt_state = update(params, target, opt_state, *ring.sample(random))
        if steps % TARGET_EVERY == 0:
            target = params
    jax.block_until_ready(params)
    watch.tell()


if __name__ == "__main__":
    main()
