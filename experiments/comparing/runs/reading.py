"""Runs as their folders tell them: settings, protocol, rows, how each is. Whatever lies there, reading goes on."""

import contextlib
import dataclasses
import glob
import json
import math
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from core import files
from experiments.comparing.runs import beside, cache, rows
from experiments.config import build, overrides, saved
from slurm import jobs, status

RUNNING, DONE, FAILED, UNFINISHED = "running", "done", "failed", "unfinished"
# Of a run, with or without its config.yaml.
_TRACES = {"metrics.jsonl", "checkpoints", saved.FAILURE, "provenance.jsonl"}
_DEPTH = 50  # of mappings in a line of provenance.jsonl; a deeper one is no line of ours
QUIET = 600.0  # seconds without a row, or three times the longest wait between two, and a run counts as stopped


@dataclasses.dataclass(frozen=True, kw_only=True)
class Series:
    """One metric of one run in the order of its rows; NaN where the row says null."""

    x: np.ndarray  # [n] int64, frames or images
    values: np.ndarray  # [n] float64
    steps: np.ndarray  # [n] int64, the loop's steps
    hours: np.ndarray  # [n] float64, of all attempts together; NaN where the row does not say
    device_hours: np.ndarray  # [n] float64, hours times the devices that each attempt had; NaN where not known


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """One run folder."""

    folder: Path
    config: Mapping[str, Any]  # without the protocol
    protocol: Mapping[str, Any]
    metrics: Mapping[str, Series]  # of those that were asked for
    names: Collection[str]  # of all metrics in its rows
    unit: str  # frames or images
    reached: int  # of the unit
    state: str
    reason: str  # why it failed, or when its last row was written
    resumed: tuple[int, ...]  # the steps at which later attempts went on
    requeued: int  # how often Slurm has started a job of it again
    lost_steps: (
        int | None
    )  # that attempts had to repeat, as far as their rows tell; None: attempts of before that was noted
    hours: float  # NaN where its rows do not say
    device_hours: float
    retry: str  # the command that goes on with it; empty where it is done or running
    origin: Mapping[str, Any]  # the newest line of provenance.jsonl: code, hardware, packages
    notes: tuple[str, ...]  # what could not be read
    digest: str  # of metrics.jsonl

    @property
    def seed(self) -> Any:
        return self.config.get("seed")

    @property
    def budget(self) -> int:
        return int(self.config["budget"])


