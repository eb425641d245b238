"""Figures of one group over several tasks, with intervals; how they are made is in `parts/suites.py`.

Tasks are lists of scores [seeds], or [..., seeds], one of each task.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from experiments.comparing.numbers import statistics
from experiments.comparing.numbers.statistics import Interval

Tasks = Sequence[np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figures:
    """Normalised scores over several tasks; each figure is (value, interval)."""

    tasks: int
    fewest: int  # seeds of a task
    most: int
    median: tuple[float, Interval]
    iqm: tuple[float, Interval]
    mean: tuple[float, Interval]
    optimality_gap: tuple[float, Interval]
    warnings: tuple[str, ...]


def iqm(tasks: Tasks) -> float:
    """The mean of the middle half of all scores of all tasks together."""
    return float(statistics.iqm(np.sort(np.concatenate(list(tasks)))))


def median(tasks: Tasks) -> float:
    """The median over tasks of the means over seeds."""
    return float(np.median([np.mean(scores) for scores in tasks]))


def mean(tasks: Tasks) -> float:
    return float(np.mean([np.mean(scores) for scores in tasks]))


def optimality_gap(tasks: Tasks, *, target: float = 1.0) -> float:
    """How far scores fall short of `target` on average, those above it counted as at it; 0 is best."""
    return target - mean([np.minimum(scores, target) for scores in tasks])


def figures(tasks: Tasks) -> Figures:
    fewest, most = min(map(len, tasks)), max(map(len, tasks))
    drawn = {name: statistics.percentiles(values) for name, values in resampled(tasks).items()}
    told = []
    if fewest < statistics.FEW:
        told.append(f"{fewest} seeds a game: bootstrap intervals (all but the mean's) are too narrow" * (fewest > 1))
    if single := sum(len(scores) == 1 for scores in tasks):
        told.append(f"one seed in {single} of {len(tasks)} games: no interval knows their spread, the mean has none")
    if fewest < most:
        told.append("games with more seeds weigh more in the IQM")
    return Figures(
        tasks=len(tasks),
        fewest=fewest,
        most=most,
        median=(median(tasks), drawn["median"]),
        iqm=(iqm(tasks), drawn["iqm"]),
        mean=(mean(tasks), mean_interval(tasks)),
        optimality_gap=(optimality_gap(tasks), drawn["optimality_gap"]),
        warnings=tuple(each for each in told if each),
    )


def mean_interval(tasks: Tasks) -> Interval:
    """None where a task has one seed, or none any spread."""
    if min(map(len, tasks)) < 2 or all(map(statistics.flat, tasks)):
        return None
    value, half = mean(tasks), float(half_of_mean(tasks))
    return value - half, value + half


def half_of_mean(tasks: Tasks) -> np.ndarray:
    """Half the t interval of the mean over tasks, of [..., seeds] a task, two or more."""
    variance, n = spread(tasks)
    error, freedom = added_up(variance / n, n - 1)
    return statistics.critical(freedom) * error / len(tasks)


def resampled(tasks: Tasks, side: int = 0) -> dict[str, np.ndarray]:
    """Each figure [resamples] with seeds drawn anew within tasks; draws of sides 0 and 1 are independent."""
    weights = [statistics.counts(len(own), 2 * place + side) for place, own in enumerate(tasks)]
    means = lambda every: np.stack([own @ w / len(own) for own, w in zip(every, weights, strict=True)])
    every = means(tasks)
    capped = means([np.minimum(own, 1.0) for own in tasks])
    found = {"mean": every.mean(axis=0), "median": np.median(every, axis=0), "optimality_gap": 1 - capped.mean(axis=0)}
    if all(len(own) < 2 or statistics.flat(own) for own in tasks):  # rounding is no spread
        found = {name: np.full(statistics.RESAMPLES, values[0]) for name, values in found.items()}
    pooled = np.concatenate(list(tasks))
    order, cut = np.argsort(pooled, kind="stable"), int(0.25 * len(pooled))
    drawn = np.concatenate(weights)[order]  # how often each score is drawn, the lowest first
    last = np.cumsum(drawn, axis=0)
    middle = np.clip(last, cut, len(pooled) - cut) - np.clip(last - drawn, cut, len(pooled) - cut)
    return found | {"iqm": pooled[order] @ middle / (len(pooled) - 2 * cut)}


def profile(tasks: Tasks, tau: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The share of scores above each `tau` [points], and its bootstrap band."""
    above = [own > tau[:, None] for own in tasks]  # [points, seeds] each
    share = np.mean([each.mean(axis=1) for each in above], axis=0)
    parts = np.concatenate([each / each.shape[1] for each in above], axis=1)
    weights = np.concatenate([statistics.counts(len(own), 2 * place) for place, own in enumerate(tasks)])
    low, high = statistics.between(parts @ weights / len(tasks))
    return share, low, np.minimum(high, 1.0)


def spread(tasks: Tasks) -> tuple[np.ndarray, np.ndarray]:
    """The variances [tasks, ...], and how many seeds each is of, [tasks, 1, ...]."""
    variance = np.stack([own.var(axis=-1, ddof=1) for own in tasks])
    return variance, np.reshape([own.shape[-1] for own in tasks], (-1, *[1] * (variance.ndim - 1)))


def added_up(variances: np.ndarray, freedom: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The standard error of a sum of means [terms, ...] of these variances, and Satterthwaite's degrees of freedom."""
    total = variances.sum(axis=0)
    return np.sqrt(total), total**2 / (variances**2 / freedom).sum(axis=0)
