"""The demo's story: train, play against random play on the same games, film, draw, and say what happened."""

import os
import shlex
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from agents import evaluation
from core import platform, record
from experiments import runs, training
from experiments.config import command_line
from experiments.evaluation import agents, command

EPISODES = 20
ENVS = 20  # games at a time
SEED = 1_000  # of the games played at the end
CONVINCING = 3.0  # standard errors
SLOW = 300.0  # seconds that the demo should not take


def task(settings: command_line.Config, folder: Path) -> None:
    """Runs the demo in `folder`. A Ctrl-C while it trains ends it there, with a checkpoint."""
    began = time.monotonic()
    print(_opening(settings), flush=True)
    training.task(settings, folder)
    run = runs.load(folder)
    judge = agents.judging(run, episodes=EPISODES, envs=ENVS)
    print(f"Playing {EPISODES} games with the trained agent, and the same games at random ...", flush=True)
    scores = agents.play(run, judge, seed=SEED, random=True)
    command.save(run, f"python -m experiments.demo {shlex.join(sys.argv[1:])}", agents.content(scores))
    filmed = agents.film(run, judge, seed=SEED, max_seconds=30.0)
    curve = draw(folder, scores, game=_game(settings))
    print(_closing(run, scores, filmed, curve, seconds=time.monotonic() - began), flush=True)


def draw(folder: Path, scores: Mapping[str, evaluation.Scores], *, game: str) -> Path:
    """`learning_curve.png`: the training games' scores from metrics.jsonl, and the evaluated ones at their end."""
    from matplotlib import figure  # here, because it looks through the machine's fonts

    rows = [row for row, _ in record.read(folder / "metrics.jsonl") if row.get("train/episode_return") is not None]
    frames = np.array([row["frames"] for row in rows], float)
    returns = np.array([row["train/episode_return"] for row in rows], float)
    games = np.array([row["train/episodes"] for row in rows], float)
    picture = figure.Figure(figsize=(7, 4), dpi=120, layout="constrained")
    axes = picture.subplots()
    axes.plot(frames, returns, ".", color="tab:blue", alpha=0.35, label="training games, exploring")
    axes.plot(frames, _smooth(returns, games), color="tab:blue", label="the same, averaged over neighbours")
    end = max([0.0, *frames])
    for name, colour in (("trained", "tab:green"), ("random", "tab:grey")):
        each = scores[name]
        label = f"{name}, {len(each.returns)} games: {each.mean:,.0f} ± {each.standard_error:,.0f}"
        axes.axhline(each.mean, color=colour, linewidth=0.8, linestyle="--")
        axes.errorbar([end], [each.mean], yerr=[each.standard_error], fmt="o", color=colour, capsize=4, label=label)
    axes.set(xlabel="frames of play", ylabel="score of a game", title=f"{game}: learning from the screen")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlim(left=0)
    axes.legend(loc="best", fontsize="small")
    picture.savefig(folder / "learning_curve.png")
    return folder / "learning_curve.png"


def verdict(scores: Mapping[str, evaluation.Scores]) -> str:
    """What the scores say, and whether it is enough to believe."""
    trained, random = scores["trained"], scores["random"]
    errors = evaluation.separation(trained, random)
    told = (
        f"trained {trained.mean:,.1f} ± {trained.standard_error:,.1f}, random {random.mean:,.1f} ± "
        f"{random.standard_error:,.1f} over the same {len(trained.returns)} games: "
        f"a difference of {errors:.1f} standard errors"
    )
    if errors >= CONVINCING:
        return f"It learned: {told}."
    return f"It fell short: {told}, and less than {CONVINCING:g} may be luck. Another seed (seed=1) may do better."


def _smooth(values: np.ndarray, weights: np.ndarray, reach: int = 4) -> np.ndarray:
    """[T] means over up to `reach` neighbours on each side, weighted."""
    window = np.abs(np.subtract.outer(np.arange(len(values)), np.arange(len(values)))) <= reach
    return (window * weights) @ values / ((window * weights).sum(axis=1) + 1e-9)


def _opening(settings: command_line.Config) -> str:
    frames = settings["budget"]
    return (
        f"A DQN learns {_game(settings)} from the screen: {frames:,} frames, {frames / 3600:.0f} minutes of play, on\n"
        f"{platform.cpu()}. It takes one to six minutes; Ctrl-C stops it and keeps what it has."
    )


def _closing(
    run: runs.Trained,
    scores: Mapping[str, evaluation.Scores],
    filmed: agents.Film,
    curve: Path,
    *,
    seconds: float,
) -> str:
    folder, python = _shown(run.folder), _shown(Path(sys.executable))
    length = f"{filmed.gif.seconds:.0f} s of one of its games, score {filmed.play.score:g}"
    slow = f" Slower than the {SLOW / 60:g} minutes meant: is the machine busy?" if seconds > SLOW else ""
    return "\n".join(
        [
            "",
            "== What happened ==",
            evaluation.table(scores),
            verdict(scores),
            f"{run.examples:,} frames, {seconds:.0f} s in all on {platform.cpu()}.{slow}",
            "",
            f"== Where it lies: {folder} ==",
            f"  {filmed.gif.path.relative_to(run.folder)}: {length}; beside it an MP4",
            f"  {curve.relative_to(run.folder)}: score over time",
            f"  {command.FILE}, metrics.jsonl, config.yaml, checkpoints/",
            "",
            "== Try next ==",
            f"  {python} -m experiments.train resume={folder} budget={4 * run.examples}",
            f"  {python} -m experiments.evaluate run={folder} video=true random=true",
            f"  {python} -m experiments.train experiment=dqn/pong",
        ]
    )


def _game(settings: command_line.Config) -> str:
    return str(settings["source"].get("game", settings["name"])).replace("_", " ").title()


def _shown(path: Path) -> str:
    """Relative where that is shorter, as a person would type it."""
    here = Path(os.path.abspath(path))
    return str(here.relative_to(Path.cwd())) if here.is_relative_to(Path.cwd()) else str(path)
