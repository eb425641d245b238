"""Runs as their folders tell them: settings, protocol, rows, how each is. Whatever lies there, reading goes on."""

import contextlib
import dataclasses
import fnmatch
import glob
import hashlib
import json
import math
import os
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from experiments.config import build, saved
from slurm import status

RUNNING, DONE, FAILED, UNFINISHED = "running", "done", "failed", "unfinished"
UNITS = ("frames", "images")
_HEAD = {"step", "seconds", *UNITS}  # of a row; the rest are metrics
# Of a run, with or without its config.yaml.
_TRACES = {"metrics.jsonl", "checkpoints", saved.FAILURE, "provenance.jsonl"}
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
            inside = dict(_inside(folder))
            found |= inside or {folder: LeftOut(folder=folder, reason="no run in it")}
    return [each for each, left in found.items() if left is None], [left for left in found.values() if left]


def read(folder: Path, wanted: Sequence[str] | None) -> Run | LeftOut:
    """One run with those of its metrics whose names match one of the patterns `wanted`.

    None: with its evaluations, and what it keeps its best checkpoint by.
    """
    try:
        return _read(folder, wanted)
    except build.ConfigError as error:
        return LeftOut(folder=folder, reason=str(error))
    except Exception as error:  # of files whose content nobody foresaw: one run of thousands
        return LeftOut(folder=folder, reason=f"cannot be read: {type(error).__name__}: {error}".partition("\n")[0])


def _read(folder: Path, wanted: Sequence[str] | None) -> Run | LeftOut:
    config, protocol = saved.read(folder)
    if problem := _incomplete(config):
        return LeftOut(folder=folder, reason=f"config.yaml: {problem}")
    if wanted is None:
        node = config.get("checkpoint")
        wanted = ["eval/*", str(node.get("metric")) if isinstance(node, dict) else ""]
    path = folder / "metrics.jsonl"
    try:
        raw, written = path.read_bytes(), path.stat().st_mtime
    except OSError as error:
        reason = _failure(folder)
        return LeftOut(
            folder=folder, reason=f"metrics.jsonl: {error.strerror}" + f"; it failed: {reason}" * bool(reason)
        )
    rows = _Rows(raw, wanted)
    if not len(rows.x):
        reason = _failure(folder) or rows.problem
        return LeftOut(folder=folder, reason="no rows yet" + f": {reason}" * bool(reason))
    reached = int(max(rows.x))
    state, reason = _state(folder, reached >= int(config["budget"]), rows.seconds, time.time() - written)
    attempts = _lines(folder / "provenance.jsonl")
    resumed = tuple(line["step"] for line in attempts[1:] if isinstance(line.get("step"), int))
    return Run(
        folder=folder,
        config=config,
        protocol=protocol,
        metrics=rows.series(attempts),
        names=rows.names,
        unit=rows.unit,
        reached=reached,
        state=state,
        reason=reason,
        resumed=resumed,
        origin=attempts[-1] if attempts else {},
        notes=tuple(note for note in [rows.problem] if note),
        digest=hashlib.sha256(raw).hexdigest(),
    )


