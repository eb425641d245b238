"""Means and differences over seeds, with intervals; what they are worth is measured in `coverage.py`.

Scores are float64 arrays, one number a seed. Means have Student's t interval. Differences of two groups have Welch's,
or Student's with a common variance where that is wider: Welch's alone is far too narrow where one group has many more
seeds than the other and scores are skewed (docs/comparing.md). With equally many seeds it is Welch's. Medians and
interquartile means (IQM) have percentile bootstrap intervals, stratified over tasks as in rliable 1.2
(arXiv:2108.13264). Random draws start from a fixed seed: a group's numbers do not depend on what else is shown.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import special, stats

LEVEL = 0.95  # of every interval
POWER = 0.8  # chance of telling a real difference that `seeds_needed` aims at
MOST_SEEDS = 1000  # a group; more are not looked for
LEAST = 3  # seeds of each group for a verdict
FEW = 5  # below so many seeds a warning stands beside the interval
RESAMPLES = 2000

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Difference:
    """Two groups on one task: `second - first` in the metric's own direction."""

    difference: float
    interval: Interval
    p: float | None  # two-sided; None where nothing can be tested
    test: str
    improvement: float  # P(a seed of `second` beats one of `first`), ties half
    improvement_interval: Interval
    more_seeds: tuple[int, int] | None  # for (first, second) until a difference like this one would be told
    verdict: str  # better, worse, cannot tell
    sentence: str


def summary(scores: np.ndarray) -> Summary:
    """Of finite scores [n], n >= 1."""
    scores = np.asarray(scores, np.float64)
    n = len(scores)
    return Summary(
        n=n,
        mean=float(scores.mean()),
        median=float(np.median(scores)),
        iqm=iqm([scores]),
        standard_error=float(scores.std(ddof=1) / math.sqrt(n)) if n > 1 else None,
        minimum=float(scores.min()),
        maximum=float(scores.max()),
        mean_interval=mean_interval(scores),
        median_interval=bootstrap(lambda drawn: np.median(drawn[0], axis=-1), [scores]),
        iqm_interval=bootstrap(_iqm, [scores]),
        warnings=warnings(scores),
    )


def mean_interval(scores: np.ndarray) -> Interval:
    """Student's t; None for one score, or for scores that are all the same."""
    if len(scores) < 2 or np.ptp(scores) == 0:
        return None
    low, high = t_interval(np.asarray(scores, np.float64))
    return float(low), float(high)


