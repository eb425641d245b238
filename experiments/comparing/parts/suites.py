"""Figures over several games, human-normalised: of each group, between two groups, and performance profiles.

Medians, interquartile means (IQM), optimality gaps and profiles have percentile bootstrap intervals over seeds drawn
within their games, as rliable 1.2 makes them (arXiv:2108.13264). Means have Student's t interval with the variances
of the games added up and Satterthwaite's degrees of freedom. Verdicts are of the means: Welch's and Student's test
likewise over all games. Tasks are lists of scores [seeds], or [..., seeds], one of each game.
"""

import collections
import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from agents import scores
from experiments.comparing import groups, scoring
from experiments.comparing.numbers import differences, statistics
from experiments.comparing.numbers.statistics import Interval
from experiments.comparing.parts import pairs

MARKS = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)  # human-normalised scores of the table of profiles

NAMED = 10  # groups that a note names

Tasks = Sequence[np.ndarray]
_Groups = Mapping[str, dict[str, np.ndarray]]  # group -> game -> [seeds]


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Suite:
    """One group over several games, human-normalised."""

    group: str
    which: str
    games: tuple[str, ...]
    figures: Figures


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contest:
    """`second` against `first`, over the games that both have."""

    which: str
    first: str
    second: str
    games: tuple[str, ...]
    only_first: tuple[str, ...]  # games
    only_second: tuple[str, ...]
    mean: tuple[float, Interval]  # difference of the means over games, and of the IQMs
    iqm: tuple[float, Interval]
    p: float | None  # of the means
    improvement: tuple[float, Interval]  # P(a seed of `second` beats one of `first`), averaged over games
    verdict: str
    told: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Profile:
    """The share of one group's runs that score above each `tau`, every game with the same weight; arrays [points]."""

    group: str
    which: str
    games: tuple[str, ...]  # which all groups of several games have
    apart: tuple[str, ...]  # this group's others
    tau: np.ndarray  # human-normalised
    share: np.ndarray
    low: np.ndarray
    high: np.ndarray


class Scores:
    """Human-normalised scores of all groups: by protocol but for the game, then by group and game."""

    def __init__(self, every: Sequence[scoring.Cell], protocols: Mapping[str, Mapping[str, Any]]):
        # (which, protocol) -> group -> game -> [seeds]
        self.groups = collections.defaultdict[tuple[str, str], dict[str, dict[str, np.ndarray]]](dict)
        for cell in every:
            if cell.metric == scoring.RETURN and cell.values and cell.task in scores.published():
                rest = {key: value for key, value in protocols.get(cell.protocol, {}).items() if value != cell.task}
                values = [scores.human_normalised(cell.task, value) for *_, value in cell.values]
                games = self.groups[cell.which, groups.digest(rest)].setdefault(cell.group, {})
                games[cell.task] = np.asarray(values, np.float64)

    def suites(self) -> list[Suite]:
        """Over the Atari games that a group has, where there are several that are alike but for the game."""
        return [
            Suite(group=group, which=which, games=tuple(games), figures=figures(list(games.values())))
            for (which, _), own in self.groups.items()
            for group, games in own.items()
            if len(games) > 1
        ]

    def contests(self, which: str) -> list[Contest]:
        """Of each pair of groups that have several games in common; of too many groups, of each and the best."""
        found = []
        for own in self._several(which):
            drawn = {}
            for one, two in _chosen(own):
                if len(own[one].keys() & own[two].keys()) > 1:
                    found.append(contest(which, (one, two), own[one], own[two], drawn))
        return found

    def profiles(self, which: str) -> list[Profile]:
        """Of the groups of several games of one protocol, over those that all of them have, if those are several."""
        found = []
        for own in self._several(which):
            games = _common(own)
            if len(games) > 1:
                tau = _levels([own[group][game] for group in own for game in games])
                for group, has in own.items():
                    share, low, high = profile([has[game] for game in games], tau)
                    apart = tuple(game for game in has if game not in games)
                    common = {"group": group, "which": which, "games": tuple(games), "apart": apart}
                    found.append(Profile(**common, tau=tau, share=share, low=low, high=high))
        return found

    def notes(self, which: str) -> list[str]:
        """What contests and profiles leave out."""
        notes = []
        for (value, _), every in self.groups.items():
            own = _of_several(every)
            if value != which or not own:
                continue
            if single := [f"{group} ({', '.join(games)})" for group, games in every.items() if group not in own]:
                more = f" and {len(single) - NAMED:,} more" * (len(single) > NAMED)
                notes.append(f"left out over games, with a single one: {'; '.join(single[:NAMED])}{more}")
            if len(_common(own)) < 2:
                notes.append(f"no performance profiles: the {len(own):,} groups of several games share fewer than two")
            if math.comb(len(own), 2) > pairs.MOST:
                notes.append(
                    f"over games: {len(own):,} groups make more than {pairs.MOST:,} pairs, so each is compared with "
                    f"{_best(own)} only, of the best mean among those of the most games, with {statistics.LEAST} seeds "
                    "of each or more where there are such; luck may have chosen it"
                )
        return list(dict.fromkeys(notes))

    def _several(self, which: str) -> Iterator[_Groups]:
        """Of each protocol the groups of several games."""
        for (value, _), every in self.groups.items():
            if value == which and (own := _of_several(every)):
                yield own


