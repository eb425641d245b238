"""Figures over several games, human-normalised: of each group, between two groups, and performance profiles.

Medians, interquartile means (IQM), optimality gaps and profiles have percentile bootstrap intervals over seeds drawn
within their games, as rliable 1.2 makes them (arXiv:2108.13264). Means have Student's t interval with the variances
of the games added up and Satterthwaite's degrees of freedom. Verdicts are of the means: Welch's and Student's test
likewise over all games; of seeds that are paired, Student's of their differences. Tasks are lists of scores [seeds],
or [..., seeds], one of each game.
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
from experiments.comparing.numbers import differences, overall, statistics
from experiments.comparing.numbers.statistics import Interval
from experiments.comparing.parts import pairs

MARKS = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)  # human-normalised scores of the table of profiles

NAMED = 10  # groups that a note names

_Groups = Mapping[str, dict[str, np.ndarray]]  # group -> game -> [seeds]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Suite:
    """One group over several games, human-normalised."""

    group: str
    which: str
    games: tuple[str, ...]
    figures: overall.Figures


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
        self._seeds = dict[tuple[str, str, str, str], list[str]]()  # likewise, of which seeds they are
        for cell in every:
            if cell.metric == scoring.RETURN and cell.values and cell.task in scores.published():
                rest = {key: value for key, value in protocols.get(cell.protocol, {}).items() if value != cell.task}
                values = [scores.human_normalised(cell.task, value) for *_, value in cell.values]
                protocol = groups.digest(rest)
                games = self.groups[cell.which, protocol].setdefault(cell.group, {})
                games[cell.task] = np.asarray(values, np.float64)
                self._seeds[cell.which, protocol, cell.group, cell.task] = [str(seed) for seed, *_ in cell.values]

    def suites(self) -> list[Suite]:
        """Over the Atari games that a group has, where there are several that are alike but for the game."""
        return [
            Suite(group=group, which=which, games=tuple(games), figures=overall.figures(list(games.values())))
            for (which, _), own in self.groups.items()
            for group, games in own.items()
            if len(games) > 1
        ]

    def contests(self, which: str, *, paired: bool = False) -> list[Contest]:
        """Of each pair of groups that have several games in common; of too many groups, of each and the best.

        With `paired`, over the games and seeds that both have; what that leaves out is told beside the verdict.
        """
        found = []
        for protocol, own in self._several(which):
            drawn = {}
            for one, two in _chosen(own):
                first, second, left = own[one], own[two], ""
                if paired:
                    first, second, left = self._paired(which, protocol, one, two)
                if len(first.keys() & second.keys()) > 1:
                    made = contest(which, (one, two), first, second, drawn, paired=paired)
                    found.append(dataclasses.replace(made, told=made.told + left))
        return found

    def _paired(
        self, which: str, protocol: str, one: str, two: str
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], str]:
        """Both groups' scores at the seeds that both have, and what is left out; games of one side stay."""
        sides = [dict(self.groups[which, protocol][group]) for group in (one, two)]
        apart, alone = [], 0
        for game in [game for game in sides[0] if game in sides[1]]:
            seeds = [self._seeds[which, protocol, group, game] for group in (one, two)]
            both = [seed for seed in seeds[0] if seed in seeds[1]]
            if again := any(len(set(own)) < len(own) for own in seeds) or not both:
                apart.append(f"{game} ({'no seed on both sides' if not both else 'a seed more than once'})")
            for own, scored in zip(seeds, sides, strict=True):
                alone += 0 if again else len(own) - len(both)
                values = scored.pop(game)
                if not again:
                    scored[game] = values[[own.index(seed) for seed in both]]
        told = [f"not paired: {', '.join(apart)}"] * bool(apart)
        told += [f"runs without one of the same seed, not in it: {alone}"] * bool(alone)
        return sides[0], sides[1], f" ({'; '.join(told)})" if told else ""

    def profiles(self, which: str) -> list[Profile]:
        """Of the groups of several games of one protocol, over those that all of them have, if those are several."""
        found = []
        for _, own in self._several(which):
            games = _common(own)
            if len(games) > 1:
                tau = _levels([own[group][game] for group in own for game in games])
                for group, has in own.items():
                    share, low, high = overall.profile([has[game] for game in games], tau)
                    apart = tuple(game for game in has if game not in games)
                    common = {"group": group, "which": which, "games": tuple(games), "apart": apart}
                    found.append(Profile(**common, tau=tau, share=share, low=low, high=high))
        return found

    def notes(self, which: str, *, paired: bool = False) -> list[str]:
        """What contests and profiles leave out."""
        notes = self._unpaired(which) if paired else []
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

    def _unpaired(self, which: str) -> list[str]:
        """The pairs of groups that have too few games with seeds on both sides, and why."""
        notes = []
        for protocol, own in self._several(which):
            for one, two in _chosen(own):
                first, second, told = self._paired(which, protocol, one, two)
                if len(own[one].keys() & own[two].keys()) > 1 and len(first.keys() & second.keys()) < 2:
                    notes.append(f"over games, {two} against {one} is not compared: fewer than two games to pair{told}")
        more = [f"and {len(notes) - NAMED:,} more such pairs"] * (len(notes) > NAMED)
        return notes[:NAMED] + more

    def _several(self, which: str) -> Iterator[tuple[str, _Groups]]:
        """Each protocol and its groups of several games."""
        for (value, protocol), every in self.groups.items():
            if value == which and (own := _of_several(every)):
                yield protocol, own