class _Rows:
    """The columns of a metrics.jsonl; lines that cannot be read are counted."""

    def __init__(self, raw: bytes, wanted: Sequence[str]):
        self.unit, self.names = "frames", {*_HEAD}
        self.x, self.steps, self.seconds = list[int](), list[int](), list[float]()
        self._wanted, self._columns = wanted, dict[str, tuple[list[int], list[float]]]()
        lines = raw.split(b"\n")
        bad = [number for number, line in enumerate(lines, start=1) if line.strip() and not self._add(line)]
        torn = bool(bad) and bad[-1] == len(lines)  # the last line without its end: still being written, or a kill
        bad = bad[:-1] if torn else bad
        shown = ", ".join(map(str, bad[:5])) + (", …" if len(bad) > 5 else "")
        self.problem = f"metrics.jsonl: {len(bad)} of {len(lines)} lines cannot be read (line {shown})" if bad else ""
        if torn:
            self.problem += "; the last line is torn" if self.problem else "metrics.jsonl: the last line is torn"
        self.names -= _HEAD

    def series(self, attempts: Sequence[Mapping[str, Any]]) -> dict[str, Series]:
        """By x, rows of one x in their order: what a second process wrote into the file may go backwards."""
        x, steps = np.asarray(self.x, np.int64), np.asarray(self.steps, np.int64)
        seconds, found = np.asarray(self.seconds, np.float64), {}
        device_seconds = np.cumsum(np.diff(seconds, prepend=0.0) * _devices(attempts, steps))
        for name, (rows, values) in self._columns.items():
            own = np.asarray(rows, np.int64)
            own = own[order := np.argsort(x[own], kind="stable")]
            found[name] = Series(
                x=x[own],
                values=np.asarray(values, np.float64)[order],
                steps=steps[own],
                hours=seconds[own] / 3600,
                device_hours=device_seconds[own] / 3600,
            )
        return found

    def _add(self, line: bytes) -> bool:
        row = _row(line)
        unit = next((unit for unit in UNITS if unit in row), None) if row else None
        if row is None or unit is None or not isinstance(row[unit], int):
            return False
        self.unit = unit
        self.x.append(row[unit])
        step = row.get("step")
        self.steps.append(step if isinstance(step, int) else 0)
        seconds = row.get("seconds")
        self.seconds.append(float(seconds) if isinstance(seconds, int | float) else math.nan)
        if not self.names.issuperset(row):
            self._meet(row.keys() - self.names)
        for name, (at, values) in self._columns.items():
            if name in row and (number := _number(row[name])) is not None:
                at.append(len(self.x) - 1)
                values.append(number)
        return True

    def _meet(self, names: Iterable[str]) -> None:
        """Names of metrics that no row had yet."""
        self.names |= {*names}
        asked = [n for n in names if any(fnmatch.fnmatchcase(n, pattern) for pattern in self._wanted)]
        self._columns |= {name: ([], []) for name in asked}


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError:
        try:
            row = json.loads(line)  # NaN and Infinity, which others write
        except ValueError:
            return None
    return row if isinstance(row, dict) else None


def _number(value: Any) -> float | None:
    """NaN for null and whatever is not finite; None for what is no number."""
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else math.nan
    except OverflowError:  # of an integer
        return math.nan


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


def _incomplete(config: Any) -> str:
    """What the config of a run lacks, if anything."""
    if not isinstance(config, dict):
        return "no mapping"
    budget = config.get("budget")
    if not isinstance(budget, int | float) or isinstance(budget, bool):
        return f"budget={budget}: no number, so this is no run, or its file was cut short"
    return ""


def _state(folder: Path, reached: bool, seconds: Sequence[float], quiet: float) -> tuple[str, str]:
    """Of a run whose last row was written `quiet` seconds ago, and why it failed or when that was."""
    if reason := _failure(folder):
        return FAILED, reason
    if reached:
        return DONE, ""
    gaps = np.diff(np.asarray(seconds, np.float64))
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
    with contextlib.suppress(OSError):
        lines = [line for line in (folder / saved.FAILURE).read_text(errors="replace").splitlines() if line.strip()]
        return lines[0] if lines else f"{saved.FAILURE} is empty"
    return status.failure(folder) or ""


def _lines(path: Path) -> list[dict[str, Any]]:
    try:
        rows = [_row(line) for line in path.read_bytes().splitlines()]
    except OSError:
        return []
    return [row for row in rows if row is not None]


def _inside(folder: Path) -> Iterator[tuple[Path, LeftOut | None]]:
    """`folder` if it is a run, or the runs below it, sorted as people count, and what was to be one and is none."""
    seen = set[str]()  # real paths: links may lead in a circle
    left_out: list[LeftOut] = []
    unreadable = lambda error: left_out.append(LeftOut(folder=Path(error.filename), reason=str(error.strerror)))
    for place, inner, files in os.walk(folder, followlinks=True, onerror=unreadable):
        inner.sort(key=lambda name: (len(name), name) if name.isdecimal() else (1_000, name))
        here, real = Path(place), os.path.realpath(place)
        traces = {*inner, *files} & _TRACES
        if real in seen or saved.FILE in files or traces:
            inner.clear()
        if real not in seen:
            if saved.FILE in files:
                yield here, None
            elif traces:
                failure = _failure(here)
                yield here, LeftOut(folder=here, reason="no config.yaml" + f": {failure}" * bool(failure))
        seen.add(real)
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        for member in json.loads((folder / "slurm" / "launch.json").read_text())["members"]:
            here = folder / member["folder"]
            if not any((here / name).exists() for name in (saved.FILE, *_TRACES)):
                failure = _failure(here)
                yield here, LeftOut(folder=here, reason="has not begun" + f": {failure}" * bool(failure))
    yield from ((each.folder, each) for each in left_out)
