"""What a launch is: settings for Slurm, one run or several, the script that they become, and its files.

    <folder>/slurm/job.sh            the script, a job or an array of them (`slurm/job.sh` filled in)
    <folder>/slurm/launch.json       the launch itself, for `status=` and `retry=`
    <run>/slurm/attempts.jsonl       one line for each submission, start and end
    <run>/slurm/<job>.log            what the script says
    <run>/slurm/<job>-rank<n>.log    what process n says

`<folder>` is the run's own, or that of a sweep whose runs are `<folder>/0`, `<folder>/1` and so on.
"""

import dataclasses
import functools
import json
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import annotated_types

from core import ranges
from slurm import scheduler

TEMPLATE = Path(__file__).resolve().with_name("job.sh")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """The keys of conf/launch.yaml and conf/cluster/*.yaml that make a job."""

    nodes: ranges.PositiveInt = 1
    tasks_per_node: ranges.PositiveInt | Literal["gpus"] = 1  # "gpus": a process for each
    parallel: ranges.PositiveInt | None = None  # runs of a sweep at once
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    time: str | None = None
    gpus_per_node: ranges.NonNegativeInt = 0
    gpu_memory: ranges.PositiveFloat | None = None  # GB of each; None: not known
    cpus_per_task: ranges.PositiveInt | None = None
    memory: str | None = None  # of a node
    options: tuple[str, ...] = ()  # more for sbatch
    # Before the time limit.
    stop_seconds: Annotated[int, annotated_types.Interval(ge=10, le=65_535), "65535 is Slurm's most"] = 180
    modules: tuple[str, ...] = ()
    environment: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    setup: tuple[str, ...] = ()  # lines of shell
    python: str | None = None  # None: the one that runs this
    container: str | None = None
    container_command: str = "apptainer exec --nv"
    scratch: str | None = None

    def __post_init__(self):
        if self.tasks < 1:
            raise ValueError("tasks_per_node=gpus: gpus_per_node must say how many")
        if self.time is not None:
            try:
                limit = scheduler.seconds(self.time)
            except ValueError as error:
                raise ValueError(f"time={self.time}: {error}") from error
            if limit <= self.stop_seconds:
                remedy = f"must be more than stop_seconds={self.stop_seconds}, which are for saving"
                raise ValueError(f"time={self.time}: {remedy}")
        for name in self.environment:
            if not re.fullmatch(r"[A-Za-z_]\w*", name):
                raise ValueError(f"environment={name}: is no name of a variable")

    @property
    def tasks(self) -> int:
        """Processes on a node."""
        return self.gpus_per_node if self.tasks_per_node == "gpus" else self.tasks_per_node


@dataclasses.dataclass(frozen=True, kw_only=True)
class Member:
    """One run of a launch."""

    folder: str  # relative to the launch's: "." or its number
    arguments: tuple[str, ...]  # for experiments.train, where no run lies there yet
    changes: tuple[str, ...] = ()  # beside resume=<folder>, where one does
    label: str = ""  # what sets it apart from the others of its sweep


@dataclasses.dataclass(frozen=True, kw_only=True)
class Launch:
    """One run, or a sweep of them."""

    folder: Path  # absolute
    name: str
    command: str  # as typed
    cwd: str  # what relative paths in the arguments refer to
    sweep: bool
    settings: Settings
    members: tuple[Member, ...]

    @property
    def resumes(self) -> bool:
        """Whether it goes on with a run that lies there."""
        return self.members[0].arguments[0].startswith("resume=")

    def run(self, member: Member) -> Path:
        return self.folder / member.folder


def script(launch: Launch, wanted: Sequence[int] | None = None) -> str:
    """The text of the job for the members of these numbers (all by default)."""
    numbers = range(len(launch.members)) if wanted is None else wanted
    blocks = {
        "command": [f"# {line}" for line in launch.command.splitlines()],
        "directives": _directives(launch, numbers),
        "members": _members(launch),
        "environment": _environment(launch.settings),
    }
    lines = []
    for line in TEMPLATE.read_text().splitlines():
        lines += blocks.get(line.removeprefix("# @"), [line]) if line.startswith("# @") else [line]
    return "\n".join(lines) + "\n"


