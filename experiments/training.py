"""One run, from a config to its outcome: what `experiments.train` does with a composed config."""

import contextlib
import io
import logging
import sys
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from core import distributed, loop, platform, profiling, progress, stopping, tracking, types
from core.checkpoints import checkpoint
from experiments.config import build, command_line, resume, saved

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


def task(settings: command_line.Config, folder: Path) -> None:
    """One run in `folder`; ends the process with a status of its own if it was stopped."""
    logging.getLogger().setLevel(logging.WARNING)  # Orbax would tell every step of every save
    try:
        distributed.start()
    except ValueError as error:  # a variable of the environment
        raise build.ConfigError("", str(error)) from error
    together = distributed.ending_together(refusal=build.ConfigError)
    with together, stopping.Stop() as stop, _told(folder / saved.FAILURE):
        outcome = train(settings, folder, stop=stop)
    if not outcome.finished:
        sys.exit(stop.exit_status)


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """Writes an uncaught exception to `path`; a refused start (ConfigError) leaves the folder unchanged."""
    try:
        yield
    except build.ConfigError:
        raise
    except Exception as error:
        if not isinstance(error, distributed.Elsewhere):
            with contextlib.suppress(OSError):  # a full disk, say, which may be what ended it
                path.write_text(f"{command_line.reason(error)}\n\n{traceback.format_exc()}")
        raise


def train(settings: command_line.Config, folder: Path, *, stop: stopping.Stop) -> loop.Outcome:
    """Builds everything that `settings` describe and runs the loop; what it makes lies in `folder`.

    A refused start leaves the folder as it was. A run has its config.yaml before anything else that it writes, so that
    one which is killed in between begins anew, or goes on.
    """
    saved.refuse_taken(folder, settings)
    if settings["init_from"] and not settings["resume"]:
        saved.load(settings["init_from"])  # refused before anything is built where it is no run
    run = build.run(settings)
    platform.cache()
    source, learner = run.source, run.learner
    try:
        _attach(source, learner)
        _prepare(run.evaluators, learner)
        _check_metric(run)
        _check_steps(run)
        _check_folder(folder)
        with distributed.together():
            protocol = _protocol(run, folder)
        checkpoints, start = _begin(run, folder / "checkpoints")
        if run.resume and distributed.primary() and (line := resume.told(saved.load(folder), settings)):
            print(line, flush=True)
        with distributed.together():
            if distributed.primary():
                saved.save(folder, settings, protocol=protocol)
                (folder / saved.FAILURE).unlink(missing_ok=True)  # of an attempt before
        outcome = _loop(run, start, checkpoints, folder, settings, stop=stop)
    finally:
        source.close()
    done = "finished" if outcome.finished else "stopped"
    if distributed.primary():
        print(f"{done} at {outcome.examples:,} {source.unit}; resume or evaluate it: {folder}")
    return outcome


def _check_steps(run: build.Run) -> None:
    """Learner steps are counted in 32 bits."""
    most = (2**31 - 1) // run.source.dispatch * run.source.examples_per_step
    if run.budget > most:
        problem = f"={run.budget}: at most {most:,} {run.source.unit}, 2^31 learner steps; take larger batches"
        raise build.ConfigError("budget", problem)


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


def _begin(run: build.Run, folder: Path) -> tuple[checkpoint.Checkpoints, loop.Start]:
    """The run about to go on, with its checkpoints in `folder`. Raises ConfigError where it cannot be."""
    checkpoints = checkpoint.Checkpoints(
        folder,
        keep=run.checkpoint.keep,
        replay=run.checkpoint.replay,
        metric=run.checkpoint.metric,
        better=run.checkpoint.better,
        log=print if distributed.primary() else lambda line: None,
    )
    try:
        return checkpoints, loop.begin(
            learner=run.learner,
            source=run.source,
            placement=run.mesh,
            seed=run.seed,
            checkpoints=checkpoints,
            weights=None if run.init_from is None else _weights(Path(run.init_from)),
        )
    except (loop.Refused, checkpoint.CheckpointError) as error:
        raise build.ConfigError("", str(error)) from error


def _check_metric(run: build.Run) -> None:
    """A run without evaluators keeps no best checkpoint, as asked; one with them has a metric to keep it by."""
    metric = run.checkpoint.metric
    if metric is None or not run.evaluators:
        return
    try:
        names = {name for each in run.evaluators.values() for name in each.names(run.learner, run.source.spec)}
    except ValueError as error:  # the learner does not fit the data
        raise build.ConfigError("", str(error)) from error
    if metric not in names:
        there = ", ".join(sorted(names)) or "nothing"
        problem = f"={metric}: no evaluation gives it; take null for no best checkpoint, or of what there is: {there}"
        raise build.ConfigError("checkpoint.metric", problem)


def _protocol(run: build.Run, folder: Path) -> dict[str, Any]:
    """What training figures and evaluations must be read with; a resumed run has the same data and features."""
    judged = {name: own for name, each in run.evaluators.items() if (own := getattr(each, "protocol", None))}
    began = saved.protocol(folder) if run.resume else {}
    _check_data(began, {**run.source.protocol, "evaluators": judged}, folder)
    before = began.get("evaluators", {})
    for name in before.keys() & judged.keys():
        old, new = (protocol[name].get("features_sha256") for protocol in (before, judged))
        if old != new:
            raise build.ConfigError(
                f"evaluators.{name}.features",
                f": have the digest {new}, and this run's figures so far are of {old}, which do not compare; put that "
                f"file or run back, or start a new run from these weights: init_from={folder}",
            )
    return {**run.source.protocol, **({"evaluators": judged} if judged else {})}


def _check_data(before: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    """Raises ConfigError for a resumed run whose data are others; of old runs their number alone is known."""
    parts = {"training": (before, now)}
    parts |= {n: (p, now["evaluators"].get(n, {})) for n, p in before.get("evaluators", {}).items()}
    for name, (old, new) in parts.items():
        keys = [
            key for key in ("images_sha256", "images", "reference", "reference_sha256") if key in old and key in new
        ]
        if any(old[key] != new[key] for key in keys):
            then, today = (", ".join(f"{key} {part[key]}" for key in keys) for part in (old, new))
            raise build.ConfigError(
                "source",
                f": the data of {name} are not those that this run began with: {then} then; {today} now. Put them back "
                "(source.path=... or source.folder=... names another place), or start a new run from these weights: "
                f"init_from={folder}",
            )


def _loop(
    run: build.Run,
    start: loop.Start,
    checkpoints: checkpoint.Checkpoints,
    folder: Path,
    settings: command_line.Config,
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
            folder,
            unit=source.unit,
            config=settings,
            backend=run.tracker,
            resume_step=start.step,
            parameters=sum(each.size for each in jax.tree.leaves(start.state.params)),
            say=bar.message,
        )
    profiler = profiling.Profiler(folder=folder / "profile") if run.profile and distributed.primary() else None
    schedule = loop.Schedule(
        budget=run.budget,
        log_every=run.log_every,
        checkpoint_every=run.checkpoint.every,
        replay_every=run.checkpoint.replay_every,
        lag=run.lag,
    )
    if run.checkpoint.replay and (line := schedule.told(start.functions.abstract, source.unit)):
        bar.message(line)
    status = "failed"
    try:
        outcome = loop.run(
            start,
            schedule=schedule,
            checkpoints=checkpoints,
            tracker=tracker,
            bar=bar,
            stop=stop,
            evaluators=run.evaluators,
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
