"""One command of `experiments.launch`: a new launch, a look at one, or a second try of what failed in it."""

import dataclasses
import functools
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from experiments.config import build, command_line, overrides, saved
from experiments.launching import sweep
from slurm import jobs, scheduler, status

SETTINGS = frozenset(field.name for field in dataclasses.fields(jobs.Settings))
OWN = SETTINGS | {"cluster", "dry_run", "status", "retry"}
EXIT_FAILED = 1  # of `status=`, where a run has failed


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wanted:
    """`conf/launch.yaml` as an object, but for the job's settings."""

    dry_run: bool = False
    status: str | None = None
    retry: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Typed:
    """A command line, taken apart."""

    own: list[str]  # options, and what conf/launch.yaml has keys for
    training: list[str]  # what experiments.train has keys for
    sweep: bool
    command: str

    @property
    def task(self) -> Callable[[command_line.Config, Path], None]:
        """For `command_line.main`."""
        return functools.partial(task, self)


def split(arguments: Sequence[str]) -> Typed:
    """Which argument is whose; `hydra.searchpath` is everybody's. Raises ConfigError where a job's key is swept."""
    lines = overrides.among(arguments)
    own = [line for line in lines if re.split(r"[=.]", line.lstrip("+~"))[0] in OWN]
    new = [re.sub(r"^\+*environment\.", "++environment.", line) for line in own]  # which may name any variable
    everybodys = [line for line in lines if line.startswith("hydra.searchpath=")]
    options = [argument for argument in arguments if argument not in lines]
    if swept := overrides.swept(own):
        raise build.ConfigError(swept[0], ": one value for all runs of a launch")
    return Typed(
        own=[option for option in options if option not in ("-m", "--multirun")] + everybodys + new,
        training=[line for line in lines if line not in own],
        sweep=overrides.multirun(arguments),
        command=f"python -m experiments.launch {shlex.join(arguments)}",
    )


def task(typed: Typed, plain: command_line.Config, _: Path) -> None:
    """What was typed: a launch, by itself."""
    wanted: Wanted = _object(Wanted, plain)
    settings: jobs.Settings = _object(jobs.Settings, plain)
    if typed.training and (wanted.status or wanted.retry):
        key = typed.training[0].partition("=")[0]
        raise build.ConfigError(key, ": a run keeps its settings; beside retry= only the job's own may change")
    if wanted.status:
        launch = _load("status", wanted.status)
        states = look(launch)
        print(status.table(launch, states))
        if any(state.state == status.FAILED for state in states):
            sys.exit(EXIT_FAILED)
    elif wanted.retry:
        retry(_load("retry", wanted.retry), settings, overrides.keys([line for line in typed.own if "=" in line]))
    else:
        launch = sweep.launch(
            typed.training,
            settings,
            sweep=typed.sweep,
            command=typed.command,
            names=OWN,
            admit=(lambda runs: None) if wanted.dry_run else _check_number,
        )
        if wanted.dry_run:
            print(jobs.script(launch), end="")
            return
        if launch.resumes:
            _refuse_if_queued(launch)
        check(settings)
        submit(launch, range(len(launch.members)))


def retry(launch: jobs.Launch, settings: jobs.Settings, typed: set[str]) -> None:
    """Submits the runs that failed, were cancelled or are missing, with those of the `settings` that were typed."""
    settings = _changed(launch.settings, settings, typed)
    members = look(launch)
    again = [number for number, member in enumerate(members) if member.state in status.ENDED_BADLY]
    if not again:
        print(status.table(launch, members))
        print("nothing to submit again")
        return
    check(settings)
    submit(dataclasses.replace(launch, settings=settings), again)


def look(launch: jobs.Launch) -> list[status.State]:
    """The runs' states, in their order."""
    return status.look(launch, budget=_budget)


def _budget(run: Path) -> int:
    try:
        return int(saved.load(run)["budget"])
    except build.ConfigError as error:
        raise LookupError(str(error)) from error


def _changed(before: jobs.Settings, settings: jobs.Settings, typed: set[str]) -> jobs.Settings:
    """What was typed in place of what was; `cluster=` is typed for all that a cluster's file holds."""
    names = {key.partition(".")[0] for key in typed}
    if "cluster" in names:
        names |= SETTINGS - {"nodes", "tasks_per_node", "parallel"}
    values = {name: getattr(settings, name) for name in names & SETTINGS}
    if "cluster" not in names and "environment" in names:
        values["environment"] = {**before.environment, **settings.environment}
    try:
        return dataclasses.replace(before, **values)
    except ValueError as error:
        raise build.ConfigError("", str(error)) from error