def prepare(launch: Launch, text: str) -> Path:
    """Makes the folders and writes the script and the launch; returns the script's path. Raises OSError."""
    for member in launch.members:
        (launch.run(member) / "slurm").mkdir(parents=True, exist_ok=True)  # Slurm makes none for its logs
    folder = launch.folder / "slurm"
    folder.mkdir(exist_ok=True)
    content = dataclasses.asdict(launch) | {"folder": None}  # wherever it lies
    (folder / "launch.json").write_text(json.dumps(content, indent=1) + "\n")
    path = folder / "job.sh"
    path.write_text(text)
    return path


def load(folder: Path) -> Launch:
    """The launch in `folder`. Raises OSError, or ValueError, where there is none that can be read."""
    content = json.loads((folder / "slurm" / "launch.json").read_text())
    settings: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in content["settings"].items()
    }
    plain: list[dict[str, Any]] = [
        {name: tuple(value) if isinstance(value, list) else value for name, value in member.items()}
        for member in content["members"]
    ]
    members = tuple(Member(**member) for member in plain)
    return Launch(**content | {"folder": folder.absolute(), "settings": Settings(**settings), "members": members})


def launch_of(run: Path) -> Path | None:
    """The folder of the launch that the run in this folder belongs to; None where Slurm did not launch it."""
    if (run / "slurm" / "launch.json").is_file():
        return run
    return run.parent if run.name in _members_in(run.parent) else None


@functools.lru_cache(maxsize=16)
def _members_in(folder: Path) -> frozenset[str]:
    if not (folder / "slurm" / "launch.json").is_file():
        return frozenset()
    try:
        return frozenset(member.folder for member in load(folder).members)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return frozenset()


def note_submission(launch: Launch, numbers: Sequence[int], job: str) -> None:
    """A line in the record of each member: the job that it belongs to."""
    for number in numbers:
        line = {"event": "submitted", "job": f"{job}_{number}" if launch.sweep else job}
        with (launch.run(launch.members[number]) / "slurm" / "attempts.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")


def _directives(launch: Launch, numbers: Sequence[int]) -> list[str]:
    settings = launch.settings
    logs = launch.folder / ("%a/slurm/%A_%a.log" if launch.sweep else "slurm/%j.log")
    limit = "" if settings.parallel is None else f"%{settings.parallel}"
    options: dict[str, Any] = {
        "job-name": launch.name,
        "array": ",".join(map(str, numbers)) + limit if launch.sweep else None,
        "chdir": launch.cwd,
        "output": logs,
        "open-mode": "append",  # a job that starts again goes on in its log
        "requeue": "",
        "signal": f"USR1@{settings.stop_seconds}",
        "nodes": settings.nodes,
        "ntasks-per-node": settings.tasks,
        "cpus-per-task": settings.cpus_per_task,
        "gpus-per-node": settings.gpus_per_node or None,
        "mem": settings.memory,
        "time": settings.time,
        **{name: getattr(settings, name) for name in ("partition", "account", "qos", "constraint")},
    }
    given = {name: str(value) for name, value in options.items() if value is not None}
    lines = [f"--{name}={shlex.quote(value)}" if value else f"--{name}" for name, value in given.items()]
    return [f"#SBATCH {line}" for line in (*lines, *settings.options)]


def _members(launch: Launch) -> list[str]:
    def line(member: Member) -> str:
        where = shlex.quote(str(launch.run(member).resolve()))
        changes = f" changes=({shlex.join(member.changes)})" if member.changes else ""
        return f"folder={where} arguments=({shlex.join(member.arguments)}){changes}"

    if not launch.sweep:
        return [line(launch.members[0])]
    cases = [f"  {number}) {line(member)} ;;" for number, member in enumerate(launch.members)]
    return ["case $SLURM_ARRAY_TASK_ID in", *cases, "esac"]


def _environment(settings: Settings) -> list[str]:
    lines = []
    if settings.modules:
        lines += ["type module &>/dev/null || . /etc/profile", f"module load {shlex.join(settings.modules)}"]
    if settings.cpus_per_task is not None:
        lines += ["export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK # srun no longer takes it from sbatch"]
    if settings.scratch is not None:
        lines += [f"export XDG_CACHE_HOME={shlex.quote(settings.scratch + '/cache')}"]
    lines += ["export PYTHONUNBUFFERED=1"]
    lines += [f"export {name}={shlex.quote(str(value))}" for name, value in settings.environment.items()]
    lines += settings.setup
    inside = [] if settings.container is None else [*shlex.split(settings.container_command), settings.container]
    return [*lines, f"python=({shlex.join([*inside, settings.python or sys.executable])})"]