def together(every: Sequence[Profile]) -> list[list[Profile]]:
    """Those of one set of games and protocol, which one figure shows: each group is among them once."""
    made = list[list[Profile]]()
    for each in every:
        if not made or each.games != made[-1][0].games or each.group in [own.group for own in made[-1]]:
            made.append([])
        made[-1].append(each)
    return made


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
        return len(tasks), min(map(len, tasks)) >= statistics.LEAST, overall.mean(tasks)

    return max(own, key=place)


def _levels(tasks: overall.Tasks) -> np.ndarray:
    """From the lowest score to the highest, close together where most scores are."""
    least, most = min(own.min() for own in tasks), max(own.max() for own in tasks)
    fine = np.linspace(min(least, 0.0), max(min(most, 2.0), 0.0), 101)
    marks = [mark for mark in MARKS if mark <= max(most, 1.0)]
    return np.unique([*fine, *marks, *(np.geomspace(2.0, most, 51) if most > 2 else ())])


# ---- two groups ----


def apart(first: overall.Tasks, second: overall.Tasks) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """mean(second) - mean(first) over tasks, half its interval and the two-sided p.

    Of [..., seeds] a task, two or more. Where numbers of seeds differ, Student's test must tell as well as Welch's.
    """
    one, two = (np.stack([own.mean(axis=-1) for own in tasks]) for tasks in (first, second))
    difference = (two - one).mean(axis=0)
    return difference, *_told(difference, _tests(*overall.spread(first), *overall.spread(second)))


