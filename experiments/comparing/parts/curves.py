"""Curves: each run's own line, and for each group the mean, median and IQM over seeds with intervals and n at each x.

A run's value between two of its rows is interpolated; before its first row, behind its last and beside a value that
is not finite it has none, and n is smaller there. Averages are made at every x of the group's runs; where these have
more than `PLACES` (or than `CELLS` over their number), at so many, spread evenly, and at each run's extremes. Thinning
for drawing keeps the first, last, least and greatest value of each stretch.
"""

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.comparing import scoring
from experiments.comparing.numbers import statistics
from experiments.comparing.runs import reading

UPDATES, HOURS, DEVICE_HOURS = "updates", "hours", "device hours"
LINE_POINTS, BAND_POINTS = 200_000, 20_000  # of all lines and of all bands of a report
PLACES, CELLS = 40_000, 20_000_000  # x of a group, and of these times its seeds, at which they are averaged, at most


@dataclasses.dataclass(frozen=True, kw_only=True)
class Line:
    """One run's metric."""

    folder: Path
    seed: Any
    axes: Mapping[str, np.ndarray]  # name -> [n]
    values: np.ndarray  # [n], NaN where not finite
    seams: Mapping[str, tuple[float, ...]]  # axis -> x of the first row after each time the run went on
    rows: int  # before thinning


@dataclasses.dataclass(frozen=True, kw_only=True)
class Band:
    """One group's metric along one axis; all arrays [n], NaN where there is no such number."""

    x: np.ndarray
    n: np.ndarray  # int64, seeds that have a value there
    center: Mapping[str, np.ndarray]  # mean, median, iqm
    low: Mapping[str, np.ndarray]
    high: Mapping[str, np.ndarray]
    places: int  # x that the group's runs have, before any were left out


@dataclasses.dataclass(frozen=True, kw_only=True)
class Curve:
    """One group of runs on one task, by one protocol."""

    metric: str
    group: str
    task: str
    protocol: str
    lines: tuple[Line, ...]
    bands: Mapping[str, Band]  # by axis
    short: tuple[tuple[Path, str], ...]  # runs without a line, or not done, so that it ends early: why


