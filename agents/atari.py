"""Atari 2600 games through ale-py's own vector environment: all games, C++ threads, Nature's preprocessing.

Each step: the action for `frame_skip` frames, grey (or RGB), maximum over the last two, area resize, stack
of uint8 frames. (Nature takes the maximum of the colours, then grey: where the two frames differ, ale-py's way can be
darker.) Rewards are raw. A lost life can end the learner's episode while the game goes on.
"""

import dataclasses
import difflib
import re
from typing import Any, Literal

import ale_py
import numpy as np
from ale_py import roms, vector_env
from gymnasium import vector

from agents import environments

TWO_PLAYERS = frozenset({"combat", "joust", "maze_craze", "warlords"})  # the emulator would end the process
_NO_CAP = 2**30  # frames; ale-py adds to it in int32
_MOST_FRAMES = 2**30 - 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Atari:
    """A recipe for N copies of one game. Raises ValueError naming the field, its limit and the remedy."""

    game: str = "pong"  # ale-py's name, as in `ms_pacman`
    frame_skip: int = 4  # frames an action lasts
    stack: int = 4  # K
    size: tuple[int, int] = (84, 84)  # height, width
    color: Literal["grey", "rgb"] = "grey"
    sticky: float = 0.0  # probability that a frame repeats the action before (Machado et al. use 0.25)
    noop_max: int = 30  # games open with 0..noop_max-1 no-ops
    full_actions: bool = False  # all 18 actions instead of the game's own
    life_terminal: bool = True  # a lost life is `terminal`
    max_frames: int = 108_000  # frame cap of a game, opening no-ops not counted; 30 minutes
    fire_reset: bool = True  # presses FIRE first in games that have it
    threads: int = 0  # 0: as many as there are games, at most one a core
    period: int = 25_000  # steps in which a game is seeded anew at most once; about as many are played again to go on

    def __post_init__(self):
        _check_game(self.game)
        check = environments.check_range
        check("frame_skip", self.frame_skip, 1, 60, "the usual value is 4")
        check("stack", self.stack, 1, 64, "the usual value is 4, and 1 means no stack")
        if len(self.size) != 2:
            raise ValueError(f"size={self.size}: must be (height, width), such as (84, 84)")
        for side in self.size:
            check("size", side, 1, 1024, "the usual size is (84, 84), and the screen's own (210, 160)")
        if self.color not in ("grey", "rgb"):
            raise ValueError(f"color={self.color}: must be grey or rgb")
        check("sticky", self.sticky, 0.0, 1.0, "0 means none, and the usual value is 0.25")
        check("noop_max", self.noop_max, 0, 10_000, "the usual value is 30, and 0 means none")
        check("max_frames", self.max_frames, self.frame_skip, _MOST_FRAMES, "the usual cap is 108000")
        check("period", self.period, 1, 10**9, "shorter costs more seeding, longer more time to go on")
        check("threads", self.threads, 0, 1024, "0 chooses by the number of cores")

    def make(self, count: int) -> "AtariEnvironments":
        """Starts `count` games (C++ threads begin here)."""
        environments.check_range("envs", count, 1, 65_536, "choose how many games run side by side")
        return AtariEnvironments(self, count)