def t_interval(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Student's interval of the means of [..., n], n >= 2."""
    n, mean = scores.shape[-1], scores.mean(axis=-1)
    half = stats.t.ppf((1 + LEVEL) / 2, n - 1) * scores.std(axis=-1, ddof=1) / math.sqrt(n)
    return mean - half, mean + half


def warnings(scores: np.ndarray) -> tuple[str, ...]:
    """What a reader of these scores' interval has to know."""
    n = len(scores)
    if n == 1:
        return ("one seed: no interval",)
    told = []
    if np.ptp(scores) == 0:
        told.append(f"all {n} seeds score the same: no spread, so no interval")
    if n < FEW:
        told.append(f"{n} seeds: the t interval holds for normal scores only, bootstrap intervals are too narrow")
    elif skewed(scores):
        told.append("skewed spread: the interval may miss the mean more often than it says; look at the seeds")
    return tuple(told)


def skewed(scores: np.ndarray) -> bool:
    """Whether the sample skewness is more than twice its standard error for normal scores (n >= 3)."""
    n = len(scores)
    if n < 3 or np.ptp(scores) == 0:
        return False
    error = math.sqrt(6 * n * (n - 1) / ((n - 2) * (n + 1) * (n + 3)))
    return abs(float(stats.skew(scores, bias=False))) > 2 * error


# ---- over seeds within tasks ----


def iqm(tasks: Sequence[np.ndarray]) -> float:
    """The mean of the middle half of all scores of all tasks together."""
    return float(_iqm([np.asarray(scores)[None] for scores in tasks])[0])


def task_median(tasks: Sequence[np.ndarray]) -> float:
    """The median over tasks of the means over seeds."""
    return float(np.median([np.mean(scores) for scores in tasks]))


def task_mean(tasks: Sequence[np.ndarray]) -> float:
    return float(np.mean([np.mean(scores) for scores in tasks]))


def optimality_gap(tasks: Sequence[np.ndarray], *, target: float = 1.0) -> float:
    """How far scores fall short of `target` on average, those above it counted as at it; 0 is best."""
    return target - task_mean([np.minimum(scores, target) for scores in tasks])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Suite:
    """Normalised scores over several tasks; each figure is (value, interval)."""

    tasks: int
    fewest: int  # seeds of a task
    most: int
    median: tuple[float, Interval]
    iqm: tuple[float, Interval]
    mean: tuple[float, Interval]
    optimality_gap: tuple[float, Interval]


def suite(tasks: Sequence[np.ndarray]) -> Suite:
    """Of scores [seeds] a task, with stratified bootstrap intervals."""
    means = lambda drawn: np.stack([scores.mean(axis=-1) for scores in drawn])
    capped = lambda drawn: [np.minimum(scores, 1.0) for scores in drawn]
    return Suite(
        tasks=len(tasks),
        fewest=min(map(len, tasks)),
        most=max(map(len, tasks)),
        median=(task_median(tasks), bootstrap(lambda drawn: np.median(means(drawn), axis=0), tasks)),
        iqm=(iqm(tasks), bootstrap(_iqm, tasks)),
        mean=(task_mean(tasks), bootstrap(lambda drawn: means(drawn).mean(axis=0), tasks)),
        optimality_gap=(
            optimality_gap(tasks),
            bootstrap(lambda drawn: 1.0 - means(capped(drawn)).mean(axis=0), tasks),
        ),
    )


def bootstrap(statistic: Callable[[list[np.ndarray]], np.ndarray], tasks: Sequence[np.ndarray]) -> Interval:
    """Percentile interval of `statistic` ([resamples, seeds] a task -> [resamples]); seeds are drawn within tasks.

    None where every task has one seed only, or where no score of a task or no resample differs from another.
    """
    if all(len(scores) < 2 or np.ptp(scores) == 0 for scores in tasks):
        return None
    random = np.random.default_rng(0)
    drawn = [np.sort(s)[random.integers(len(s), size=(RESAMPLES, len(s)))] for s in tasks]
    low, high = np.percentile(statistic(drawn), [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return (float(low), float(high)) if low < high else None


def _iqm(drawn: list[np.ndarray]) -> np.ndarray:
    return stats.trim_mean(np.concatenate(drawn, axis=-1), 0.25, axis=-1)


def along(values: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    """Of scores [places, seeds], NaN where a seed has none: `center`, `low` and `high` of mean, median and IQM.

    Each is [places], NaN where there is no such number. The intervals are those of `summary`.
    """
    count = np.isfinite(values).sum(axis=1)
    ranked = np.sort(values, axis=1)  # NaN last
    found = {part: {name: np.full(len(values), np.nan) for name in ("mean", "median", "iqm")} for part in _PARTS}
    for n in np.unique(count[count > 0]):
        rows = np.flatnonzero(count == n)
        own = ranked[rows, :n]
        for name, figure in (("mean", own.mean(axis=1)), ("median", np.median(own, axis=1)), ("iqm", _iqm([own]))):
            found["center"][name][rows] = figure
        spread = np.ptp(own, axis=1) > 0
        rows, own = rows[spread], own[spread]
        if not len(rows):
            continue
        intervals = {"mean": t_interval(own)}
        for name, (weights, often) in zip(("median", "iqm"), _distinct(int(n)), strict=True):
            parts = [_between(part @ weights, often) for part in _pieces(own)]
            intervals[name] = tuple(np.concatenate(parts, axis=1))
        for name, (low, high) in intervals.items():
            found["low"][name][rows], found["high"][name][rows] = low, high
    return found


_PARTS = ("center", "low", "high")


@functools.lru_cache(maxsize=16)
def _resampled(n: int) -> tuple[np.ndarray, np.ndarray]:
    """[n, resamples] twice: sorted scores times these weights are the medians and IQMs of `bootstrap`'s resamples."""
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


def _between(values: np.ndarray, often: np.ndarray | None) -> np.ndarray:
    """[2, places], the percentiles of [places, kinds] between which `LEVEL` of them lie, each there so `often`."""
    places = [(RESAMPLES - 1) * (1 - LEVEL) / 2, (RESAMPLES - 1) * (1 + LEVEL) / 2]
    if often is None:
        ranked = np.partition(values, [int(place) + more for place in places for more in (0, 1)], axis=1)
        at = lambda rank: ranked[:, rank]
    else:
        order = np.argsort(values, axis=1)
        ranked, upto = np.take_along_axis(values, order, axis=1), np.cumsum(often[order], axis=1)
        at = lambda rank: np.take_along_axis(ranked, np.argmax(upto > rank, axis=1)[:, None], axis=1)[:, 0]
    return np.stack([at(int(p)) + (p - int(p)) * (at(int(p) + 1) - at(int(p))) for p in places])


def _pieces(values: np.ndarray) -> list[np.ndarray]:
    """Rows of it that fit in memory times the resamples."""
    return np.array_split(values, -(-len(values) // 1_000))


# ---- two groups ----


def compare(first: np.ndarray, second: np.ndarray, *, better: str) -> Difference:
    """`second` against `first`, seeds of both independent. `better`: higher or lower."""
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    interval, p, test = tell_apart(first, second)
    return _difference(first, second, interval=interval, p=p, test=test, better=better)


def compare_paired(first: np.ndarray, second: np.ndarray, *, better: str) -> Difference:
    """Likewise, where `first[i]` and `second[i]` are of one seed: Student's t of their differences."""
    apart = np.asarray(second, np.float64) - np.asarray(first, np.float64)
    interval = mean_interval(apart)
    p = None
    if interval is not None:
        away = abs(float(apart.mean())) * math.sqrt(len(apart)) / float(apart.std(ddof=1))
        p = 2 * float(stats.t.sf(away, len(apart) - 1))
    return _difference(first, second, interval=interval, p=p, test="paired t", better=better)


def tell_apart(first: np.ndarray, second: np.ndarray) -> tuple[Interval, float | None, str]:
    """The interval of mean(second) - mean(first), the two-sided p, and the test's name.

    Where neither group has any spread, an exact permutation test of two groups that lie wholly apart.
    """
    n, m = len(first), len(second)
    if n < 2 or m < 2:
        return None, None, "none"
    if np.ptp(first) == 0 and np.ptp(second) == 0:
        p = 1.0 if first[0] == second[0] else 2.0 / special.comb(n + m, n)
        return None, float(p), "permutation"
    half, p = two_samples(first, second)
    difference = float(np.mean(second) - np.mean(first))
    return (difference - float(half), difference + float(half)), float(p), "Welch" if n == m else "Welch and Student"


def two_samples(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Half the interval of a difference of means and the two-sided p, of [..., n] and [..., m]; n, m >= 2.

    The wider interval and the larger p of Welch's test and of Student's with a common variance.
    """
    n, m = first.shape[-1], second.shape[-1]
    one, two = first.var(axis=-1, ddof=1), second.var(axis=-1, ddof=1)
    pooled = ((n - 1) * one + (m - 1) * two) / (n + m - 2)
    tests = [_welch(one, n, two, m), (np.sqrt(pooled * (1 / n + 1 / m)), n + m - 2)]
    away = np.abs(second.mean(axis=-1) - first.mean(axis=-1))
    halves = [stats.t.ppf((1 + LEVEL) / 2, freedom) * error for error, freedom in tests]
    p = [2 * stats.t.sf(away / error, freedom) for error, freedom in tests]
    return np.maximum(*halves), np.maximum(*p)


def improvement(first: np.ndarray, second: np.ndarray, *, better: str = "higher") -> float:
    """P(a score of `second` is better than one of `first`), ties half: Mann-Whitney's U / (n m)."""
    return float(_improvement([first[None], second[None]], better)[0])


def seeds_needed(first: np.ndarray, second: np.ndarray) -> tuple[int, int] | None:
    """How many more seeds of each group make Welch's test tell their difference with a chance of `POWER`.

    Assumes that the true difference and spreads are those seen, and normal scores; both groups get equally many. None
    where more than `MOST_SEEDS` a group would be needed, or one seed shows no spread.
    """
    n, m = len(first), len(second)
    if n < 2 or m < 2 or (np.ptp(first) == 0 and np.ptp(second) == 0):
        return None
    size = np.arange(2, MOST_SEEDS + 1)
    error, freedom = _welch(np.var(first, ddof=1), size, np.var(second, ddof=1), size)
    away = abs(np.mean(second) - np.mean(first)) / error
    critical = stats.t.ppf((1 + LEVEL) / 2, freedom)
    with np.errstate(all="ignore"):
        power = stats.nct.sf(critical, freedom, away) + stats.nct.cdf(-critical, freedom, away)
    power = np.where(np.isfinite(power), power, away > critical)  # far away nct's series gives up
    enough = np.flatnonzero(power >= POWER)
    if not len(enough):
        return None
    wanted = max(int(size[enough[0]]), min(n, m) + 1, LEAST)
    return max(wanted - n, 0), max(wanted - m, 0)


def _welch(variance: Any, n: Any, other: Any, m: Any) -> tuple[Any, Any]:
    """The standard error of a difference of means, and Welch and Satterthwaite's degrees of freedom."""
    one, two = variance / n, other / m
    return np.sqrt(one + two), (one + two) ** 2 / (one**2 / (n - 1) + two**2 / (m - 1))


def _improvement(drawn: list[np.ndarray], better: str) -> np.ndarray:
    """[resamples, n], [resamples, m] -> [resamples]."""
    first, second = drawn
    parts = -(-first.size * second.shape[1] // 4_000_000)  # so that a thousand seeds fit into memory
    pairs = zip(np.array_split(first, parts), np.array_split(second, parts), strict=True)
    wins = [_share(np.greater, two, one) - _share(np.less, two, one) for one, two in pairs]
    return (np.concatenate(wins) * (1 if better == "higher" else -1) + 1) / 2


def _share(which: Any, second: np.ndarray, first: np.ndarray) -> np.ndarray:
    found = which(second[:, :, None], first[:, None, :])
    return np.count_nonzero(found, axis=(1, 2)) / found[0].size


def _difference(
    first: np.ndarray, second: np.ndarray, *, interval: Interval, p: float | None, test: str, better: str
) -> Difference:
    difference = float(np.mean(second) - np.mean(first))
    good = (difference > 0) == (better == "higher")
    enough = min(len(first), len(second)) >= LEAST
    sure = enough and p is not None and p <= 1 - LEVEL
    verdict = "cannot tell" if not sure else "better" if good else "worse"
    more = None if sure else seeds_needed(first, second)
    several = min(len(first), len(second)) > 1
    return Difference(
        difference=difference,
        interval=interval,
        p=p,
        test=test,
        improvement=improvement(first, second, better=better),
        improvement_interval=bootstrap(lambda drawn: _improvement(drawn, better), [first, second]) if several else None,
        more_seeds=more,
        verdict=verdict,
        sentence=verdict if sure else f"cannot tell yet: {_wanted(first, second, more)}",
    )


def _wanted(first: np.ndarray, second: np.ndarray, more: tuple[int, int] | None) -> str:
    if min(len(first), len(second)) < LEAST:
        return f"a verdict takes {LEAST} seeds of each at least, better {FEW} or more"
    if more is None:
        if np.ptp(first) == 0 and np.ptp(second) == 0:
            return "all seeds of a group score the same"
        return f"{MOST_SEEDS} seeds of each would not show a difference as small as this one"
    a, b = more
    return f"about {a} more seeds of each" if a == b else f"about {a} more seeds of the first and {b} of the second"
