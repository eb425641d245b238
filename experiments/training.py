"""One run, from a config to its outcome: what `experiments.train` does with a composed config."""

import io
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core import checkpoint, distributed, loop, platform, profiling, progress, stopping, tracking, types
from experiments import build, config

# Beside the progress bar, as far as a run has them.
SHOWN = (
    "eval/episode_return",
    "train/episode_return",
    "eval/fid",
    "eval/loss",
    "eval/accuracy",
    "loss/td",
    "loss/total",
)


def task(settings: config.Config, folder: Path) -> None:
    """One run in `folder`; ends the process with a status of its own if it was stopped."""
    logging.getLogger().setLevel(logging.WARNING)  # Orbax would tell every step of every save
    distributed.start()
    with stopping.Stop() as stop:
        outcome = train(settings, folder, stop=stop)
    if not outcome.finished:
        sys.exit(stop.exit_status)


def train(settings: config.Config, folder: Path, *, stop: stopping.Stop) -> loop.Outcome:
    """Builds everything that `settings` describe and runs the loop; what it makes lies in `folder`."""
    run = build.run(settings)
    platform.cache()
    source, learner = run.source, run.learner
    try:
        _attach(source, learner)
        _prepare(run.evaluators, learner)
        _check_folder(folder)
        with distributed.together():
            if distributed.primary():
                config.save(folder, settings, protocol=source.protocol)
        checkpoints = checkpoint.Checkpoints(
            folder / "checkpoints",
            keep=run.checkpoint.keep,
            replay=run.checkpoint.replay,
            metric=run.checkpoint.metric,
            better=run.checkpoint.better,
            log=print if distributed.primary() else lambda line: None,
        )
        start = loop.begin(
            learner=learner,
            source=source,
            placement=run.mesh,
            seed=run.seed,
            checkpoints=checkpoints,
            weights=None if run.init_from is None else _weights(Path(run.init_from)),
        )
        outcome = _loop(run, start, checkpoints, folder, settings, stop=stop)
    except loop.Refused as error:
        if not settings["resume"] and distributed.primary():
            (folder / config.FILE).unlink()  # no run lies here, and the next try may
        raise build.ConfigError("", str(error)) from error
    finally:
        source.close()
    done = "finished" if outcome.finished else "stopped"
    if distributed.primary():
        print(f"{done} at {outcome.examples:,} {source.unit}; resume or evaluate it: {folder}")
    return outcome


def _check_folder(folder: Path) -> None:
    folders = distributed.gather(str(folder))
    if len(set(folders)) > 1:
        raise build.ConfigError(
            "hydra.run.dir", f": processes of one run have {folders[0]} and {folders[-1]}; give all of them the same"
        )


def _attach(source: Any, learner: Any) -> None:
    try:
        source.attach(learner)
    except ValueError as error:  # the network does not fit the data
        raise build.ConfigError("", str(error)) from error


def _prepare(evaluators: Mapping[str, types.Evaluator], learner: Any) -> None:
    for name, evaluator in evaluators.items():
        try:
            evaluator.prepare(learner)
        except ValueError as error:
            raise build.ConfigError(f"evaluators.{name}", f": {error}") from error


def _loop(
    run: build.Run,
    start: loop.Start,
    checkpoints: checkpoint.Checkpoints,
    folder: Path,
    settings: config.Config,
    *,
    stop: stopping.Stop,
) -> loop.Outcome:
    """Opens what shows the run, at the step where it goes on, and closes it however the run ends."""
    source = start.source
    shown = None if distributed.primary() else io.StringIO()
    bar = progress.Progress(
        run.budget, source.unit, metrics=SHOWN, start=start.step * source.examples_per_step, stream=shown
    )
    tracker = tracking.Muted()
    if distributed.primary():
        tracker = tracking.open(
            folder, unit=source.unit, config=settings, backend=run.tracker, resume_step=start.step, say=bar.message
        )
    profiler = profiling.Profiler(folder=folder / "profile") if run.profile and distributed.primary() else None
    status = "failed"
    try:
        outcome = loop.run(
            start,
            schedule=loop.Schedule(
                budget=run.budget, log_every=run.log_every, checkpoint_every=run.checkpoint.every, lag=run.lag
            ),
            checkpoints=checkpoints,
            tracker=tracker,
            bar=bar,
            stop=stop,
            evaluators=tuple(run.evaluators.values()),
            profiler=profiler,
        )
        status = "finished" if outcome.finished else "stopped"
        return outcome
    except loop.Diverged:
        status = "diverged"
        raise
    finally:
        bar.close()
        tracker.finish(status)
        if profiler is not None:
            profiler.close()


def _weights(run: Path):
    return lambda wanted: checkpoint.load(run / "checkpoints", wanted).tree
