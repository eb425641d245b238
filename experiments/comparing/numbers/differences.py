"""Two groups on one task: the difference of their means, the chance of improvement, and a verdict.

The test is Welch's where both groups have equally many seeds. With unlike numbers it too often tells groups apart which
do not differ: where scores are skewed, and where the fewer seeds have the wider spread. There its degrees of freedom
are reduced to those of the smaller group and a quarter of what is above, and Student's test with a common variance must
tell as well. What that is worth is measured in `coverage.py` (docs/comparing.md).
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import special

from experiments.comparing.numbers import statistics
from experiments.comparing.numbers.statistics import Interval

POWER = 0.8  # chance of telling a real difference that `seeds_needed` aims at
MOST_SEEDS = 1000  # a group; more are not looked for
NAMES = ("the first", "the second")


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
    verdict: str  # better, worse, cannot tell; higher or lower where no direction is known
    sentence: str


@np.errstate(over="ignore", invalid="ignore")  # of scores near the largest number there is
def compare(first: np.ndarray, second: np.ndarray, *, better: str, names: tuple[str, str] = NAMES) -> Difference:
    """`second` against `first`, seeds of both independent. `better`: higher, lower or unknown."""
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    interval, p, test = tell_apart(first, second)
    sure = min(len(first), len(second)) >= statistics.LEAST and _significant(p)
    more = None if sure else seeds_needed(first, second)
    chance, between = improvements(first, second, better=better)
    difference = float(np.mean(second) - np.mean(first))
    verdict = _verdict(difference, better) if sure else "cannot tell"
    return Difference(
        difference=difference,
        interval=interval,
        p=p,
        test=test,
        improvement=chance,
        improvement_interval=between,
        more_seeds=more,
        verdict=verdict,
        sentence=verdict if sure else f"cannot tell yet: {_wanted(first, second, more, names)}",
    )


@np.errstate(over="ignore", invalid="ignore")
def compare_paired(first: np.ndarray, second: np.ndarray, *, better: str) -> Difference:
    """Likewise, where `first[i]` and `second[i]` are of one seed: Student's t of their differences.

    The chance of improvement is that of `second` over `first` at the same seed.
    """
    apart = np.asarray(second, np.float64) - np.asarray(first, np.float64)
    n, mean, size = len(apart), float(apart.mean()), max(np.abs(first).max(), np.abs(second).max())
    interval, p = statistics.mean_interval(apart), None
    same = bool(np.ptp(apart) <= statistics.ROUNDING * size)
    if n > 1 and same:
        interval, p = None, 1.0 if abs(mean) <= statistics.ROUNDING * size else 2.0 ** (1 - n)  # of the signs
    elif interval is not None:
        p = float(statistics.two_sided(mean * math.sqrt(n) / float(apart.std(ddof=1)), n - 1))
    sure = n >= statistics.LEAST and _significant(p)
    more = None if sure or n < 2 or same else _more_pairs(n, mean / float(apart.std(ddof=1)))
    chance, between = improvements(np.zeros(1), apart, better=better)
    verdict = _verdict(mean, better) if sure else "cannot tell"
    told = f"about {_seeds(more)} on both sides" if more else _hopeless(n, same=same, equal=p == 1)
    return Difference(
        difference=mean,
        interval=interval,
        p=p,
        test="paired t",
        improvement=chance,
        improvement_interval=between,
        more_seeds=(more, more) if more else None,
        verdict=verdict,
        sentence=verdict if sure else f"cannot tell yet: {told}",
    )


def tell_apart(first: np.ndarray, second: np.ndarray) -> tuple[Interval, float | None, str]:
    """The interval of mean(second) - mean(first), the two-sided p, and the test's name.

    Where neither group has any spread, an exact permutation test of two groups that lie wholly apart.
    """
    n, m = len(first), len(second)
    if n < 2 or m < 2:
        return None, None, "none"
    if statistics.flat(first) and statistics.flat(second):
        p = 1.0 if _same(first, second) else 2.0 / special.comb(n + m, n)
        return None, float(p), "permutation"
    half, p = two_samples(first, second)
    if not np.isfinite(half):
        return None, None, "none"
    difference = float(np.mean(second) - np.mean(first))
    return (difference - float(half), difference + float(half)), float(p), "Welch" if n == m else "Welch and Student"


def two_samples(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Half the interval of a difference of means and the two-sided p, of [..., n] and [..., m]; n, m >= 2."""
    n, m = first.shape[-1], second.shape[-1]
    away = second.mean(axis=-1) - first.mean(axis=-1)
    tests = _tests(first.var(axis=-1, ddof=1), n, second.var(axis=-1, ddof=1), m)
    halves = [statistics.critical(freedom) * error for error, freedom in tests]
    p = [statistics.two_sided(away / error, freedom) for error, freedom in tests]
    return np.max(halves, axis=0), np.max(p, axis=0)