def _told(difference: Any, tests: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """The wider half of an interval, and the larger p."""
    halves = [statistics.critical(freedom) * error for error, freedom in tests]
    p = [statistics.two_sided(difference / error, freedom) for error, freedom in tests]
    return np.max(halves, axis=0), np.max(p, axis=0)


def _tests(
    one: np.ndarray, n: np.ndarray, two: np.ndarray | None = None, m: np.ndarray | None = None
) -> list[tuple[np.ndarray, np.ndarray]]:
    """(standard error, degrees of freedom) of both tests of a mean over tasks, of variances of n and m seeds.

    Of `one` alone, which are differences of pairs, of Student's test.
    """
    if two is None or m is None:
        found = [overall.added_up(one / n, n - 1)]
    else:
        freedom = n + m - 2
        welch = overall.added_up(np.concatenate([one / n, two / m]), np.concatenate([n, m]) - 1)
        pooled = overall.added_up(((n - 1) * one + (m - 1) * two) / freedom * (1 / n + 1 / m), freedom)
        found = [welch, pooled]
    return [(error / len(one), freedom) for error, freedom in found]


def contest(
    which: str,
    pair: tuple[str, str],
    one: Mapping[str, np.ndarray],
    two: Mapping[str, np.ndarray],
    drawn: dict[Any, np.ndarray] | None = None,
    *,
    paired: bool = False,
) -> Contest:
    """`pair[1]` against `pair[0]`, scores of each game. `drawn` keeps the resampled IQMs of groups by their names.

    With `paired` the scores of a game are of the same seeds on both sides, in the same order.
    """
    games = tuple(game for game in one if game in two)
    first, second = [one[game] for game in games], [two[game] for game in games]
    away = [after - before for before, after in zip(first, second, strict=True)] if paired else []
    drawn = {} if drawn is None else drawn
    keys = [(group, games, 0 if paired else side) for side, group in enumerate(pair)]  # seeds drawn alike, or not
    for key, tasks in zip(keys, (first, second), strict=True):
        if paired or key not in drawn:
            drawn[key] = overall.resampled(tasks, key[-1])["iqm"]
    difference, interval, p, spreads = overall.mean(second) - overall.mean(first), None, None, ()
    if min(map(len, [*first, *second])) > 1 and not _flat(first, second, away):
        spreads = overall.spread(away) if paired else (*overall.spread(first), *overall.spread(second))
        half, told = map(float, _told(difference, _tests(*spreads)))
        interval, p = (difference - half, difference + half), told
    short = [game for game, *both in zip(games, first, second, strict=True) if min(map(len, both)) < statistics.LEAST]
    sure = not short and p is not None and p <= 1 - statistics.LEVEL
    verdict = ("better" if difference > 0 else "worse") if sure else "cannot tell"
    sides = [(np.zeros(1), each) for each in away] if paired else zip(first, second, strict=True)
    wins = [differences.wins(one, two, "higher") for one, two in sides]
    chances = np.mean([differences.resampled_improvement(each, place) for place, each in enumerate(wins)], axis=0)
    return Contest(
        which=which,
        first=pair[0],
        second=pair[1],
        games=games,
        only_first=tuple(game for game in one if game not in two),
        only_second=tuple(game for game in two if game not in one),
        mean=(difference, interval),
        iqm=(overall.iqm(second) - overall.iqm(first), statistics.percentiles(drawn[keys[1]] - drawn[keys[0]])),
        p=p,
        improvement=(float(np.mean([each.mean() for each in wins])), statistics.percentiles(chances)),
        verdict=verdict,
        told=verdict if sure else f"cannot tell yet: {_wanted(difference, spreads, short, paired=paired)}",
    )


def _flat(first: overall.Tasks, second: overall.Tasks, away: overall.Tasks) -> bool:
    """Whether nothing spreads but by rounding: of pairs their differences `away`, else the scores."""
    sizes = [
        statistics.ROUNDING * max(np.abs(one).max(), np.abs(two).max()) for one, two in zip(first, second, strict=True)
    ]
    if away:
        return all(np.ptp(own) <= size for own, size in zip(away, sizes, strict=True))
    return all(map(statistics.flat, [*first, *second]))


def _wanted(difference: float, spreads: Sequence[np.ndarray], short: Sequence[str], *, paired: bool) -> str:
    if short:
        both = " on both sides" * paired
        return f"a verdict takes {statistics.LEAST} seeds of each game{both} at least; fewer of {', '.join(short)}"
    if not spreads:
        return "all seeds of a game " + ("differ by the same" if paired else "score the same")
    variances, counts, size = spreads[::2], spreads[1::2], abs(difference)
    there = int(min(n.min() for n in counts))

    def enough(k: int) -> bool:
        more = [np.maximum(n, k) for n in counts]
        told = _tests(*(part for both in zip(variances, more, strict=True) for part in both))
        return differences.power(size, told) >= differences.POWER

    guess = differences.textbook(float(sum(each.sum() for each in variances)), size * len(variances[0]))
    found = differences.fewest(enough, there, guess=guess)
    if found is None:
        return f"{differences.MOST_SEEDS} seeds of each game would not show a difference as small as this one"
    return f"about {found} seeds of each game instead of {there}"
