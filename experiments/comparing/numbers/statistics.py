"""Means over seeds, with intervals; what they are worth is measured in `coverage.py`.

Scores are float64 arrays, one number a seed. Means have Student's t interval; medians and interquartile means (IQM)
have percentile bootstrap intervals. Random draws start from a fixed seed: a group's numbers do not depend on what else
is shown. Two groups are in `differences.py`, figures over several tasks in `suites.py`.
"""

import dataclasses
import functools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy import special  # not scipy.stats, which takes a second to import

LEVEL = 0.95  # of every interval
LEAST = 3  # seeds of each group for a verdict
FEW = 5  # below so many seeds a warning stands beside the interval
RESAMPLES = 2000
ROUNDING = 1e-12  # of the largest score: values nearer to each other are the same

Interval = tuple[float, float] | None  # None: not to be had from these seeds


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary:
    """Scores of one group on one task. An interval is None where one seed or no spread allows none."""

    n: int
    mean: float
    median: float
    iqm: float
    standard_error: float | None
    minimum: float
    maximum: float
    mean_interval: Interval
    median_interval: Interval
    iqm_interval: Interval
    warnings: tuple[str, ...]


@np.errstate(over="ignore", invalid="ignore")  # of scores near the largest number there is
def summary(scores: np.ndarray) -> Summary:
    """Of finite scores [n], n >= 1."""
    scores = np.asarray(scores, np.float64)
    n = len(scores)
    median_interval, iqm_interval = _bootstrapped(scores)
    return Summary(
        n=n,
        mean=float(scores.mean()),
        median=float(np.median(scores)),
        iqm=float(iqm(np.sort(scores))),
        standard_error=float(scores.std(ddof=1) / math.sqrt(n)) if n > 1 else None,
        minimum=float(scores.min()),
        maximum=float(scores.max()),
        mean_interval=mean_interval(scores),
        median_interval=median_interval,
        iqm_interval=iqm_interval,
        warnings=warnings(scores),
    )


def mean_interval(scores: np.ndarray) -> Interval:
    """Student's t; None for one score, or for scores that are all the same."""
    if len(scores) < 2 or flat(scores):
        return None
    low, high = t_interval(np.asarray(scores, np.float64))
    return (float(low), float(high)) if np.isfinite(high - low) else None


def flat(scores: np.ndarray) -> bool:
    """Whether all scores are the same but for rounding."""
    return bool(np.ptp(scores) <= ROUNDING * np.abs(scores).max())