def make(
    runs: Sequence[reading.Run], members: Sequence[scoring.Member], metrics: Sequence[str], *, points: int = LINE_POINTS
) -> list[Curve]:
    """`runs[i]` is the run of `members[i]`. With `points` fewer or more are drawn of all lines together."""
    together = collections.defaultdict[tuple[str, str, str, str], list[int]](list)
    without = collections.defaultdict[tuple[str, str, str, str], list[int]](list)
    for number, (run, member) in enumerate(zip(runs, members, strict=True)):
        for metric in metrics:
            there = together if has(run, metric) else without
            there[metric, member.group, member.task, member.pool].append(number)
    lines = sum(map(len, together.values()))
    most = max(20, points // max(lines, 1))
    band = max(20, BAND_POINTS // max(len(together), 1))
    bands = _averaged([_seeds([runs[n] for n in own], metric, band) for (metric, *_), own in together.items()])
    return [
        Curve(
            metric=metric,
            group=group,
            task=task,
            protocol=pool,
            lines=tuple(_line(runs[n], metric, most) for n in numbers),
            bands=own,
            short=(
                *((members[n].folder, scoring.ended(members[n])) for n in numbers if members[n].state != reading.DONE),
                *(
                    (members[n].folder, f"no row of it; {scoring.ended(members[n])}")
                    for n in without[metric, group, task, pool]
                ),
            ),
        )
        for ((metric, group, task, pool), numbers), own in zip(together.items(), bands, strict=True)
    ]


def has(run: reading.Run, metric: str) -> bool:
    """Whether any of its rows holds the metric."""
    return metric in run.metrics and len(run.metrics[metric].x) > 0


def axes(run: reading.Run, metric: str) -> dict[str, np.ndarray]:
    """What a curve can be drawn over; without those that the run's rows do not have."""
    own = run.metrics[metric]
    every = {run.unit: own.x, UPDATES: own.steps, HOURS: own.hours, DEVICE_HOURS: own.device_hours}
    return {name: x for name, x in every.items() if np.isfinite(x).all()}


def thin(values: np.ndarray, most: int) -> np.ndarray:
    """Which of [n] values to draw, about `most`: first, last, least and greatest of each stretch, and gaps' edges."""
    if len(values) <= most:
        return np.arange(len(values))
    parts = max(most // 4, 1)
    starts = np.arange(parts) * len(values) // parts
    lengths = np.diff(starts, append=len(values))
    stretch, finite = np.repeat(np.arange(parts), lengths), np.isfinite(values)
    kept = [starts, starts + lengths - 1, _first(~finite, stretch)]
    for extreme, none in ((np.minimum, np.inf), (np.maximum, -np.inf)):
        own = np.where(finite, values, none)
        kept.append(_first(finite & (own == np.repeat(extreme.reduceat(own, starts), lengths)), stretch))
    return np.unique(np.concatenate(kept))


def _first(which: np.ndarray, stretch: np.ndarray) -> np.ndarray:
    """The first place of each stretch at which `which` is true; stretches without one are left out."""
    places = np.flatnonzero(which)
    at = stretch[places]
    return np.concatenate([places[:1], places[1:][at[1:] > at[:-1]]])


def _line(run: reading.Run, metric: str, most: int) -> Line:
    own, every = run.metrics[metric], axes(run, metric)
    kept = thin(own.values, most)
    after = [index for step in run.resumed if (index := int(np.searchsorted(own.steps, step, "right"))) < len(own.x)]
    return Line(
        folder=run.folder,
        seed=run.seed,
        axes={name: x[kept] for name, x in every.items()},
        values=own.values[kept],
        seams={name: tuple(float(x[index]) for index in after) for name, x in every.items()},
        rows=len(own.values),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Seeds:
    """What a band is made of."""

    x: np.ndarray  # [n]
    values: np.ndarray  # [n, seeds], NaN where a seed has none
    places: int


def _averaged(every: Sequence[Mapping[str, _Seeds]]) -> list[dict[str, Band]]:
    """The bands of all curves, by axis, at once: one by one of a thousand take ten times as long."""
    flat = [own for axes in every for own in axes.values()]
    alike = collections.defaultdict[int, list[_Seeds]](list)  # by number of seeds
    for own in flat:
        alike[own.values.shape[1]].append(own)
    made = {}
    for those in alike.values():
        values = np.concatenate([own.values for own in those])
        figures, n = statistics.along(values), np.isfinite(values).sum(axis=1)
        for end, own in zip(np.cumsum([len(own.x) for own in those]), those, strict=True):
            here = slice(end - len(own.x), end)
            parts = {part: {name: column[here] for name, column in of.items()} for part, of in figures.items()}
            made[id(own)] = Band(x=own.x, n=n[here], places=own.places, **parts)
    return [{name: made[id(own)] for name, own in axes.items()} for axes in every]


def _seeds(runs: Sequence[reading.Run], metric: str, most: int) -> dict[str, _Seeds]:
    """Along each axis that all of the runs have."""
    every = [axes(run, metric) for run in runs]
    names = [name for name in every[0] if all(name in own for own in every)]
    most = max(20, most // max(len(names), 1))
    return {
        name: _together([(own[name], run.metrics[metric].values) for own, run in zip(every, runs, strict=True)], most)
        for name in names
    }


def _together(lines: Sequence[tuple[np.ndarray, np.ndarray]], most: int) -> _Seeds:
    """All lines at the same x, of which about `most` are left."""
    x = np.unique(np.concatenate([own for own, _ in lines]).astype(np.float64))
    places = len(x)
    if places > (few := min(PLACES, CELLS // len(lines))):
        spread = x[np.unique(np.linspace(0, places - 1, few).astype(np.int64))]
        extremes = [own[thin(of, max(few // len(lines), 8))] for own, of in lines]
        x = np.unique(np.concatenate([spread, *extremes]).astype(np.float64))
    values = np.stack([interpolated(x, own, of) for own, of in lines], axis=1)
    n = np.isfinite(values).sum(axis=1)
    kept = np.arange(len(x))
    if len(x) > most:
        edges = np.flatnonzero(np.diff(n))[:most]  # where a seed ends, both sides stay
        each = max(most // len(centers := statistics.centers(values)), 8)
        kept = np.unique(np.concatenate([*(thin(center, each) for center in centers.values()), edges, edges + 1]))
    return _Seeds(x=x[kept], values=values[kept], places=places)


def interpolated(x: np.ndarray, own: np.ndarray, values: np.ndarray) -> np.ndarray:
    """[len(x)], the run's values at `x`; NaN outside its rows and beside a value that is not finite.

    Of several rows at one x the last counts.
    """
    last = np.append(np.flatnonzero(own[1:] != own[:-1]), len(own) - 1)
    own, values = own[last].astype(np.float64), values[last]
    if np.any(np.diff(own) < 0):  # a clock that went backwards
        order = np.argsort(own, kind="stable")
        own, values = own[order], values[order]
    found = np.interp(x, own, values, left=np.nan, right=np.nan)
    if np.isfinite(values).all():
        return found
    exact = np.clip(np.searchsorted(own, x), 0, len(own) - 1)
    return np.where(own[exact] == x, values[exact], found)
