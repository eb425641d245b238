"""Judging an agent: whole games, played in environments of their own and with an exploration of their own."""

import dataclasses
import functools
import itertools
import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from agents import environments as environments_
from agents import scores as scores_
from core import distributed, mesh, types

ROUND = 0.5  # seconds of play between two looks at whether to stop


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scores:
    """What E whole games gave. Game i is the same one for every agent judged with the same seed and sizes."""

    returns: np.ndarray  # [E] float64, raw scores over all lives
    frames: np.ndarray  # [E] int64, frames from the first action to the end, whole steps
    truncated: np.ndarray  # [E] bool, cut by the frame cap
    human_normalised: float | None  # of the mean; 0 is random play, 1 a human; None without published figures
    protocol: Mapping[str, Any]  # how the games were played: a number means nothing without it

    @property
    def mean(self) -> float:
        return float(np.mean(self.returns))

    @property
    def median(self) -> float:
        return float(np.median(self.returns))

    @property
    def standard_error(self) -> float:
        """Of the mean, s / √E with the unbiased s; NaN where one game alone was played."""
        count = len(self.returns)
        return float(np.std(self.returns, ddof=1) / math.sqrt(count)) if count > 1 else math.nan


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A `types.Evaluator`: plays `episodes` games every so many frames of training.

    Of several processes each plays its share, in games of its own, and all find the same report.
    """

    environments: environments_.Recipe
    every: int = 1_000_000  # frames of training between two evaluations
    episodes: int = 30
    envs: int = 10  # games played at a time
    epsilon: float = 0.01  # share of random actions; 1 is random play
    max_frames: int | None = None  # frame cap of these games in place of the recipe's own

    def __post_init__(self):
        if self.every < 1:
            raise ValueError(f"every={self.every}: evaluations are at least 1 frame apart")
        if self.max_frames is not None and not hasattr(self.environments, "max_frames"):
            raise ValueError(f"max_frames={self.max_frames}: these environments set their own cap; leave it out")
        _check(episodes=self.episodes, envs=self.envs, epsilon=self.epsilon)

    def prepare(self, learner: Any) -> None:
        if not hasattr(learner, "act"):
            raise ValueError(f"{type(learner).__name__} plays no games; evaluators=images judges models of images")

    def names(self, learner: Any, spec: Any) -> Collection[str]:
        return _SCALARS

    @property
    def protocol(self) -> dict[str, Any]:
        """How the games are played."""
        games = self._recipe.make(1)
        try:
            return {**games.protocol(), "episodes": self.episodes, "epsilon": self.epsilon}
        finally:
            games.close()

    def __call__(
        self, learner: Any, state: Any, key: jax.Array, *, stop: Callable[[], None] = lambda: None
    ) -> types.Report:
        key = key if distributed.primary() else jax.random.fold_in(key, jax.process_index())
        scores = evaluate(
            learner,
            mesh.localize(learner.view(state)),
            environments=self._recipe,
            episodes=len(distributed.share(self.episodes)),
            envs=self.envs,
            epsilon=self.epsilon,
            seed=int(jax.random.randint(key, (), 0, 2**30)),
            stop=stop,
        )
        return report(_joined(scores, self.episodes))

    @property
    def _recipe(self) -> environments_.Recipe:
        recipe: Any = self.environments
        return recipe if self.max_frames is None else dataclasses.replace(recipe, max_frames=self.max_frames)


def evaluate(
    agent: Any,
    view: Any,
    *,
    environments: environments_.Recipe,
    episodes: int,
    envs: int,
    epsilon: float,
    seed: int,
    stop: Callable[[], None] = lambda: None,
) -> Scores:
    """Plays `episodes` whole games, `envs` at a time, and returns their raw scores with the protocol.

    Which games count is fixed in advance: environment e plays its first `quota[e]` games, however long they take.
    Taking the first games to finish instead would favour short ones, which in most games are the bad ones.

    Args:
      agent: has `carry(envs)` and `act(view, carry, observation, first, key, epsilon)`.
      view: what `agent.act` needs, on this process's devices.
      environments: makes the games; they are closed again at the end.
      episodes: whole games that count, over all lives.
      envs: environments that play side by side, at most one an episode.
      epsilon: share of random actions. With 1 the same call judges random play, on the same games.
      seed: fixes the games (no-ops, sticky actions) and the acting keys.
      stop: called about every `ROUND` seconds; what it raises ends the evaluation.
    """
    _check(episodes=episodes, envs=envs, epsilon=epsilon)
    games = environments.make(min(envs, episodes))
    try:
        played = _play(agent, view, games, _quota(episodes, games.count), epsilon, seed, stop)
        protocol = games.protocol()
    finally:
        games.close()
    returns = np.array([game.score for game in played])
    return Scores(
        returns=returns,
        frames=np.array([game.frames for game in played]),
        truncated=np.array([game.truncated for game in played]),
        human_normalised=scores_.human_normalised(protocol.get("game"), float(returns.mean())),
        protocol=dict(protocol)
        | {"score": "raw reward, all lives", "epsilon": epsilon, "episodes": episodes, "seed": seed}
        | {"envs": games.count, "frames_per_step": games.frames_per_step},
    )


def _joined(scores: Scores, episodes: int) -> Scores:
    """The first `episodes` of all processes' games; `scores` are this one's."""
    names = ("returns", "frames", "truncated")
    parts = distributed.gather({name: getattr(scores, name).tolist() for name in names})
    rows = {name: np.concatenate([part[name] for part in parts])[:episodes] for name in names}
    normalised = scores_.human_normalised(scores.protocol.get("game"), float(rows["returns"].mean()))
    return dataclasses.replace(scores, **rows, human_normalised=normalised)


def report(scores: Scores) -> types.Report:
    """The scores as metrics; the standard error and the human-normalised score only where they exist."""
    scalars = {name: value(scores) for name, value in _SCALARS.items()}
    known = {name: value for name, value in scalars.items() if value is not None and not math.isnan(value)}
    return types.Report(scalars=known, arrays={"eval/episode_returns": scores.returns})


def summary(scores: Scores) -> dict[str, Any]:
    """Everything about the scores as plain values that JSON holds; None where a value does not exist."""
    return {
        "mean": scores.mean,
        "median": scores.median,
        "standard_error": None if math.isnan(scores.standard_error) else scores.standard_error,
        "minimum": float(np.min(scores.returns)),
        "maximum": float(np.max(scores.returns)),
        "human_normalised": scores.human_normalised,
        "episode_frames": float(np.mean(scores.frames)),
        "truncated_episodes": int(np.sum(scores.truncated)),
        "returns": scores.returns.tolist(),
        "protocol": dict(scores.protocol),
    }


def table(rows: Mapping[str, Scores]) -> str:
    """Agents below each other in plain text, and under them the protocol: one line where they share it."""
    columns = ("mean", "standard_error", "median", "minimum", "maximum", "human_normalised", "episode_frames")
    heads = ("agent", "mean", "± error", "median", "min", "max", "human-normalised", "frames/game")
    cells: list[tuple[str, ...]] = [heads]
    for name, scores in rows.items():
        values = summary(scores)
        cells.append((name, *("-" if values[key] is None else f"{values[key]:,.2f}" for key in columns)))
    widths = [max(len(row[i]) for row in cells) for i in range(len(heads))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
    return "\n".join(lines + _protocol_lines(rows))


def separation(scores: Scores, baseline: Scores) -> float:
    """The difference of two means in its standard errors; infinite where neither varies and they differ."""
    difference = scores.mean - baseline.mean
    error = math.hypot(scores.standard_error, baseline.standard_error)
    return math.copysign(math.inf, difference) if error == 0 and difference else difference / (error or 1.0)


@functools.partial(jax.jit, static_argnums=0)
def act(agent: Any, view: Any, carry: Any, observation, first, key: jax.Array, step, epsilon) -> tuple[jax.Array, Any]:
    """The agent's actions [N] at `step` of a game series, and its carry; compiled once for each agent and N."""
    action, carry, _ = agent.act(view, carry, observation, first, jax.random.fold_in(key, step), epsilon)
    return action, carry