def t_interval(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Student's interval of the means of [..., n], n >= 2."""
    n, mean = scores.shape[-1], scores.mean(axis=-1)
    half = critical(n - 1) * scores.std(axis=-1, ddof=1) / math.sqrt(n)
    return mean - half, mean + half


def critical(freedom: Any) -> Any:
    """The t beyond which lies 1 - LEVEL, both sides together."""
    return special.stdtrit(freedom, (1 + LEVEL) / 2)


def two_sided(t: Any, freedom: Any) -> Any:
    """The p of t."""
    return 2 * special.stdtr(freedom, -np.abs(t))


def warnings(scores: np.ndarray) -> tuple[str, ...]:
    """What a reader of these scores' interval has to know."""
    n = len(scores)
    if n == 1:
        return ("one seed: no interval",)
    told = []
    if flat(scores):
        told.append(f"all {n} seeds score the same: no spread, so no interval")
    if n < FEW:
        told.append(f"{n} seeds: the t interval holds for normal scores only, bootstrap intervals are too narrow")
    elif skewed(scores):
        told.append("skewed spread: the interval may miss the mean more often than it says; look at the seeds")
    return tuple(told)


def skewed(scores: np.ndarray) -> bool:
    """Whether the sample skewness is more than twice its standard error for normal scores (n >= 3)."""
    n = len(scores)
    if n < 3 or flat(scores):
        return False
    error = math.sqrt(6 * n * (n - 1) / ((n - 2) * (n + 1) * (n + 3)))
    away = scores - scores.mean()
    away /= np.abs(away).max()  # cubes of vast and of tiny scores stay finite
    skewness = math.sqrt(n * (n - 1)) / (n - 2) * np.mean(away**3) / np.mean(away**2) ** 1.5
    return abs(float(skewness)) > 2 * error


def iqm(ranked: np.ndarray) -> np.ndarray:
    """[..., n] sorted -> [...], the mean of the middle half."""
    n = ranked.shape[-1]
    return ranked[..., int(0.25 * n) : n - int(0.25 * n)].mean(axis=-1)


def _bootstrapped(scores: np.ndarray) -> tuple[Interval, Interval]:
    """Of the median and of the IQM of scores [n]; None where no resample differs from another."""
    if len(scores) < 2 or flat(scores):
        return None, None
    own = np.sort(scores)
    median, middle = (percentiles(own @ weights) for weights in _resampled(len(scores)))
    return median, middle


def percentiles(resampled: np.ndarray) -> Interval:
    """Of [resamples]; None where they are all the same."""
    low, high = between(resampled)
    return (float(low), float(high)) if low < high else None


def between(resampled: np.ndarray, often: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The percentiles of [..., resamples] between which `LEVEL` of them lie; numpy's own takes thrice as long.

    With `often` [kinds] they are [..., kinds], and each is there so often.
    """
    last = (resampled.shape[-1] if often is None else int(often.sum())) - 1
    places = [last * (1 - LEVEL) / 2, last * (1 + LEVEL) / 2]
    if often is None:
        edges = [min(int(place) + more, last) for place in places for more in (0, 1)]
        ranked = np.partition(resampled, edges, axis=-1)
        at = lambda rank: ranked[..., min(rank, last)]
    else:
        order = np.argsort(resampled, axis=-1)
        ranked, upto = np.take_along_axis(resampled, order, axis=-1), np.cumsum(often[order], axis=-1)
        at = lambda rank: np.take_along_axis(ranked, np.argmax(upto > rank, axis=-1)[..., None], axis=-1)[..., 0]
    low, high = (at(int(p)) + (p - int(p)) * (at(int(p) + 1) - at(int(p))) for p in places)
    return low, high


def counts(n: int, stream: int) -> np.ndarray:
    """[n, resamples], how often each of n seeds is drawn; of another stream the draws are independent."""
    return _counts(n, stream) if n <= 20 else _counts.__wrapped__(n, stream)


@functools.lru_cache(maxsize=512)
def _counts(n: int, stream: int) -> np.ndarray:
    drawn = np.random.default_rng([1, stream]).integers(n, size=(n, RESAMPLES))
    made = np.zeros((n, RESAMPLES))
    np.add.at(made, (drawn, np.arange(RESAMPLES)), 1.0)
    return made


def along(values: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    """Of scores [places, seeds], NaN where a seed has none: `center`, `low` and `high` of mean, median and IQM.

    Each is [places], NaN where there is no such number. The intervals are those of `summary`.
    """
    found = {part: {name: np.full(len(values), np.nan) for name in _CENTERS} for part in ("low", "high")}
    for rows, own in _ranked(values):
        n = own.shape[1]
        spread = np.ptp(own, axis=1) > 0
        rows, own = rows[spread], own[spread]
        if not len(rows):
            continue
        intervals = {"mean": t_interval(own)}
        for name, (weights, often) in zip(("median", "iqm"), _distinct(int(n)), strict=True):
            parts = [np.stack(between(part @ weights, often)) for part in _pieces(own)]
            intervals[name] = tuple(np.concatenate(parts, axis=1))
        for name, (low, high) in intervals.items():
            found["low"][name][rows], found["high"][name][rows] = low, high
    return {"center": centers(values), **found}


def centers(values: np.ndarray) -> dict[str, np.ndarray]:
    """Of scores [places, seeds], NaN where a seed has none: mean, median and IQM, [places] each."""
    found = {name: np.full(len(values), np.nan) for name in _CENTERS}
    for rows, own in _ranked(values):
        for name, figure in (("mean", own.mean(axis=1)), ("median", np.median(own, axis=1)), ("iqm", iqm(own))):
            found[name][rows] = figure
    return found


_CENTERS = ("mean", "median", "iqm")


def _ranked(values: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The places at which equally many seeds have a score, and these scores [places, n] in order."""
    count = np.isfinite(values).sum(axis=1)
    ranked = np.sort(values, axis=1)  # NaN last
    for n in np.unique(count[count > 0]):
        rows = np.flatnonzero(count == n)
        yield rows, ranked[rows, :n]


@functools.lru_cache(maxsize=16)
def _resampled(n: int) -> tuple[np.ndarray, np.ndarray]:
    """[n, resamples] twice: sorted scores times these weights are the medians and IQMs of resamples."""
    ranks = np.sort(np.random.default_rng(0).integers(n, size=(RESAMPLES, n)), axis=1)
    places = np.arange(n)
    cut = int(0.25 * n)
    median = (places >= (n - 1) // 2) & (places <= n // 2)
    middle = (places >= cut) & (places < n - cut)
    made = []
    for kept in (median, middle):
        weights = np.zeros((n, RESAMPLES))
        np.add.at(weights, (ranks[:, kept].T, np.arange(RESAMPLES)), 1 / kept.sum())
        made.append(weights)
    return made[0], made[1]


@functools.lru_cache(maxsize=16)
def _distinct(n: int) -> list[tuple[np.ndarray, np.ndarray | None]]:
    """`_resampled` with each resample once, [n, kinds], and how often it is there.

    Few seeds have few that differ. Of many, all [n, resamples] and None.
    """
    found = []
    for weights in _resampled(n):
        kinds, often = np.unique(weights, axis=1, return_counts=True)
        found.append((kinds, often) if len(often) < RESAMPLES / 4 else (weights, None))
    return found


def _pieces(values: np.ndarray) -> list[np.ndarray]:
    """Rows of it that fit in memory times the resamples."""
    return np.array_split(values, -(-len(values) // 1_000))
