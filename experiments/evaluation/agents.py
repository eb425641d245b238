"""Agents on trial: whole games against random play, and a film of one."""

import dataclasses
from typing import Any

from agents import atari, evaluation, screen
from core import media
from experiments import runs
from experiments.config import build


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wanted:
    """What `conf/evaluate.yaml` may say of an agent."""

    episodes: int = 30
    epsilon: float | None = None  # None: as in the run's own evaluations, like `envs`
    envs: int | None = None
    random: bool = False  # judges random play on the same games, too
    video: bool = False
    seeds = 1  # from the evaluation's own on


@dataclasses.dataclass(frozen=True, kw_only=True)
class Film:
    """One game played before a camera, and the files it became."""

    play: screen.Play
    mp4: media.Written
    gif: media.Written


def judge(run: runs.Trained, wanted: Wanted, *, seed: int) -> runs.Judgement:
    """Plays the games, and with `video` films one more."""
    own = judging(run, episodes=wanted.episodes, epsilon=wanted.epsilon, envs=wanted.envs)
    filmed = film(run, own, seed=seed) if wanted.video else None
    scores = play(run, own, seed=seed, random=wanted.random)
    report, text = evaluation.report(scores["trained"]), evaluation.table(scores)
    if filmed is not None:
        report = dataclasses.replace(report, media={"eval/play": filmed.play.video})
        text += f"\nfilmed: {filmed.mp4.path}, {filmed.gif.path.name} (one game, score {filmed.play.score:g})"
    return runs.Judgement(text=text, content=content(scores), report=report, protocol=scores["trained"].protocol)


def content(scores: dict[str, evaluation.Scores]) -> dict[str, Any]:
    """The scores as `evaluation.json` holds them."""
    return {"agents": {name: evaluation.summary(each) for name, each in scores.items()}}


def judging(
    run: runs.Trained, *, episodes: int, epsilon: float | None = None, envs: int | None = None
) -> evaluation.Evaluation:
    """How the run's own evaluations play, with these changes. Raises build.ConfigError where it has no agent."""
    own = next((e for e in run.objects.evaluators.values() if isinstance(e, evaluation.Evaluation)), None)
    if own is None:
        if "environments" not in run.config["source"]:
            raise build.ConfigError("run", f"={run.folder}: plays no games; only agents are evaluated so")
        recipe = build.objects(run.config["source"]["environments"], "source.environments")
        own = evaluation.Evaluation(environments=recipe)
    if own.max_frames is not None:
        recipe: Any = own.environments
        own = dataclasses.replace(
            own, environments=dataclasses.replace(recipe, max_frames=own.max_frames), max_frames=None
        )
    given = {name: value for name, value in (("epsilon", epsilon), ("envs", envs)) if value is not None}
    try:
        return dataclasses.replace(own, episodes=episodes, **given)
    except ValueError as error:
        key, _, problem = str(error).partition("=")
        raise build.ConfigError(key, f"={problem}") from error


def play(run: runs.Trained, judge: evaluation.Evaluation, *, seed: int, random: bool) -> dict[str, evaluation.Scores]:
    """The scores of the trained agent and, where asked for, of random play on the same games."""
    shares = {"trained": judge.epsilon} | ({"random": 1.0} if random else {})
    return {
        name: evaluation.evaluate(
            run.learner,
            run.view,
            environments=judge.environments,
            episodes=judge.episodes,
            envs=judge.envs,
            epsilon=epsilon,
            seed=seed,
        )
        for name, epsilon in shares.items()
    }


def film(run: runs.Trained, judge: evaluation.Evaluation, *, seed: int, max_seconds: float = 60.0) -> Film:
    """Films the game of this seed into `media/play-<frames trained>.mp4` and `.gif` (a minute of it at most)."""
    if not isinstance(judge.environments, atari.Atari):
        raise build.ConfigError("video", "=true: only Atari games can be filmed")
    played = screen.record(
        run.learner, run.view, judge.environments, epsilon=judge.epsilon, seed=seed, max_seconds=max_seconds
    )
    path = run.folder / "media" / f"play-{run.examples}"
    path.parent.mkdir(exist_ok=True)
    return Film(
        play=played,
        mp4=media.write_mp4(path.with_suffix(".mp4"), played.video),
        gif=media.write_gif(path.with_suffix(".gif"), played.video),
    )
