"""A verdict for each pair of groups on one task."""

import collections
import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.comparing import groups, scoring
from experiments.comparing.numbers import differences, statistics

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
    used: tuple[int, int]  # of n; fewer where seeds are paired
    result: differences.Difference | None  # None: not compared
    holm: float | None = None  # p, all pairs of the report taken together; None where seeds are too few for a verdict
    told: str


def verdicts(
    every: Sequence[scoring.Cell],
    metrics: Mapping[str, str],
    protocols: Mapping[str, Mapping[str, Any]],
    asked: scoring.Asked,
) -> list[Verdict]:
    """Of all pairs of groups on one task, by the last values or those at `at`."""
    which = scoring.of_verdicts(asked)
    found = []
    by_task = collections.defaultdict[tuple[str, str], list[scoring.Cell]](list)
    for cell in every:
        if cell.which == which:
            by_task[cell.metric, cell.task].append(cell)
    for (metric, _), own in by_task.items():
        for first, second in _chosen(own, metrics[metric]):
            if first.group != second.group:
                found.append(_verdict(first, second, metrics[metric], protocols, asked))
    return _adjusted(found)


def tested(every: Sequence[Verdict]) -> list[Verdict]:
    """Those of enough seeds for a verdict."""
    return [each for each in every if each.holm is not None]


def standing(every: Sequence[Verdict]) -> tuple[int, int]:
    """How many of them are sure (better or worse), and how many of those are when all pairs are taken together."""
    sure = [each for each in tested(every) if each.result and each.result.verdict != "cannot tell"]
    return len(sure), sum((each.holm or 0) <= 1 - statistics.LEVEL for each in sure)


def holm(p: Sequence[float]) -> np.ndarray:
    """[n], Holm's adjusted p: the chance that any of n pairs that do not differ is called so is at most each."""
    own = np.asarray(p, np.float64)
    order = np.argsort(own, kind="stable")
    found = np.empty(len(own))
    found[order] = np.minimum(1.0, np.maximum.accumulate(own[order] * np.arange(len(own), 0, -1)))
    return found


def _adjusted(every: Sequence[Verdict]) -> list[Verdict]:
    """With Holm's p of all pairs of the report that have enough seeds."""
    p = {
        number: each.result.p
        for number, each in enumerate(every)
        if each.result is not None and each.result.p is not None and min(each.used) >= statistics.LEAST
    }
    adjusted = dict(zip(p, holm(list(p.values())).tolist(), strict=True))
    return [dataclasses.replace(each, holm=adjusted.get(number)) for number, each in enumerate(every)]


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
    used, result, told = (len(first.values), len(second.values)), None, ""
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
            used, result = (len(both), len(both)), differences.compare_paired(*values, better=better)
    else:
        values = (np.asarray([value for *_, value in cell.values]) for cell in (first, second))
        result = differences.compare(*values, better=better, names=(first.group, second.group))
    return Verdict(
        metric=first.metric,
        which=first.which,
        task=first.task,
        first=first.group,
        second=second.group,
        n=(len(first.values), len(second.values)),
        only_first=tuple(seed for seed in one if seed not in two),
        only_second=tuple(seed for seed in two if seed not in one),
        used=used,
        result=result,
        told=told or (result.sentence if result else ""),
    )
