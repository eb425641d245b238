"""What acting and evaluating need of an environment: N games stepped together, stacks of K frames.

Recipes (`agents.atari.Atari`, `agents.gym.Gymnasium`) are small frozen config objects whose `make(count)`
starts the games. Nothing here knows a game.
"""

from typing import Any, NamedTuple, Protocol

import numpy as np


class Step(NamedTuple):
    """What one action in each of N games led to.

    Games reset themselves as gymnasium's NEXT_STEP says: where `over`, the observation is the true last
    one, and the following step ignores its action, gives reward 0 and opens the next game.
    """

    observation: np.ndarray  # [N, K, *frame], oldest frame first; never written to again
    reward: np.ndarray  # [N] float32, raw
    terminal: np.ndarray  # [N] bool, the learner's end: game over, or a lost life where asked
    truncated: np.ndarray  # [N] bool, cut short and not terminal: bootstrap
    over: np.ndarray  # [N] bool, the game itself ended: the next step resets it


class Environments(Protocol):
    """N games in lock step on this host. Frames before a game's first are blank (zero)."""

    count: int  # N
    actions: int  # A, actions are 0..A-1
    stack: int  # K, 1 where frames are not stacked
    frame: tuple[int, ...]  # one frame's shape: (84, 84), (84, 84, 3), (4,)
    dtype: np.dtype
    frames_per_step: int  # emulator frames an action lasts: 4 on Atari, 1 elsewhere
    period: int  # steps in which `agents.resuming` seeds a game anew at most once, by what that costs

    def reset(self, seed: int) -> np.ndarray:
        """Restarts all games; game i takes seed + i. Returns [N, K, *frame]."""
        ...

    def reseed(self, mask: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        """Begins new games where `mask` [N], with those of `seeds` [N] int64; returns all observations.

        Such a game, and those that follow it, depend on the seed and their actions alone, whatever was played before
        and beside them.
        """
        ...

    def step(self, action: np.ndarray) -> Step:
        """Plays `action` [N] int32 in [0, A)."""
        ...

    def protocol(self) -> dict[str, Any]:
        """Whatever a score must be read with: `environment` and its version, no-ops, sticky actions, frame cap."""
        ...

    def close(self) -> None: ...


class Recipe(Protocol):
    """How to start games; a value, so that training and evaluation can share it."""

    def make(self, count: int) -> Environments: ...


def push(stack: np.ndarray, frame: np.ndarray, first: np.ndarray) -> np.ndarray:
    """The next stacks as a new array [N, K, *frame]: `frame` [N, ...] in front, blank history where `first` [N]."""
    following = np.empty_like(stack)
    following[:, :-1] = stack[:, 1:]
    following[:, -1] = frame
    following[first, :-1] = 0
    return following


def check_range(name: str, value: float, low: float, high: float, remedy: str) -> None:
    """Raises ValueError unless low <= value <= high."""
    if not low <= value <= high:
        raise ValueError(f"{name}={value}: must lie in {low}..{high}; {remedy}")


def emulator_seed(seed: int) -> int:
    """`seed` in the 31 bits of an emulator's: itself where it fits, else one that follows from all of its bits."""
    return seed if seed < 2**31 else int(np.random.SeedSequence(seed).generate_state(1)[0]) % 2**31


def check_actions(action: np.ndarray, count: int, actions: int) -> np.ndarray:
    """`action` as int32 [N], or ValueError: what lies outside is an agent's mistake, and hangs some emulators."""
    action = np.asarray(action, np.int32)
    if action.shape != (count,):
        raise ValueError(f"action has shape {action.shape}, must be ({count},): one action a game")
    if action.min() < 0 or action.max() >= actions:
        raise ValueError(
            f"action={action.tolist()}: must lie in 0..{actions - 1}; build the network with the source's `sizes`"
        )
    return action
