"""One evaluation of a run: what `experiments.evaluate` does with a composed config."""

import dataclasses
import datetime
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from agents import atari, evaluation, screen
from core import media, platform, tracking
from experiments import build, config, runs

FILE = "evaluation.json"  # in a run's folder


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wanted:
    """`conf/evaluate.yaml` as an object."""

    run: str
    which: Literal["latest", "best"] = "latest"
    episodes: int = 30
    epsilon: float | None = None  # None: as in the run's own evaluations, like `envs`
    envs: int | None = None
    seed: int = 0
    random: bool = False  # judges random play on the same games, too
    video: bool = False
    tune: bool = True

    def __post_init__(self):
        if self.seed < 0:
            raise ValueError(f"seed={self.seed}: must be at least 0")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Film:
    """One game played before a camera, and the files it became."""

    play: screen.Play
    mp4: media.Written
    gif: media.Written


def task(settings: config.Config, _: Path) -> None:
    """Evaluates, prints the table, writes `evaluation.json`; with `video`, films a game."""
    wanted: Wanted = build.objects({**settings, "_target_": f"{__name__}.Wanted"})
    run = runs.load(wanted.run, wanted.which)
    platform.cache()
    judge = judging(run, episodes=wanted.episodes, epsilon=wanted.epsilon, envs=wanted.envs)
    filmed = film(run, judge, seed=wanted.seed) if wanted.video else None
    scores = play(run, judge, seed=wanted.seed, random=wanted.random)
    print(f"{run.folder} after {run.examples:,} {run.unit} ({wanted.which} checkpoint), on {platform.cpu()}")
    print(evaluation.table(scores))
    if filmed is not None:
        print(f"filmed: {filmed.mp4.path}, {filmed.gif.path.name} (one game, score {filmed.play.score:g})")
    typed = " ".join(f"{key}={value}" for key, value in dataclasses.asdict(wanted).items() if value is not None)
    command = f"python -m experiments.evaluate {typed}"
    print(f"written: {save(run, command, scores)}")
    _track(run, command, scores["trained"], filmed)


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


def save(run: runs.Trained, command: str, scores: Mapping[str, evaluation.Scores]) -> Path:
    """Writes `evaluation.json`, in place of an earlier one: the scores with all that they must be read with."""
    content = {
        "command": command,
        "checkpoint": run.checkpoint.relative_to(run.folder.absolute()).as_posix(),
        "step": run.step,
        run.unit: run.examples,
        "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cpu": platform.cpu(),
        "agents": {name: evaluation.summary(each) for name, each in scores.items()},
    }
    path = run.folder / FILE
    part = path.with_suffix(".part")
    part.write_text(json.dumps(content, indent=2) + "\n")
    part.replace(path)
    return path


def _track(run: runs.Trained, command: str, scores: evaluation.Scores, film: Film | None) -> None:
    """A W&B run of its own in the training run's group, kept in `evaluations/<date-time>/`.

    Not the training run's: that one may be going on, and a resume from its checkpoint would take the row back.
    """
    backend = run.objects.tracker
    if not isinstance(backend, tracking.Wandb):
        return
    report = evaluation.report(scores)
    if film is not None:
        report = dataclasses.replace(report, media={"eval/play": film.play.video})
    folder = run.folder / "evaluations" / datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S.%f")
    settings = {"command": command, "protocol": dict(scores.protocol), "run": run.config}
    backend = dataclasses.replace(
        backend, job_type="evaluate", name=f"{backend.name or run.folder.resolve().name}-evaluate"
    )
    tracker = tracking.open(folder, unit=run.unit, config=settings, backend=backend)
    tracker.log(step=run.step, examples=run.examples, seconds=0.0, scalars={}, report=report)
    tracker.finish("finished")