class AtariEnvironments:
    """N games of one `Atari` recipe; see `agents.environments.Environments`.

    ale-py hands out fresh arrays on every step, so nothing is copied here. Two of its ways are replaced:

    - Its flags for lost lives end the game or stand for one another. Here it reports game over only, and a
      lost life is a fall of its counter.
    - At its frame cap it stops before it has captured the step's last frame, so the observation from which
      a learner bootstraps would show the step before. Here whole steps are counted, and the game is reset
      on its own when the next step begins.
    """

    def __init__(self, recipe: Atari, count: int):
        self._recipe = recipe
        self._games = _vector(recipe, count)
        self.count = count
        self.actions = int(self._games.single_action_space.n)  # pyright: ignore[reportAttributeAccessIssue]
        self.stack = recipe.stack
        self.frame = (*recipe.size, 3) if recipe.color == "rgb" else tuple(recipe.size)
        self.dtype = np.dtype(np.uint8)
        self.frames_per_step = recipe.frame_skip
        self.period = recipe.period
        self._lives = np.zeros(count, np.int32)
        self._steps = np.zeros(count, np.int64)  # of the present game
        self._over = np.zeros(count, bool)
        self._cut = np.zeros(count, bool)  # over by our cap, which the emulator does not know

    @property
    def lives(self) -> np.ndarray:
        """[N] int32, lives left; always 0 in games without."""
        return self._lives

    def reset(self, seed: int) -> np.ndarray:
        seeds = [environments.emulator_seed(seed + i) for i in range(self.count)]
        observation, info = self._games.reset(seed=np.array(seeds))
        self._lives = info["lives"]
        self._steps[:] = 0
        self._over = np.zeros(self.count, bool)
        self._cut = np.zeros(self.count, bool)
        return observation

    def reseed(self, mask: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        observation, info = self._games.reset(seed=seeds[mask], options={"reset_mask": mask})
        self._lives = info["lives"]
        self._steps[mask] = 0
        self._over, self._cut = self._over & ~mask, self._cut & ~mask
        return observation

    def step(self, action: np.ndarray) -> environments.Step:
        # ale-py waits for ever when an action is out of range.
        action = environments.check_actions(action, self.count, self.actions)
        observation, reward, ended, _, info = self._games.step(action)
        reward = reward.astype(np.float32)
        if self._cut.any():
            observation, info = self._games.reset(options={"reset_mask": self._cut})
            reward[self._cut] = 0
            ended = ended & ~self._cut
        self._steps += 1
        self._steps[self._over] = 0
        self._cut = (self._steps * self.frames_per_step >= self._recipe.max_frames) & ~ended
        lives = info["lives"]
        terminal = ended | ((lives < self._lives) & ~self._over) if self._recipe.life_terminal else ended
        self._lives, self._over = lives, ended | self._cut
        return environments.Step(observation, reward, terminal, self._cut & ~terminal, self._over)

    def protocol(self) -> dict[str, Any]:
        recipe = self._recipe
        return {
            "environment": f"ale-py {ale_py.__version__}",
            "game": recipe.game,
            "frame_skip": recipe.frame_skip,
            "noops": f"0..{max(recipe.noop_max - 1, 0)}",
            "sticky": recipe.sticky,
            "frame_cap": recipe.max_frames,
            "full_actions": recipe.full_actions,
            "fire_reset": recipe.fire_reset,
            "life_terminal": recipe.life_terminal,
            "observation": f"{recipe.color} {recipe.size[0]}x{recipe.size[1]}x{recipe.stack}",
        }

    def close(self) -> None:
        self._games.close()


def _vector(recipe: Atari, count: int) -> vector_env.AtariVectorEnv:
    """Every option is passed, as `gymnasium.make_vec` and the class disagree about defaults."""
    return vector_env.AtariVectorEnv(
        recipe.game,
        count,
        num_threads=recipe.threads,
        max_num_frames_per_episode=_NO_CAP,
        repeat_action_probability=recipe.sticky,
        full_action_space=recipe.full_actions,
        autoreset_mode=vector.AutoresetMode.NEXT_STEP,
        img_height=recipe.size[0],
        img_width=recipe.size[1],
        grayscale=recipe.color == "grey",
        stack_num=recipe.stack,
        frameskip=recipe.frame_skip,
        maxpool=True,
        noop_max=recipe.noop_max,
        episodic_life=False,
        life_loss_info=False,
        reward_clipping=False,
        use_fire_reset=recipe.fire_reset,
    )


def games() -> list[str]:
    """The names of all games that can be played, sorted."""
    return sorted(set(roms.get_all_rom_ids()) - TWO_PLAYERS)


def _check_game(game: str) -> None:
    if game in TWO_PLAYERS:
        raise ValueError(
            f"game={game}: needs two players, and agents play alone; choose another of {len(games())} games"
        )
    if game in games():
        return
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", game.split("/")[-1].split("-v")[0]).lower()
    near = difflib.get_close_matches(snake, games(), n=1)
    remedy = f"did you mean {near[0]}?" if near else "agents.atari.games() lists them, as in ms_pacman"
    raise ValueError(f"game={game}: no such game; {remedy}")
