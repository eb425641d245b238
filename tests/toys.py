"""Tiny environments and an agent for tests: deterministic, restorable, and known exactly."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from agents import environments


@dataclasses.dataclass(frozen=True, kw_only=True)
class Counter:
    """Frames that say whose they are: uint8 [3] = (environment, game, steps into the game), all counted from 1.

    Games last 1..longest steps as (seed, environment, game) decides. Odd ones end terminally, even ones are
    truncated. After `life` steps a life is lost: terminal, and the game goes on. The reward is the step's number.
    """

    stack: int = 4
    longest: int = 9
    life: int = 3
    actions: int = 3
    frame: tuple[int, ...] = (3,)
    period: int = 1_000
    dtype = np.dtype(np.uint8)

    def make(self, count: int) -> "ToyEnvironments":
        return ToyEnvironments(self, count)

    def open(self, seed: int, env: int, game: int) -> int:
        """A game's state: here, its length."""
        return int(np.random.default_rng((seed, env, game)).integers(1, self.longest + 1))

    def see(self, env: int, game: int, time: int, state: int) -> np.ndarray:
        return np.array([env + 1, game % 255, time + 1], self.dtype)

    def advance(self, game: int, time: int, state: int, action: int) -> tuple[int, float, bool, bool, bool]:
        """The next state, reward, terminal, truncated, over; `time` counts this step."""
        over = time == state
        terminal = (over and game % 2 == 1) or time == self.life
        return state, float(time), terminal, over and not terminal, over


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tabular:
    """A deterministic MDP with one-hot states: float32 [X]. Games open in each state in turn.

    Episodes are cut after `horizon` steps, a truncation: it does not change Q*.
    """

    following: tuple[tuple[int, ...], ...] = ((1, 0), (2, 0), (3, 1), (-1, 2))  # [X][A] next state, -1: the end
    reward: tuple[tuple[float, ...], ...] = ((0.0, 0.05), (0.0, 0.1), (0.0, -0.5), (1.0, 0.1))  # [X][A]
    horizon: int = 20
    stack: int = 1
    period: int = 1_000
    dtype = np.dtype(np.float32)

    @property
    def actions(self) -> int:
        return len(self.following[0])

    @property
    def frame(self) -> tuple[int, ...]:
        return (len(self.following),)

    def make(self, count: int) -> "ToyEnvironments":
        return ToyEnvironments(self, count)

    def optimal(self, discount: float) -> np.ndarray:
        """Q* [X, A] by value iteration, to 1e-12."""
        following, reward = np.array(self.following), np.array(self.reward)
        value = np.zeros_like(reward)
        while True:
            better = reward + discount * np.where(following < 0, 0.0, value.max(axis=1)[following])
            if np.abs(better - value).max() < 1e-12:
                return better
            value = better

    def open(self, seed: int, env: int, game: int) -> int:
        return (seed + env + game) % len(self.following)

    def see(self, env: int, game: int, time: int, state: int) -> np.ndarray:
        return np.eye(len(self.following), dtype=self.dtype)[state]

    def advance(self, game: int, time: int, state: int, action: int) -> tuple[int, float, bool, bool, bool]:
        later = self.following[state][action]
        over = later < 0 or time >= self.horizon
        return max(later, 0), self.reward[state][action], later < 0, over and later >= 0, over


class ToyEnvironments:
    """N games of a `Counter` or `Tabular`; see `agents.environments.Environments`."""

    frames_per_step = 1

    def __init__(self, recipe: Counter | Tabular, count: int):
        self.count, self.actions, self.stack = count, recipe.actions, recipe.stack
        self.frame, self.dtype, self.period = recipe.frame, recipe.dtype, recipe.period
        self._recipe = recipe
        self._seed = np.zeros(count, np.int64)
        self._games = np.zeros((count, 4), np.int64)  # state, game, time, over
        self._stack = np.zeros((count, self.stack, *self.frame), self.dtype)

    def reset(self, seed: int) -> np.ndarray:
        self._seed[:] = seed
        self._games = np.array([[self._recipe.open(seed, env, 1), 1, 0, 0] for env in range(self.count)])
        return self._look(np.ones(self.count, bool))

    def reseed(self, mask: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        for env in np.flatnonzero(mask).tolist():
            self._seed[env] = seeds[env]
            self._games[env] = self._recipe.open(int(seeds[env]), env, 1), 1, 0, 0
        before = self._stack
        self._look(mask)
        self._stack[~mask] = before[~mask]
        return self._stack

    def step(self, action: np.ndarray) -> environments.Step:
        action = environments.check_actions(action, self.count, self.actions)
        opened = self._games[:, 3].astype(bool)
        results = [self._play(env, int(action[env])) for env in range(self.count)]
        reward, terminal, truncated, over = (np.array(column) for column in zip(*results, strict=True))
        self._games[:, 3] = over
        return environments.Step(self._look(opened), reward.astype(np.float32), terminal, truncated, over)

    def protocol(self) -> dict[str, Any]:
        return {"environment": "toy"}

    def close(self) -> None:
        pass

    def _play(self, env: int, action: int) -> tuple[float, bool, bool, bool]:
        state, game, time, over = (int(number) for number in self._games[env])
        if over:
            self._games[env] = self._recipe.open(int(self._seed[env]), env, game + 1), game + 1, 0, 0
            return 0.0, False, False, False
        later, reward, terminal, truncated, ended = self._recipe.advance(game, time + 1, state, action)
        self._games[env] = later, game, time + 1, 0
        return reward, terminal, truncated, ended

    def _look(self, first: np.ndarray) -> np.ndarray:
        frames = [
            self._recipe.see(env, int(game), int(time), int(state))
            for env, (state, game, time, _) in enumerate(self._games)
        ]
        self._stack = environments.push(self._stack, np.stack(frames), first)
        return self._stack


class RandomAgent:
    """Draws actions in 0..actions-1, remembers how long its games last, and tells what it saw in its extras."""

    def __init__(self, actions: int):
        self.actions = actions

    def init(self, key: jax.Array, spec: Any) -> dict[str, jax.Array]:
        return {"bias": jnp.zeros((), jnp.int32)}

    def view(self, state: Any) -> Any:
        return state

    def carry(self, envs: int) -> jax.Array:
        return jnp.zeros((envs,), jnp.int32)

    def act(self, view, carry, observation, first, key, epsilon):
        carry = jnp.where(first, 0, carry) + 1
        action = (jax.random.randint(key, first.shape, 0, self.actions) + view["bias"]) % self.actions
        return action.astype(jnp.int32), carry, {"age": carry, "stack": observation, "epsilon": epsilon}
