"""Frames of a game as images to train on: what `experiments.collect` does with a composed config."""

import dataclasses
import itertools
import json
import os
import shlex
import sys
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from agents import atari, evaluation, screen
from core import platform, progress, ranges, types
from experiments import runs
from experiments.config import build, command_line
from experiments.evaluation import agents

_GREY = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as the emulator's own grey


@dataclasses.dataclass(frozen=True, kw_only=True)
class Game:
    """`source.*`: the game, and how it is played where that differs from the run's way or `atari.Atari`'s defaults."""

    game: str | None = None
    sticky: float | None = None
    max_frames: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wanted:
    """`conf/collect.yaml` as an object."""

    source: Game
    run: str | None = None  # None: a random agent
    which: Literal["latest", "best"] = "latest"
    frames: ranges.PositiveInt = 10_000
    out: str = "frames.npz"
    color: Literal["rgb", "grey"] = "rgb"
    size: int | tuple[int, int] = 64  # side, or height and width
    every: ranges.PositiveInt = 4  # emulated frames from one image to the next
    envs: ranges.PositiveInt = 8  # games at a time
    epsilon: float | None = None  # None: as in the run's own evaluations
    seed: int = 0
    force: bool = False
    tune: bool = True

    def __post_init__(self):
        types.check_seed(self.seed)
        if min(self.shape) < 1 or len(self.shape) != 2:
            raise ValueError(f"size={self.size}: must be a side, or (height, width), of at least 1")
        if not self.out.endswith(".npz"):
            raise ValueError(f"out={self.out}: must end with .npz")
        if Path(self.out).exists() and not self.force:
            raise ValueError(f"out={self.out}: exists already; force=true writes over it")
        if not Path(self.out).absolute().parent.is_dir():
            raise ValueError(f"out={self.out}: there is no folder {Path(self.out).parent}; make it first")

    @property
    def shape(self) -> tuple[int, ...]:
        """Height, width."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size


@dataclasses.dataclass(frozen=True, kw_only=True)
class Player:
    """Who plays what."""

    agent: Any  # has `carry` and `act`, as in `evaluation.evaluate`
    view: Any
    recipe: atari.Atari
    epsilon: float
    about: Mapping[str, Any]  # plain values: which agent


@dataclasses.dataclass(frozen=True)
class Random:
    """An agent that does anything, whatever it sees."""

    actions: int

    def carry(self, envs: int) -> tuple[()]:
        return ()

    def act(self, view, carry, observation, first, key, epsilon) -> tuple[jax.Array, tuple[()], tuple[()]]:
        return jax.random.randint(key, observation.shape[:1], 0, self.actions), (), ()


def task(settings: command_line.Config, _: Path) -> None:
    """Plays, and writes the .npz as it goes."""
    wanted: Wanted = build.objects({**settings, "_target_": f"{__name__}.Wanted"})
    player, protocol = choose(wanted)
    platform.cache()
    images = play(player, wanted)
    try:
        images = itertools.chain([next(images)], images)
    except ValueError as error:
        raise build.ConfigError("size", f"={wanted.size}: {str(error).partition(': ')[2]}") from error
    provenance = {
        "command": f"python -m experiments.collect {shlex.join(sys.argv[1:])}",
        "game": player.recipe.game,
        "seed": wanted.seed,
        **player.about,
        "epsilon": player.epsilon,
        "color": wanted.color,
        "every": wanted.every,
        "envs": wanted.envs,
        "image": "the maximum of two emulated frames, shrunk by averaging areas",
        "protocol": protocol,
    }
    out = Path(wanted.out)
    games = write(out, images, count=wanted.frames, provenance=provenance)
    who = "a random agent" if wanted.run is None else f"{wanted.run}'s agent"
    print(f"{wanted.frames:,} frames of {player.recipe.game}, played by {who} in {games} games: {out}")
    print(f"learn from them with: source=atari_frames source.path={out}")


def choose(wanted: Wanted) -> tuple[Player, dict[str, Any]]:
    """The player and the games' protocol. Raises build.ConfigError where there is no such agent or game."""
    changes = {name: value for name, value in vars(wanted.source).items() if value is not None}
    try:
        player = _random(wanted, changes) if wanted.run is None else _trained(wanted, changes)
        games = player.recipe.make(1)
    except build.ConfigError:
        raise
    except ValueError as error:
        key, _, problem = str(error).partition("=")
        raise build.ConfigError(f"source.{key}", f"={problem}") from error
    protocol, actions = games.protocol(), games.actions
    games.close()
    return dataclasses.replace(player, agent=player.agent or Random(actions)), protocol