def _tests(one: Any, n: int, two: Any, m: int) -> list[tuple[Any, Any]]:
    """(standard error of the difference, degrees of freedom) of each test that must tell; by the groups' variances."""
    error = np.sqrt(one / n + two / m)
    freedom = error**4 / ((one / n) ** 2 / (n - 1) + (two / m) ** 2 / (m - 1))  # Welch and Satterthwaite's
    if n == m:
        return [(error, freedom)]
    least = min(n, m) - 1
    pooled = ((n - 1) * one + (m - 1) * two) / (n + m - 2)
    return [(error, least + (freedom - least) / 4), (np.sqrt(pooled * (1 / n + 1 / m)), n + m - 2)]


def welch(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The p of Welch's test alone, of [..., n] and [..., m]: what `two_samples` is measured against."""
    n, m = first.shape[-1], second.shape[-1]
    one, two = first.var(axis=-1, ddof=1) / n, second.var(axis=-1, ddof=1) / m
    freedom = (one + two) ** 2 / (one**2 / (n - 1) + two**2 / (m - 1))
    return statistics.two_sided((second.mean(axis=-1) - first.mean(axis=-1)) / np.sqrt(one + two), freedom)


# ---- the chance of improvement ----


def improvement(first: np.ndarray, second: np.ndarray, *, better: str = "higher") -> float:
    """P(a score of `second` is better than one of `first`), ties half: Mann-Whitney's U / (n m)."""
    return float(wins(first, second, better).mean())


def improvements(first: np.ndarray, second: np.ndarray, *, better: str) -> tuple[float, Interval]:
    """It and its percentile bootstrap interval; None where a single seed is all there is, or one side always wins."""
    won = wins(first, second, better)
    if won.size < 2 or np.ptp(won) == 0:
        return float(won.mean()), None
    return float(won.mean()), statistics.percentiles(resampled_improvement(won))


def resampled_improvement(won: np.ndarray, stream: int = 0) -> np.ndarray:
    """[resamples], the mean of [n, m] with its rows and its columns drawn anew."""
    n, m = won.shape
    rows, columns = statistics.counts(n, 2 * stream), statistics.counts(m, 2 * stream + 1)
    return np.einsum("mr,mr->r", won.T @ rows, columns) / won.size


def wins(first: np.ndarray, second: np.ndarray, better: str) -> np.ndarray:
    """[n, m]: 1 where the score of `second` is better, half where both are the same."""
    higher = (np.sign(second[None, :] - first[:, None]) + 1) / 2
    return 1 - higher if better == "lower" else higher


# ---- the verdict ----


def seeds_needed(first: np.ndarray, second: np.ndarray) -> tuple[int, int] | None:
    """How many more seeds of each group make the test tell their difference with a chance of `POWER`.

    Assumes that the true difference and spreads are those seen, and normal scores. None where more than `MOST_SEEDS` a
    group would be needed, where one seed shows no spread, or where all scores are the same.
    """
    n, m = len(first), len(second)
    if n < 2 or m < 2:
        return None
    one, two = float(np.var(first, ddof=1)), float(np.var(second, ddof=1))
    away = abs(float(np.mean(second) - np.mean(first)))
    if not math.isfinite(one + two):
        return None
    if statistics.flat(first) and statistics.flat(second):
        enough = lambda k: 2 / special.comb(max(n, k) + max(m, k), max(n, k)) <= 1 - statistics.LEVEL
        found = None if _same(first, second) else fewest(enough, min(n, m))
    else:
        enough = lambda k: power(away, _tests(one, max(n, k), two, max(m, k))) >= POWER
        found = fewest(enough, min(n, m), guess=textbook(one + two, away))
    return None if found is None else (max(found - n, 0), max(found - m, 0))


def fewest(enough: Callable[[int], Any], there: int, *, guess: float = 0) -> int | None:
    """The least number of seeds, more than are `there`, for which `enough` holds; it holds for all larger ones.

    None where that is more than `MOST_SEEDS`. A good guess saves time.
    """
    low, high = max(there + 1, statistics.LEAST), MOST_SEEDS
    place, stride = int(min(max(guess, low), high)), 1
    while low <= high:  # fewer than `low` are too few, more than `high` are enough
        if enough(place):
            high, place = place - 1, place - stride
        else:
            low, place = place + 1, place + stride
        stride *= 2
        if not low <= place <= high:
            place = (low + high) // 2
    return low if low <= MOST_SEEDS else None


def textbook(variances: float, away: float) -> float:
    """How many seeds tell a difference with known variances, added up, and a chance of 80 %."""
    return 7.85 * variances / away / away if away else MOST_SEEDS


def power(away: float, tests: Sequence[tuple[Any, Any]]) -> float:
    """The chance that every test (standard error, degrees of freedom) tells means of normal scores `away` apart."""
    true = tests[0][0]  # the standard error of the difference
    return min(_beyond(statistics.critical(freedom) * error / true, freedom, away / true) for error, freedom in tests)


def _more_pairs(n: int, effect: float) -> int | None:
    """How many more pairs; `effect` is the mean difference over its spread."""
    enough = lambda k: _beyond(statistics.critical(k - 1), k - 1, abs(effect) * math.sqrt(k)) >= POWER
    found = fewest(enough, n)
    return None if found is None else found - n


def _beyond(critical: float, freedom: float, away: float) -> float:
    """How often a noncentral t lies beyond the critical one, on either side."""
    if away > critical + 10:
        return 1.0
    told = 1 - special.nctdtr(freedom, away, critical) + special.nctdtr(freedom, away, -critical)
    return float(told) if np.isfinite(told) else float(away > critical)


def _same(first: np.ndarray, second: np.ndarray) -> bool:
    return statistics.flat(np.concatenate([first, second]))


def _significant(p: float | None) -> bool:
    return p is not None and p <= 1 - statistics.LEVEL


def _verdict(difference: float, better: str) -> str:
    if better == "unknown":
        return "higher" if difference > 0 else "lower"
    return "better" if (difference > 0) == (better == "higher") else "worse"


def _wanted(first: np.ndarray, second: np.ndarray, more: tuple[int, int] | None, names: Sequence[str]) -> str:
    n = min(len(first), len(second))
    if n < statistics.LEAST or more is None:
        same = statistics.flat(first) and statistics.flat(second)
        return _hopeless(n, same=same, equal=_same(first, second))
    a, b = more
    if a == b:
        return f"about {_seeds(a)} of each"
    return "about " + " and ".join(
        f"{_seeds(count)} of {name}" for count, name in zip(more, names, strict=True) if count
    )


def _hopeless(n: int, *, same: bool, equal: bool) -> str:
    """What stands where no number of further seeds does."""
    if n < statistics.LEAST:
        return f"a verdict takes {statistics.LEAST} seeds of each at least, better {statistics.FEW} or more"
    if same:
        return "all seeds score the same" if equal else "every seed differs by the same, too few of them"
    return f"{MOST_SEEDS} seeds of each would not show a difference as small as this one"


def _seeds(count: int | None) -> str:
    return f"{count} more seed{'s' * (count != 1)}"