@dataclasses.dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A folder that the report cannot use."""

    folder: Path
    reason: str
    retry: str = ""  # the command that goes on with it, where it failed


def find(patterns: Sequence[str], *, key: str) -> tuple[list[Path], list[LeftOut]]:
    """The run folders that folders and glob patterns name, those inside them included; each once, in their order.

    Raises build.ConfigError where a pattern names nothing.
    """
    found: dict[Path, LeftOut | None] = {}
    for pattern in patterns:
        place = os.path.expanduser(pattern)
        places = [place] if os.path.exists(place) else sorted(glob.glob(place, recursive=True))
        folders = [Path(os.path.abspath(each)) for each in places if os.path.isdir(each)]
        if not folders:
            parent = Path(place).absolute().parent
            near = [str(Path(pattern).parent / each.name) for each in parent.glob("*") if each.is_dir()]
            told = f"; {build.nearest(pattern, near)}" if near else ""
            raise build.ConfigError(key, f"={pattern}: no such folder{told}")
        for folder in folders:
            inside = dict(map(_named, _inside(folder)))
            found |= inside or dict([_named((folder, LeftOut(folder=folder, reason="no run in it")))])
    return [each for each, left in found.items() if left is None], [left for left in found.values() if left]


def read_all(
    folders: Sequence[Path], wanted: Sequence[str] | None, *, keep: bool, say: Callable[[int], None] = lambda done: None
) -> list[Run | LeftOut]:
    """Runs in the order of `folders`, each with those of its metrics whose names match one of the patterns `wanted`.

    None: with its evaluations, and what it keeps its best checkpoint by. With `keep` what was read of a run is kept
    beside it, and used the next time. `say` hears now and then how many are read.
    """
    found: list[Run | LeftOut | None] = [None] * len(folders)
    begun = dict[int, _Begun]()
    for number, folder in enumerate(folders):
        start = _guarded(folder, lambda folder=folder: _begin(folder, wanted, keep=keep))
        if isinstance(start, _Begun) and start.rows is None:
            begun[number] = start
        else:
            found[number] = _finished(folder, start)
            say(number + 1 - len(begun))
    for number, own in beside.each({number: start.job for number, start in begun.items()}):
        start = dataclasses.replace(begun.pop(number), rows=own)
        found[number] = _finished(folders[number], start)
        say(len(folders) - len(begun))
    return [each for each in found if each is not None]


def read(folder: Path, wanted: Sequence[str] | None) -> Run | LeftOut:
    """One run, read anew."""
    return read_all([folder], wanted, keep=False)[0]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Begun:
    """A run of which all but its rows is read."""

    config: dict[str, Any]
    protocol: dict[str, Any]
    wanted: list[str]
    job: cache.Job
    rows: rows.Rows | Exception | None  # None: to be read from the run's file


def _begin(folder: Path, wanted: Sequence[str] | None, *, keep: bool) -> _Begun | LeftOut:
    now = cache.stamps(folder) if keep else None
    kept = cache.load(folder, now) if now else cache.Kept()
    content = kept.settings if kept.settings is not None else saved.content(folder)
    as_json = cache.as_json(content) if now else b""
    config, protocol = saved.parts(content)
    if problem := _incomplete(config):
        return LeftOut(folder=folder, reason=f"config.yaml: {problem}")
    if wanted is None:
        node = config.get("checkpoint")
        wanted = ["eval/*", str(node.get("metric")) if isinstance(node, dict) else ""]
    job = cache.Job(folder=folder, wanted=(*wanted, *kept.names), stamps=now, settings=as_json)
    return _Begun(config=config, protocol=protocol, wanted=[*wanted], job=job, rows=kept.rows([*wanted]))


def _guarded(folder: Path, reading: Callable[[], Any]) -> Any:
    try:
        return reading()
    except build.ConfigError as error:
        return LeftOut(folder=folder, reason=str(error))
    except Exception as error:  # of files whose content nobody foresaw: one run of thousands
        return LeftOut(folder=folder, reason=f"cannot be read: {type(error).__name__}: {error}".partition("\n")[0])


def _finished(folder: Path, start: _Begun | LeftOut) -> Run | LeftOut:
    return start if isinstance(start, LeftOut) else _guarded(folder, lambda: _run(folder, start))


def _run(folder: Path, start: _Begun) -> Run | LeftOut:
    own = start.rows
    if isinstance(own, OSError):
        reason = _failure(folder)
        told = f"metrics.jsonl: {own.strerror}" + f"; it failed: {reason}" * bool(reason)
        return LeftOut(folder=folder, reason=told, retry=_retry(folder) if reason else "")
    if isinstance(own, Exception) or own is None:
        raise own or AssertionError
    if not len(own.x):
        failed = _failure(folder)
        reason = failed or own.problem
        told = "no rows yet" + f": {reason}" * bool(reason)
        return LeftOut(folder=folder, reason=told, retry=_retry(folder) if failed else "")
    reached = int(own.x.max())
    quiet = time.time() - (folder / "metrics.jsonl").stat().st_mtime
    state, reason = _state(folder, reached >= int(start.config["budget"]), own.seconds, quiet)
    attempts = _attempts(folder)
    device_seconds = _device_seconds(own, attempts)
    lost: list[Any] = [line.get("lost_steps") for line in attempts[1:]]
    return Run(
        folder=folder,
        config=start.config,
        protocol=start.protocol,
        metrics=_series(own, device_seconds, start.wanted),
        names=own.names,
        unit=own.unit,
        reached=reached,
        state=state,
        reason=reason,
        resumed=tuple(line["step"] for line in attempts[1:] if isinstance(line.get("step"), int)),
        requeued=status.requeued(folder),
        lost_steps=sum(map(int, lost)) if attempts and all(isinstance(each, int) for each in lost) else None,
        hours=_largest(own.seconds) / 3600,
        device_hours=_largest(device_seconds) / 3600,
        retry=_retry(folder) if state in (FAILED, UNFINISHED) else "",
        origin={key: value for key, value in attempts[-1].items() if key != "lost_steps"} if attempts else {},
        notes=tuple(note for note in [own.problem, _clock(own.seconds)] if note),
        digest=own.digest,
    )


def _series(own: rows.Rows, device_seconds: np.ndarray, wanted: Sequence[str]) -> dict[str, Series]:
    """By x, rows of one x in their order: what a second process wrote into the file may go backwards."""
    shared, found = dict[int, tuple[np.ndarray, dict[str, np.ndarray]]](), {}
    for name in rows.matching(own.columns, wanted):
        at, values = own.columns[name]
        if id(at) not in shared:
            order = np.argsort(own.x[at], kind="stable")
            place = at[order]
            axes = {"x": own.x[place], "steps": own.steps[place], "hours": own.seconds[place] / 3600}
            shared[id(at)] = order, axes | {"device_hours": device_seconds[place] / 3600}
        order, axes = shared[id(at)]
        found[name] = Series(values=values[order], **axes)
    return found


def _device_seconds(own: rows.Rows, attempts: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """[n], seconds times devices up to each row; NaN where the row has no seconds, or an attempt no devices."""
    found = np.full(len(own.x), math.nan)
    known = np.isfinite(own.seconds)
    found[known] = np.cumsum(np.diff(own.seconds[known], prepend=0.0) * _devices(attempts, own.steps)[known])
    return found


def _devices(attempts: Sequence[Mapping[str, Any]], steps: np.ndarray) -> np.ndarray:
    """[rows] float64, how many devices the attempt had that wrote a row; NaN where its line does not say."""
    count = np.full(len(steps), math.nan)
    for number, attempt in enumerate(attempts):
        hardware = attempt.get("hardware")
        devices = hardware.get("devices") if isinstance(hardware, dict) else None
        kinds = devices.get("kinds") if isinstance(devices, dict) else None
        counts = [n for n in kinds.values() if isinstance(n, int)] if isinstance(kinds, dict) else []
        step = attempt.get("step") if number else -1
        count[steps > (step if isinstance(step, int) else -1)] = sum(counts) or math.nan
    return count


def _largest(values: np.ndarray) -> float:
    return float(np.nanmax(values)) if np.isfinite(values).any() else math.nan


def _clock(seconds: np.ndarray) -> str:
    back = int(np.count_nonzero(np.diff(seconds[np.isfinite(seconds)]) < 0))
    return f"metrics.jsonl: the seconds go backwards {back} times, so hours are not to be trusted" if back else ""


def _incomplete(config: Any) -> str:
    """What the config of a run lacks, if anything."""
    if not isinstance(config, dict):
        return "no mapping"
    budget = config.get("budget")
    if not isinstance(budget, int | float) or isinstance(budget, bool) or not math.isfinite(budget):
        return f"budget={budget}: no number, so this is no run, or its file was cut short"
    return ""


def _state(folder: Path, reached: bool, seconds: np.ndarray, quiet: float) -> tuple[str, str]:
    """Of a run whose last row was written `quiet` seconds ago, and why it failed or when that was."""
    if reason := _failure(folder):
        return FAILED, reason
    if reached:
        return DONE, ""
    gaps = np.diff(seconds)
    longest = float(np.nanmax(gaps)) if np.isfinite(gaps).any() else 0.0
    ago = (
        f"{quiet / 60:.0f} min"
        if quiet < 5_400
        else f"{quiet / 3_600:.0f} h"
        if quiet < 172_800
        else f"{quiet / 86_400:.0f} days"
    )
    return (RUNNING if quiet < max(QUIET, 3 * longest) else UNFINISHED), f"last row {ago} ago"


def _failure(folder: Path) -> str:
    if (folder / saved.FAILURE).is_file():
        told = [line for line in files.lines(folder / saved.FAILURE) if line.strip()]
        return told[0] if told else f"{saved.FAILURE} is empty, or cannot be read"
    return status.failure(folder) or ""


def _retry(folder: Path) -> str:
    """What goes on with the run: its launch by Slurm, or else the training."""
    launch = jobs.launch_of(folder)
    module, key = ("launch", "retry") if launch else ("train", "resume")
    return f"python -m experiments.{module} {overrides.quoted(key, str(launch or folder))}"


def _attempts(folder: Path) -> list[dict[str, Any]]:
    """The lines of provenance.jsonl that can be read and are no deeper than such lines are."""
    try:
        found = [rows.parsed(line) for line in files.read(folder / "provenance.jsonl").splitlines()]
    except OSError:
        return []
    return [line for line in found if line is not None and not _deeper(line, _DEPTH)]


def _deeper(node: Any, depth: int) -> bool:
    inner = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return bool(inner) and (depth == 0 or any(_deeper(each, depth - 1) for each in inner))


def _named(each: tuple[Path, LeftOut | None]) -> tuple[Path, LeftOut | None]:
    """Left out where no page and no table could hold its name."""
    folder = each[0]
    shown = Path(str(folder).encode(errors="backslashreplace").decode())
    return each if shown == folder else (shown, LeftOut(folder=shown, reason="its name is not UTF-8; rename it"))


def _inside(folder: Path) -> Iterator[tuple[Path, LeftOut | None]]:
    """`folder` if it is a run, or the runs below it, sorted as people count, and what was to be one and is none."""
    seen = set[str]()  # real paths: links may lead in a circle
    left_out: list[LeftOut] = []
    unreadable = lambda error: left_out.append(LeftOut(folder=Path(error.filename), reason=str(error.strerror)))
    for place, inner, names in os.walk(folder, followlinks=True, onerror=unreadable):
        inner.sort(key=lambda name: (len(name), name) if name.isdecimal() else (1_000, name))
        here, real = Path(place), os.path.realpath(place)
        traces = {*inner, *names} & _TRACES
        if real in seen or saved.FILE in names or traces:
            inner.clear()
        if real not in seen:
            if saved.FILE in names:
                yield here, None
            elif traces:
                failure = _failure(here)
                yield here, LeftOut(folder=here, reason="no config.yaml" + f": {failure}" * bool(failure))
        seen.add(real)
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
        for member in json.loads(files.read(folder / "slurm" / "launch.json"))["members"]:
            here = folder / member["folder"]
            if not any((here / name).exists() for name in (saved.FILE, *_TRACES)):
                failure = _failure(here)
                yield here, LeftOut(folder=here, reason="has not begun" + f": {failure}" * bool(failure))
    yield from ((each.folder, each) for each in left_out)