def check(settings: jobs.Settings) -> None:
    """Raises build.ConfigError where the cluster cannot grant what is asked for, as far as that is cheaply known."""
    there = _partition(settings.partition)
    if settings.time is not None and scheduler.seconds(settings.time) > there.seconds:
        most = scheduler.shown(there.seconds)
        raise build.ConfigError("time", f"={settings.time}: partition {there.name} allows {most} at most")
    feature = settings.constraint
    if feature and re.fullmatch(r"[\w.-]+", feature) and feature not in there.features:  # not an expression of several
        near = build.nearest(feature, there.features)
        raise build.ConfigError("constraint", f"={feature}: no node of partition {there.name} has it; {near}")
    limits = {"nodes": there.nodes, "gpus_per_node": there.gpus, "cpus_per_task": there.cpus // settings.tasks}
    for key, most in limits.items():
        if (value := getattr(settings, key) or 0) > most:
            each = f" for each of {settings.tasks} processes" if key == "cpus_per_task" and settings.tasks > 1 else ""
            raise build.ConfigError(key, f"={value}: partition {there.name} has {most} at most{each}")


def _check_number(runs: int) -> None:
    """Raises build.ConfigError where Slurm takes no array of so many."""
    most = _asked(scheduler.longest_array)
    if runs > most:
        remedy = "several launches, each with a part of the values, take them all"
        raise build.ConfigError("", f"{runs} runs: an array of this Slurm has {most} at most (MaxArraySize); {remedy}")


def _asked(question: Callable[[], Any]) -> Any:
    try:
        return question()
    except scheduler.Unavailable as error:
        remedy = "dry_run=true shows the script alone, slurm/cluster.py starts a small Slurm on this machine"
        raise build.ConfigError("", f"{error}; {remedy}") from error


def _partition(name: str | None) -> scheduler.Partition:
    """The one of this name, or the default."""
    partitions = _asked(scheduler.partitions)
    if name is None:
        default = next((partition for partition in partitions.values() if partition.is_default), None)
        if default is None:
            raise build.ConfigError("partition", f": this cluster has no default; {build.nearest('', partitions)}")
        return default
    if name not in partitions:
        raise build.ConfigError("partition", f"={name}: no such partition; {build.nearest(name, partitions)}")
    return partitions[name]


def submit(launch: jobs.Launch, numbers: Sequence[int]) -> str:
    """Writes the script, submits it and says what to do with the job, whose number it returns."""
    try:
        script = jobs.prepare(launch, jobs.script(launch, numbers))
    except OSError as error:
        raise build.ConfigError("", f"{launch.folder}: not written: {error}") from error
    shown = status.shown(launch.folder)
    try:
        job = scheduler.submit(script)
    except scheduler.Unavailable as error:
        remedy = f"retry={shown} submits it again, with partition=... and the like changed; see {script}"
        raise build.ConfigError("", f"{error}; {remedy}") from error
    jobs.note_submission(launch, numbers, job)
    runs = f"{len(numbers)} runs of {launch.name}" if launch.sweep else launch.name
    log = f"{numbers[0]}/slurm/{job}_{numbers[0]}" if launch.sweep else f"slurm/{job}"
    print(f"job {job}: {runs} in {shown}")
    print(f"  watch   python -m experiments.launch status={shown}")
    print(f"          tail -F {shown}/{log}-rank0.log")
    print(f"  cancel  scancel {job}")
    print(f"  go on   python -m experiments.launch retry={shown}")
    return job


def _refuse_if_queued(launch: jobs.Launch) -> None:
    member = look(launch)[0]
    if member.state in (status.PENDING, status.RUNNING):
        raise build.ConfigError(
            "resume", f"={launch.folder}: job {member.job} is {member.state} there; scancel it first"
        )


def _load(key: str, folder: str) -> jobs.Launch:
    try:
        return jobs.load(Path(folder))
    except OSError as error:
        parent = Path(folder).absolute().parent
        near = f"; it is one run of {key}={status.shown(parent)}" if (parent / "slurm").is_dir() else ""
        raise build.ConfigError(key, f"={folder}: nothing was launched here (no slurm/launch.json){near}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise build.ConfigError(key, f"={folder}: slurm/launch.json cannot be read: {error}") from error


def _object(cls: type, plain: command_line.Config) -> Any:
    """The part of `plain` that makes one of these."""
    names = {field.name for field in dataclasses.fields(cls)}
    given = {name: value for name, value in plain.items() if name in names}
    return build.objects(given | {"_target_": f"{cls.__module__}.{cls.__name__}"})