def _of_several(every: _Groups) -> _Groups:
    return {group: games for group, games in every.items() if len(games) > 1}


def _common(own: _Groups) -> list[str]:
    """The games that all groups have."""
    return [game for game in next(iter(own.values())) if all(game in games for games in own.values())]


def _chosen(own: _Groups) -> Iterator[tuple[str, str]]:
    """All pairs; of too many groups, each beside the best."""
    if math.comb(len(own), 2) <= pairs.MOST:
        return itertools.combinations(own, 2)
    best = _best(own)
    return ((best, group) for group in own if group != best)


def _best(own: _Groups) -> str:
    """The one of the most games, of enough seeds of each for a verdict if one has them, of the best mean."""

    def place(group: str) -> tuple[int, bool, float]:
        tasks = list(own[group].values())
        return len(tasks), min(map(len, tasks)) >= statistics.LEAST, mean(tasks)

    return max(own, key=place)


# ---- one group ----


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
    variance, n = _spread(tasks)
    error, freedom = _sum(variance / n, n - 1)
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


def _levels(tasks: Tasks) -> np.ndarray:
    """From the lowest score to the highest, close together where most scores are."""
    least, most = min(own.min() for own in tasks), max(own.max() for own in tasks)
    fine = np.linspace(min(least, 0.0), max(min(most, 2.0), 0.0), 101)
    marks = [mark for mark in MARKS if mark <= max(most, 1.0)]
    return np.unique([*fine, *marks, *(np.geomspace(2.0, most, 51) if most > 2 else ())])


# ---- two groups ----


def apart(first: Tasks, second: Tasks) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """mean(second) - mean(first) over tasks, half its interval and the two-sided p.

    Of [..., seeds] a task, two or more. Where numbers of seeds differ, Student's test must tell as well as Welch's.
    """
    one, two = (np.stack([own.mean(axis=-1) for own in tasks]) for tasks in (first, second))
    difference = (two - one).mean(axis=0)
    return difference, *_told(difference, _tests(*_spread(first), *_spread(second)))


