"""Real play in the game's own colours: one emulator gives the policy its grey stacks and a viewer the picture.

`Screen` drives `ale_py.ALEInterface` through the very steps of `AtariVectorEnv` (ale-py 0.12, `preprocessed_env.cpp`):
with the same seed and actions its observations, rewards and ends are those of `atari.Atari.make(1)` to the last
bit, no-ops and sticky actions included.
"""

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import ale_py
import jax
import numpy as np
from ale_py import roms

from agents import atari, environments, evaluation
from core import types

HERTZ = 60  # emulated frames a second


@dataclasses.dataclass(frozen=True, kw_only=True)
class Play:
    """A recorded game, or its beginning where `over` is False; `score` is raw, over all lives seen."""

    video: types.Video
    score: float
    frames: int  # emulated, from the first action on
    over: bool


def record(
    agent: Any,
    view: Any,
    recipe: atari.Atari,
    *,
    epsilon: float,
    seed: int,
    max_seconds: float = 60.0,
    frames_per_second: int = 30,
) -> Play:
    """Lets the agent play one game, at most `max_seconds` of it at real speed, and films it.

    Below 60 pictures a second each is the maximum of the last two frames, as what the policy sees is: games draw
    some objects on every other frame only, and dropping frames would hide them.

    Args:
      agent: as in `evaluation.evaluate`.
      view: what `agent.act` needs.
      recipe: the game, with the options that the agent was trained with.
      epsilon: share of random actions.
      seed: fixes the game: `evaluation.evaluate(..., episodes=1, seed=seed)` plays the same one.
      max_seconds: length of the film at most.
      frames_per_second: of the film; divides 60. A second of it at 30 takes 3 MB of memory.
    """
    if not max_seconds > 0:
        raise ValueError(f"max_seconds={max_seconds}: a film lasts longer than 0 seconds")
    if frames_per_second < 1 or HERTZ % frames_per_second:
        raise ValueError(f"frames_per_second={frames_per_second}: take a divisor of {HERTZ}, such as 60, 30 or 15")
    screen = Screen(recipe, seed=seed)
    film = _Film(every=HERTZ // frames_per_second)
    limit = int(max_seconds * HERTZ)
    observation, carry, key = screen.reset(), agent.carry(1), jax.random.key(seed)
    share, first = np.full(1, epsilon, np.float32), np.ones(1, bool)
    score, time, frames, over = 0.0, 0, 0, False
    while not over and frames < limit:
        action, carry = evaluation.act(agent, view, carry, observation[None], first, key, np.int32(time), share)
        step = screen.step(int(action[0]))
        film.add(step.pictures)
        observation, first, over = step.observation, np.zeros(1, bool), step.over
        score, time, frames = score + step.reward, time + 1, frames + len(step.pictures)
    video = types.Video(frames=film.frames(), frames_per_second=frames_per_second)
    return Play(video=video, score=score, frames=frames, over=over)


class Seen(NamedTuple):
    """One step: what the policy sees, [K, H, W] uint8 (or [K, H, W, 3]), and the pictures of its 1 to 4 frames."""

    observation: np.ndarray
    reward: float
    over: bool
    pictures: list[np.ndarray]  # each uint8 [210, 160, 3]


class Screen:
    """One game in one emulator, seeded once and played once."""

    def __init__(self, recipe: atari.Atari, *, seed: int):
        self._recipe, seed = recipe, environments.emulator_seed(seed)
        self._ale = ale_py.ALEInterface()
        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
        self._ale.setFloat("repeat_action_probability", recipe.sticky)
        self._ale.setInt("random_seed", seed)
        self._ale.loadROM(str(roms.get_rom_path(recipe.game)))
        self._actions = self._ale.getLegalActionSet() if recipe.full_actions else self._ale.getMinimalActionSet()
        self._fires = recipe.fire_reset and ale_py.Action.FIRE in self._actions
        self._random = np.random.RandomState(seed)
        self._elapsed = 0
        self._raw: list[np.ndarray] = []  # the last frame and the one before it
        self._stack: list[np.ndarray] = []

    def reset(self) -> np.ndarray:
        """The first observation, after FIRE and the no-ops; its older frames are blank."""
        self._ale.reset_game()
        if self._fires:
            self._ale.act(ale_py.Action.FIRE)
        for _ in range(self._noops() - self._fires):
            self._ale.act(ale_py.Action.NOOP)
            if self._ale.game_over():
                self._ale.reset_game()
        raw = self._frame()
        self._raw, self._elapsed = [raw, np.zeros_like(raw)], 0
        blank = np.zeros_like(shrink(raw, self._recipe.size))
        self._stack = [blank] * self._recipe.stack
        return self._observe()

    def step(self, action: int) -> Seen:
        """Holds the action for `frame_skip` frames, fewer where the game ends."""
        reward, over, pictures = 0.0, False, []
        for left in range(self._recipe.frame_skip, 0, -1):
            reward += self._ale.act(self._actions[action])
            pictures.append(self._ale.getScreenRGB())
            over = self._ale.game_over()
            if over:
                break
            if left <= 2:
                self._raw[left - 1] = self._frame()
        self._elapsed += self._recipe.frame_skip
        return Seen(self._observe(), reward, over or self._elapsed >= self._recipe.max_frames, pictures)

    def _observe(self) -> np.ndarray:
        self._raw[0] = np.maximum(self._raw[0], self._raw[1])
        self._stack = [*self._stack[1:], shrink(self._raw[0], self._recipe.size)]
        return np.stack(self._stack)

    def _frame(self) -> np.ndarray:
        return self._ale.getScreenRGB() if self._recipe.color == "rgb" else self._ale.getScreenGrayscale()

    def _noops(self) -> int:
        """0 to noop_max - 1, drawn as C++'s uniform_int_distribution does (Lemire 2019, 1805.10941, algorithm 5)."""
        range_ = max(self._recipe.noop_max, 1)
        while True:
            product = int(self._random.randint(0, 2**32, dtype=np.uint32)) * range_
            if product % 2**32 >= 2**32 % range_:
                return product >> 32


def shrink(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A smaller uint8 image by averaging areas, as OpenCV's INTER_AREA: [H, W] or [H, W, 3] -> the same of `size`.

    The sums run in OpenCV's order and precision (float32, columns first), as exact ties are common at 210x160 ->
    84x84 and would fall otherwise: the result is equal. Where both sides shrink by whole factors OpenCV has another
    way to round, and may differ by one grey level.
    """
    if frame.shape[:2] == tuple(size):
        return frame
    if size[0] > frame.shape[0] or size[1] > frame.shape[1]:
        raise ValueError(f"size={tuple(size)}: a {frame.shape[:2]} screen can be filmed at most at its own size")
    columns = _average(np.moveaxis(frame.astype(np.float32), 1, 0), size[1])
    rows = _average(np.moveaxis(columns, 1, 0), size[0])
    return np.rint(rows).clip(0, 255).astype(np.uint8)


def _average(lines: np.ndarray, count: int) -> np.ndarray:
    """Averages neighbouring lines: [L, ...] float32 -> [count, ...]."""
    index, weight = _areas(lines.shape[0], count)
    weight = weight.reshape(*weight.shape, *[1] * (lines.ndim - 1))
    total = lines[index[0]] * weight[0]
    for lines_of, share in zip(index[1:], weight[1:], strict=True):
        total = total + lines[lines_of] * share
    return total


@functools.cache
def _areas(source: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Which source lines each of `count` lines covers, and by which share: index and float32 weight, [J, count]."""
    scale = source / count
    reach = math.ceil(scale) + 1
    edge = np.arange(count) * scale
    line = np.floor(edge).astype(int) + np.arange(reach)[:, None]
    overlap = np.minimum(line + 1, edge + scale) - np.maximum(line, edge)
    overlap = np.where(overlap > 1e-3, overlap, 0.0)
    return np.minimum(line, source - 1), (overlap / np.minimum(scale, source - edge)).astype(np.float32)


class _Film:
    """Keeps every so many pictures, each the maximum with the one before it."""

    def __init__(self, *, every: int):
        self._every = every
        self._since: list[np.ndarray] = []  # pictures since the last one kept
        self._kept: list[np.ndarray] = []

    def add(self, pictures: list[np.ndarray]) -> None:
        for picture in pictures:
            self._since.append(picture)
            if len(self._since) == self._every:
                self._kept.append(np.max(self._since[-2:], axis=0))
                self._since.clear()

    def frames(self) -> np.ndarray:
        """Uint8 [T, H, W, 3]; a game shorter than one interval is one picture."""
        return np.stack(self._kept or self._since[-1:])