def play(player: Player, wanted: Wanted) -> Iterator[tuple[np.ndarray, int]]:
    """Images without end, uint8 [H, W, C], each with its game's number; games are numbered as they begin.

    Raises: ValueError where the image is larger than the screen.
    """
    agent, key, numbers = player.agent, jax.random.key(wanted.seed), itertools.count()
    games = [_Play(player.recipe, wanted, next(numbers)) for _ in range(wanted.envs)]
    carry, share = agent.carry(wanted.envs), np.full(wanted.envs, player.epsilon, np.float32)
    for time in itertools.count():
        first = np.array([game.steps == 0 for game in games])
        observation = np.stack([game.observation for game in games])
        action, carry = evaluation.act(agent, player.view, carry, observation, first, key, np.int32(time), share)
        for game, chosen in zip(games, np.asarray(action), strict=True):
            for picture in game.step(int(chosen)):
                yield _shrunk(picture, wanted), game.number
        games = [_Play(player.recipe, wanted, next(numbers)) if game.over else game for game in games]


def write(path: Path, images: Iterator[tuple[np.ndarray, int]], *, count: int, provenance: Mapping[str, Any]) -> int:
    """Writes the first `count` images, one by one as they come; returns how many games they are from.

    Arrays: image uint8 [N, H, W, C], group int32 [N] (the game's number), provenance (JSON).
    """
    part = path.with_name(f".{path.name}.part")
    group = np.zeros(count, np.int32)
    first = next(images)
    header = {"descr": "|u1", "fortran_order": False, "shape": (count, *first[0].shape)}
    try:
        with (
            progress.Progress(count, "frames") as bar,
            zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        ):
            with archive.open("image.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array_header_2_0(file, header)
                for row, (image, game) in enumerate(itertools.islice(itertools.chain([first], images), count)):
                    file.write(image.tobytes())
                    group[row] = game
                    bar.update(row + 1, {})
            for name, array in (("group", group), ("provenance", np.array(json.dumps(provenance)))):
                with archive.open(f"{name}.npy", "w") as file:
                    np.lib.format.write_array(file, array)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return len(np.unique(group))


class _Play:
    """One game before a camera."""

    def __init__(self, recipe: atari.Atari, wanted: Wanted, number: int):
        seed = np.random.SeedSequence((wanted.seed, number)).generate_state(1)[0]
        self._screen = screen.Screen(recipe, seed=int(seed) % 2**30)  # int32 in the emulator
        self._every = wanted.every
        self._pictures: list[np.ndarray] = []  # since the last one kept
        self.observation = self._screen.reset()
        self.number, self.steps, self.over = number, 0, False

    def step(self, action: int) -> Iterator[np.ndarray]:
        """Uint8 [210, 160, 3]: each is the maximum with the one before it, as games draw some things every other."""
        seen = self._screen.step(action)
        self.observation, self.over, self.steps = seen.observation, seen.over, self.steps + 1
        for picture in seen.pictures:
            self._pictures.append(picture)
            if len(self._pictures) == self._every:
                yield np.max(self._pictures[-2:], axis=0)
                self._pictures.clear()


def _random(wanted: Wanted, changes: Mapping[str, Any]) -> Player:
    if wanted.source.game is None:
        raise build.ConfigError("source.game", ": missing; name a game, as in source.game=pong, or a run=<run folder>")
    if wanted.epsilon is not None:
        raise build.ConfigError("epsilon", f"={wanted.epsilon}: a random agent has none; name a run=<run folder>")
    recipe = atari.Atari(**changes)
    return Player(agent=None, view=None, recipe=recipe, epsilon=1.0, about={"agent": "random"})


def _trained(wanted: Wanted, changes: Mapping[str, Any]) -> Player:
    run = runs.load(wanted.run or "", wanted.which)
    judge = agents.judging(run, episodes=1, epsilon=wanted.epsilon)
    if not isinstance(judge.environments, atari.Atari):
        raise build.ConfigError("run", f"={wanted.run}: only Atari games have frames to collect")
    if changes.get("game", judge.environments.game) != judge.environments.game:
        raise build.ConfigError("source.game", f"={wanted.source.game}: the run plays {judge.environments.game}")
    about = {"agent": str(run.folder), "checkpoint": run.checkpoint.name, "trained_on": f"{run.examples} {run.unit}"}
    recipe = dataclasses.replace(judge.environments, **changes)
    return Player(agent=run.learner, view=run.view, recipe=recipe, epsilon=judge.epsilon, about=about)


def _shrunk(picture: np.ndarray, wanted: Wanted) -> np.ndarray:
    """Uint8 [210, 160, 3] -> [H, W, C]."""
    if wanted.color == "grey":
        picture = np.rint(picture @ _GREY).astype(np.uint8)
    height, width = wanted.shape
    return screen.shrink(picture, (height, width)).reshape(height, width, -1)
