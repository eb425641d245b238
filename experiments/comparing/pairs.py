"""A verdict for each pair of groups on one task, and figures over several games."""

import collections
import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from agents import scores
from experiments.comparing import groups, scoring, statistics

MOST = 5_000  # pairs of groups on one task that all have a verdict


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """`second` against `first`."""

    metric: str
    which: str
    task: str
    first: str
    second: str
    n: tuple[int, int]
    only_first: tuple[Any, ...]  # seeds
    only_second: tuple[Any, ...]
    result: statistics.Difference | None  # None: not compared
    told: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Suite:
    """One group over several games, human-normalised."""

    group: str
    which: str
    games: tuple[str, ...]
    figures: statistics.Suite


def verdicts(
    every: Sequence[scoring.Cell],
    metrics: Mapping[str, str],
    protocols: Mapping[str, Mapping[str, Any]],
    asked: scoring.Asked,
) -> list[Verdict]:
    """Of all pairs of groups on one task, by the last values or those at `at`."""
    which = scoring.LAST if asked.at is None else scoring.AT
    found = []
    by_task = collections.defaultdict[tuple[str, str], list[scoring.Cell]](list)
    for cell in every:
        if cell.which == which:
            by_task[cell.metric, cell.task].append(cell)
    for (metric, _), own in by_task.items():
        for first, second in _chosen(own, metrics[metric]):
            if first.group != second.group:
                found.append(_verdict(first, second, metrics[metric], protocols, asked))
    return found


def too_many(every: Sequence[scoring.Cell], asked: scoring.Asked) -> list[str]:
    """Notes on metrics and tasks with more than `MOST` pairs."""
    which = scoring.LAST if asked.at is None else scoring.AT
    counts = collections.Counter((cell.metric, cell.task) for cell in every if cell.which == which)
    return [
        f"{metric} on {task}: {count:,} groups make more than {MOST:,} pairs, so each is compared with the one of the "
        "best mean only, which luck may have chosen; all pairs of fewer groups are (runs=, group=)"
        for (metric, task), count in counts.items()
        if math.comb(count, 2) > MOST
    ]


def _chosen(own: Sequence[scoring.Cell], better: str) -> list[tuple[scoring.Cell, scoring.Cell]]:
    """All pairs; of too many groups, each beside the best."""
    if math.comb(len(own), 2) <= MOST:
        return list(itertools.combinations(own, 2))
    sign = -1 if better == "lower" else 1
    means = {number: sign * cell.summary.mean for number, cell in enumerate(own) if cell.summary is not None}
    best = own[max(means, key=means.__getitem__)] if means else own[0]
    return [(best, cell) for cell in own if cell is not best]


def _verdict(
    first: scoring.Cell,
    second: scoring.Cell,
    better: str,
    protocols: Mapping[str, Mapping[str, Any]],
    asked: scoring.Asked,
) -> Verdict:
    one, two = ({str(seed): value for seed, _, value in cell.values} for cell in (first, second))
    result, told = None, ""
    if first.protocol != second.protocol:
        keys = groups.protocol_differences([protocols[first.protocol], protocols[second.protocol]])
        told = f"not compared: protocols differ in {', '.join(keys)} (protocols=any compares them)"
    elif not one or not two:
        told = f"not compared: no value in {first.group if not one else second.group}"
    elif asked.paired:
        both = [seed for seed in one if seed in two]
        repeated = len(one) < len(first.values) or len(two) < len(second.values)
        if repeated or not both:
            told = "not compared: " + (
                "a seed more than once cannot be paired" if repeated else "no seed on both sides"
            )
        else:
            values = (np.asarray([side[seed] for seed in both]) for side in (one, two))
            result = statistics.compare_paired(*values, better=better)
    else:
        values = (np.asarray([value for *_, value in cell.values]) for cell in (first, second))
        result = statistics.compare(*values, better=better)
    return Verdict(
        metric=first.metric,
        which=first.which,
        task=first.task,
        first=first.group,
        second=second.group,
        n=(len(first.values), len(second.values)),
        only_first=tuple(seed for seed in one if seed not in two),
        only_second=tuple(seed for seed in two if seed not in one),
        result=result,
        told=told or (result.sentence if result else ""),
    )


def suites(every: Sequence[scoring.Cell], protocols: Mapping[str, Mapping[str, Any]]) -> list[Suite]:
    """Over the Atari games that a group has, where there are several that are alike but for the game."""
    together = collections.defaultdict[tuple[str, str, str], dict[str, np.ndarray]](dict)
    for cell in every:
        if cell.metric == scoring.RETURN and cell.values and cell.task in scores.published():
            rest = {key: value for key, value in protocols.get(cell.protocol, {}).items() if value != cell.task}
            values = [scores.human_normalised(cell.task, value) for *_, value in cell.values]
            together[cell.group, cell.which, groups.digest(rest)][cell.task] = np.asarray(values, np.float64)
    return [
        Suite(group=group, which=which, games=tuple(games), figures=statistics.suite(list(games.values())))
        for (group, which, _), games in together.items()
        if len(games) > 1
    ]