_SCALARS: Mapping[str, Callable[[Scores], float | None]] = {
    "eval/episode_return": lambda scores: scores.mean,
    "eval/episode_return_median": lambda scores: scores.median,
    "eval/episode_return_stderr": lambda scores: scores.standard_error,
    "eval/human_normalised": lambda scores: scores.human_normalised,
    "eval/episode_frames": lambda scores: float(np.mean(scores.frames)),
}


@dataclasses.dataclass(frozen=True)
class _Game:
    score: float
    frames: int
    truncated: bool


def _play(
    agent: Any,
    view: Any,
    games: environments_.Environments,
    quota: np.ndarray,
    epsilon: float,
    seed: int,
    stop: Callable[[], None],
) -> list[_Game]:
    """Plays until each environment has played its quota; games in the order (environment, time).

    Processes play different games, which take different times: every `ROUND` seconds they meet, until all are done.
    """
    played: list[list[_Game]] = [[] for _ in range(games.count)]
    steps, going = _steps(agent, view, games, quota, epsilon, seed, played), True
    while True:
        until = time.monotonic() + ROUND
        while going and time.monotonic() < until:
            going = next(steps, False)
        stop()
        if not any(distributed.gather(going)):
            return [game for of_one in played for game in of_one]


def _steps(
    agent: Any,
    view: Any,
    games: environments_.Environments,
    quota: np.ndarray,
    epsilon: float,
    seed: int,
    played: list[list[_Game]],
) -> Iterator[bool]:
    """Steps all environments, True after each step, and appends whole games to `played` [N] until its quota is full."""
    count = games.count
    key, share = jax.random.key(seed), np.full(count, epsilon, np.float32)
    observation, carry = games.reset(seed), agent.carry(count)
    score, steps = np.zeros(count), np.zeros(count, np.int64)
    first, over = np.ones(count, bool), np.zeros(count, bool)
    for index in itertools.count():
        action, carry = act(agent, view, carry, observation, first, key, np.int32(index), share)
        step = games.step(np.asarray(action))
        observation, first = step.observation, over  # after an end, this step only opened the next game
        score = np.where(first, 0.0, score + step.reward)
        steps = np.where(first, 0, steps + 1)
        over = step.over
        for e in np.flatnonzero(over):
            if len(played[e]) < quota[e]:
                frames = int(steps[e]) * games.frames_per_step
                played[e].append(_Game(float(score[e]), frames, bool(step.truncated[e])))
        if all(len(done) >= wanted for done, wanted in zip(played, quota, strict=True)):
            return
        yield True


def _quota(episodes: int, count: int) -> np.ndarray:
    """[N] games for each environment to play: as equal as can be, the first ones take what is left over."""
    return episodes // count + (np.arange(count) < episodes % count)


def _check(*, episodes: int, envs: int, epsilon: float) -> None:
    if episodes < 1:
        raise ValueError(f"episodes={episodes}: an evaluation plays at least 1")
    if envs < 1:
        raise ValueError(f"envs={envs}: an evaluation needs at least 1 environment")
    if not 0 <= epsilon <= 1:
        raise ValueError(f"epsilon={epsilon}: a share of random actions lies between 0 and 1")


def _protocol_lines(rows: Mapping[str, Scores]) -> list[str]:
    """One line for what all agents share, and one for each agent with what is its own."""
    protocols = {name: scores.protocol for name, scores in rows.items()}
    everyone = list(protocols.values())
    shared = {key: value for key, value in everyone[0].items() if all(p.get(key) == value for p in everyone)}
    parts = {"protocol": shared} | {
        name: {k: v for k, v in p.items() if k not in shared} for name, p in protocols.items()
    }
    return [
        f"{name}: " + ", ".join(f"{key} {value}" for key, value in part.items()) for name, part in parts.items() if part
    ]
