"""Any gymnasium environment with discrete actions, for quick work: `CartPole-v1` and its kind.

Observations are vectors (float32, unstacked) or images (uint8, stacks of four); what is neither, such as a
state's number, is flattened by gymnasium's own wrapper.
"""

import dataclasses
import difflib
import functools
import importlib
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import vector
from gymnasium.envs import registration

from agents import environments
from core import distributed

LONGEST = 27_000  # steps of an episode that nothing else limits, as a greedy policy may never end one: Atari's cap
_PERIOD = 1_000  # steps; a seeded reset costs what any other does


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gymnasium:
    """A recipe for N copies of one environment. Raises ValueError naming the field and the remedy."""

    id: str = "CartPole-v1"  # as gymnasium.make takes it; `package:Name-v0` imports the package first
    stack: int | None = None  # K; None: 4 for images, 1 for vectors
    max_steps: int | None = None  # truncates; None: as the environment is registered, or `LONGEST`
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # keywords for gymnasium.make

    def __post_init__(self):
        _spec(self.id)
        if self.stack is not None:
            environments.check_range("stack", self.stack, 1, 64, "1 means no stack")
        if self.max_steps is not None:
            environments.check_range("max_steps", self.max_steps, 1, 2**31 - 1, "leave it out for the usual limit")

    def make(self, count: int) -> "GymnasiumEnvironments":
        """Starts `count` environments, stepped one after another in this thread."""
        environments.check_range("envs", count, 1, 65_536, "choose how many games run side by side")
        return GymnasiumEnvironments(self, count)


class GymnasiumEnvironments:
    """N environments of one `Gymnasium` recipe; see `agents.environments.Environments`."""

    def __init__(self, recipe: Gymnasium, count: int):
        self._recipe = recipe
        # copy=False: `push` copies each observation into an array of its own.
        try:
            self._games = vector.SyncVectorEnv(
                [functools.partial(_one, recipe)] * count, copy=False, autoreset_mode=vector.AutoresetMode.NEXT_STEP
            )
        # A package that this environment needs, say, and how to install it; or keywords in `options` that it lacks.
        except (gymnasium.error.Error, ImportError, TypeError) as error:
            raise ValueError(f"id={recipe.id}: cannot be made here: {error}") from error
        self._spec = self._games.envs[0].spec or _spec(recipe.id)
        space = self._games.single_observation_space
        action = self._games.single_action_space
        if not isinstance(action, gymnasium.spaces.Discrete) or not space.shape:
            self._games.close()
            raise ValueError(
                f"id={recipe.id}: actions {action}, observations {space}; only discrete actions with vectors or "
                "images can be learned here: choose another environment, or wrap this one"
            )
        image = len(space.shape) > 1
        self.count = count
        self.actions = int(action.n)
        self.stack = recipe.stack if recipe.stack is not None else 4 if image else 1
        self.frame = tuple(space.shape)
        self.dtype = np.dtype(np.uint8 if space.dtype == np.uint8 else np.float32)
        self.frames_per_step = 1
        self.period = _PERIOD
        self._start = int(action.start)
        self._stack = np.zeros((count, self.stack, *self.frame), self.dtype)
        self._over = np.zeros(count, bool)

    def reset(self, seed: int) -> np.ndarray:
        observation, _ = self._games.reset(seed=seed)
        self._over = np.zeros(self.count, bool)
        self._stack = environments.push(self._stack, observation, ~self._over)
        return self._stack

    def reseed(self, mask: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        observation, _ = self._games.reset(seed=seeds.tolist(), options={"reset_mask": mask})
        opened = environments.push(self._stack, observation, mask)
        self._stack = np.where(mask.reshape(-1, *[1] * (opened.ndim - 1)), opened, self._stack)
        self._over = self._over & ~mask
        return self._stack

    def step(self, action: np.ndarray) -> environments.Step:
        action = environments.check_actions(action, self.count, self.actions) + self._start
        observation, reward, terminal, truncated, _ = self._games.step(action)
        self._stack = environments.push(self._stack, observation, self._over)
        self._over = terminal | truncated
        return environments.Step(self._stack, reward.astype(np.float32), terminal, truncated & ~terminal, self._over)

    def protocol(self) -> dict[str, Any]:
        return {
            "environment": f"gymnasium {gymnasium.__version__}",
            "id": self._spec.id,
            "max_steps": self._spec.max_episode_steps,
            "options": dict(self._recipe.options),
        }

    def close(self) -> None:
        self._games.close()


def _one(recipe: Gymnasium) -> gymnasium.Env:
    limit = {} if recipe.max_steps is None else {"max_episode_steps": recipe.max_steps}
    game = gymnasium.make(_spec(recipe.id), disable_env_checker=True, **limit, **recipe.options)
    if game.spec is None or game.spec.max_episode_steps is None:
        distributed.say(
            f"id={recipe.id}: registered without a limit, so episodes end after {LONGEST:,} steps (max_frames)"
        )
        game = gymnasium.wrappers.TimeLimit(game, LONGEST)
    if isinstance(game.observation_space, gymnasium.spaces.Box):
        return game
    return gymnasium.wrappers.FlattenObservation(game)


def _spec(name: str) -> registration.EnvSpec:
    """The registered environment that gymnasium calls `[package:][namespace/]Name[-v0]`; the newest without a version.

    What is checked is what is made. Raises ValueError where the package cannot be imported or registers none such.
    """
    package, colon, bare = name.rpartition(":")
    try:
        if colon:
            importlib.import_module(package)
    except Exception as error:  # whatever a package raises while it is imported
        raise ValueError(f"id={name}: importing {package!r} failed: {type(error).__name__}: {error}") from error
    try:
        namespace, base, version = registration.parse_env_id(bare)
        if version is None:
            version = registration.find_highest_version(namespace, base)
        return gymnasium.spec(registration.get_env_id(namespace, base, version))
    except gymnasium.error.Error as error:
        raise ValueError(f"id={name}: no such environment; {_remedy(bare, package)} ({error})") from error


def _remedy(name: str, package: str) -> str:
    near = difflib.get_close_matches(name, list(gymnasium.registry), n=1)
    if near:
        return f"did you mean {package}{':' * bool(package)}{near[0]}?"
    registers = f"the package {package} registers none of that name" if package else ""
    return registers or "as gymnasium names it, or package:Name-v0 to import its package"