def _told(difference: Any, tests: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """The wider half of an interval, and the larger p."""
    halves = [statistics.critical(freedom) * error for error, freedom in tests]
    p = [statistics.two_sided(difference / error, freedom) for error, freedom in tests]
    return np.max(halves, axis=0), np.max(p, axis=0)


def _spread(tasks: Tasks) -> tuple[np.ndarray, np.ndarray]:
    """The variances [tasks, ...], and how many seeds each is of, [tasks, 1, ...]."""
    variance = np.stack([own.var(axis=-1, ddof=1) for own in tasks])
    return variance, np.reshape([own.shape[-1] for own in tasks], (-1, *[1] * (variance.ndim - 1)))


def _tests(one: np.ndarray, n: np.ndarray, two: np.ndarray, m: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """(standard error, degrees of freedom) of both tests of a mean over tasks, of variances of n and m seeds."""
    welch = _sum(np.concatenate([one / n, two / m]), np.concatenate([n, m]) - 1)
    freedom = n + m - 2
    pooled = _sum(((n - 1) * one + (m - 1) * two) / freedom * (1 / n + 1 / m), freedom)
    return [(error / len(one), freedom) for error, freedom in (welch, pooled)]


def _sum(variances: np.ndarray, freedom: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The standard error of a sum of means [terms, ...] of these variances, and Satterthwaite's degrees of freedom."""
    total = variances.sum(axis=0)
    return np.sqrt(total), total**2 / (variances**2 / freedom).sum(axis=0)


def contest(
    which: str,
    pair: tuple[str, str],
    one: Mapping[str, np.ndarray],
    two: Mapping[str, np.ndarray],
    drawn: dict[Any, np.ndarray] | None = None,
) -> Contest:
    """`pair[1]` against `pair[0]`, scores of each game. `drawn` keeps the resampled IQMs of groups by their names."""
    games = tuple(game for game in one if game in two)
    first, second = [one[game] for game in games], [two[game] for game in games]
    drawn = {} if drawn is None else drawn
    for side, (group, tasks) in enumerate(zip(pair, (first, second), strict=True)):
        if (group, games, side) not in drawn:
            drawn[group, games, side] = resampled(tasks, side)["iqm"]
    flat = all(map(statistics.flat, [*first, *second]))
    difference, interval, p, spreads = mean(second) - mean(first), None, None, ()
    if min(map(len, [*first, *second])) > 1 and not flat:
        spreads = (*_spread(first), *_spread(second))
        half, told = map(float, _told(difference, _tests(*spreads)))
        interval, p = (difference - half, difference + half), told
    short = [game for game, *both in zip(games, first, second, strict=True) if min(map(len, both)) < statistics.LEAST]
    sure = not short and p is not None and p <= 1 - statistics.LEVEL
    verdict = ("better" if difference > 0 else "worse") if sure else "cannot tell"
    wins = [differences.wins(one, two, "higher") for one, two in zip(first, second, strict=True)]
    chances = np.mean([differences.resampled_improvement(each, place) for place, each in enumerate(wins)], axis=0)
    return Contest(
        which=which,
        first=pair[0],
        second=pair[1],
        games=games,
        only_first=tuple(game for game in one if game not in two),
        only_second=tuple(game for game in two if game not in one),
        mean=(difference, interval),
        iqm=(iqm(second) - iqm(first), statistics.percentiles(drawn[pair[1], games, 1] - drawn[pair[0], games, 0])),
        p=p,
        improvement=(float(np.mean([each.mean() for each in wins])), statistics.percentiles(chances)),
        verdict=verdict,
        told=verdict if sure else f"cannot tell yet: {_wanted(difference, spreads, short)}",
    )


def _wanted(difference: float, spreads: Sequence[np.ndarray], short: Sequence[str]) -> str:
    if short:
        return f"a verdict takes {statistics.LEAST} seeds of each game at least; fewer of {', '.join(short)}"
    if not spreads:
        return "all seeds of a game score the same"
    one, n, two, m = spreads
    there, away = int(min(n.min(), m.min())), abs(difference)

    def enough(k: int) -> bool:
        told = _tests(one, np.maximum(n, k), two, np.maximum(m, k))
        return differences.power(away, told) >= differences.POWER

    found = differences.fewest(enough, there, guess=differences.textbook(float((one + two).sum()), away * len(one)))
    if found is None:
        return f"{differences.MOST_SEEDS} seeds of each game would not show a difference as small as this one"
    return f"about {found} seeds of each game instead of {there}"
