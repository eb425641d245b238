"""From what was typed for the training to a launch: one run or the runs of a sweep, each composed and checked."""

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.config import build, command_line, overrides, resume, saved
from experiments.launching import memory
from slurm import jobs

SAFE = re.compile(r"[A-Za-z0-9._/@+-]+")  # folders whose names pass through Hydra, the shell and Slurm as they are
_FOLDER = "hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir"  # which the launch gives to its runs


def launch(
    lines: Sequence[str],
    settings: jobs.Settings,
    *,
    sweep: bool,
    command: str,
    names: Iterable[str],
    admit: Callable[[int], None],
) -> jobs.Launch:
    """The launch of these overrides of conf/train.yaml. `names` are the job's own keys, which may have been meant.

    `admit` hears how many runs a sweep has before they are looked at, and raises where they are too many.

    Raises:
      build.ConfigError: a config does not compose or holds values that cannot be, its data cannot be read, its state
        does not fit the GPUs, or its folder is taken or has an odd name.
    """
    if not sweep and (several := overrides.swept(lines)):
        raise build.ConfigError(several[0], ": several values want -m, one run for each")
    with command_line.composing(lines, names=names):
        if any(line.startswith("resume=") for line in lines):
            return _resumed(lines, settings, sweep=sweep, command=command)
        runs = overrides.combinations(lines) if sweep else [list(lines)]
        if sweep:
            admit(len(runs))
        return _fresh(runs, settings, sweep=sweep, command=command)


def _fresh(runs: Sequence[list[str]], settings: jobs.Settings, *, sweep: bool, command: str) -> jobs.Launch:
    folder_key = "hydra:sweep.dir" if sweep else "hydra:run.dir"
    # Hydra decides on the folder, by the first run's config.
    plain = [command_line.compose(*run, f"+launch_folder=${{{folder_key}}}", fits=True) for run in runs]
    folder = _checked(Path(settings.scratch or "", plain[0]["launch_folder"]).absolute())
    for one in plain:
        del one["launch_folder"]
        check(one)
    common = set(runs[0]).intersection(*runs)
    members = []
    for number, run in enumerate(runs):
        where = str(number) if sweep else "."
        kept = tuple(line for line in run if line.partition("=")[0] not in _FOLDER)
        label = " ".join(line for line in run if line not in common)
        members.append(jobs.Member(folder=where, arguments=(f"hydra.run.dir={folder / where}", *kept), label=label))
    if taken := next((path for path in (folder / saved.FILE, folder / "slurm", folder / "0") if path.exists()), None):
        remedy = "resume=<folder> goes on with a run, retry=<folder> with a launch"
        raise build.ConfigError("hydra.run.dir", f"={folder}: holds {taken.name} already; {remedy}")
    memory.check(plain, settings)
    return _launch(folder, plain[0]["name"], members, settings, sweep=sweep, command=command)


def _resumed(lines: Sequence[str], settings: jobs.Settings, *, sweep: bool, command: str) -> jobs.Launch:
    if sweep:
        raise build.ConfigError("resume", ": goes on with one run; retry=<folder> with all of a sweep")
    lines = [line for line in resume.arguments(lines) if not line.startswith(_FOLDER)]
    composed = command_line.compose(*lines)
    folder = _checked(Path(composed["resume"]).absolute())
    plain = resume.merged(composed, lines)
    check(plain)
    memory.check([plain], settings)
    changes = tuple(line for line in lines if not line.startswith("resume="))
    member = jobs.Member(folder=".", arguments=(f"resume={folder}", *changes), changes=changes)
    return _launch(folder, plain["name"], [member], settings, sweep=False, command=command)


def check(plain: Mapping[str, Any]) -> None:
    """One run's config, its data included as far as they are files. Raises build.ConfigError."""
    build.check(plain)
    for key, path in _files(plain["source"], "source"):
        place = os.path.expanduser(path)  # and opened, as the run will
        try:
            with os.scandir(place) if os.path.isdir(place) else open(place, "rb"):
                pass
        except OSError as error:
            raise build.ConfigError(key, f"={path}: cannot be read here: {error.strerror}") from error


def _launch(
    folder: Path, name: str, members: Sequence[jobs.Member], settings: jobs.Settings, *, sweep: bool, command: str
) -> jobs.Launch:
    return jobs.Launch(
        folder=folder,
        name=name,
        command=command,
        cwd=os.getcwd(),
        sweep=sweep,
        settings=settings,
        members=tuple(members),
    )


def _checked(folder: Path) -> Path:
    if not SAFE.fullmatch(str(folder)):
        odd = re.sub(SAFE, "", str(folder))[0]
        raise build.ConfigError(
            "", f"{folder}: {odd!r} is in the way of Hydra or Slurm; scratch=<folder> moves the runs"
        )
    return folder


def _files(node: Any, key: str) -> list[tuple[str, str]]:
    """Every `folder` and `path` below `node`."""
    items = node.items() if isinstance(node, Mapping) else ()
    found = [(f"{key}.{name}", value) for name, value in items if name in ("folder", "path") and isinstance(value, str)]
    return found + [pair for name, value in items for pair in _files(value, f"{key}.{name}")]
