"""A verdict for each pair of groups on one task."""

import collections
import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
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


def too_many(every: Sequence[scoring.Cell], metrics: Mapping[str, str], asked: scoring.Asked) -> list[str]:
    """Notes on metrics and tasks with more than `MOST` pairs."""
    names = collections.defaultdict[tuple[str, str], list[str]](list)
    for cell in every:
        if cell.which == scoring.of_verdicts(asked):
            names[cell.metric, cell.task].append(cell.group)
    notes = []
    for (metric, task), own in names.items():
        if math.comb(len(own), 2) > MOST:
            count = len(set(own))
            several = f" by several protocols ({len(own):,} in all)" * (count < len(own))
            mean = "highest" if metrics[metric] == scoring.UNKNOWN else "best"
            notes.append(
                f"{metric} on {task}: {count:,} groups{several} make more than {MOST:,} pairs, so each is compared "
                f"with the one of the {mean} mean only, of those of its protocol with {statistics.LEAST} runs or more "
                "where there are such; luck may have chosen it. All pairs of fewer groups are (runs=, group=)"
            )
    return notes


def _chosen(own: Sequence[scoring.Cell], better: str) -> Iterator[tuple[scoring.Cell, scoring.Cell]]:
    """All pairs; of too many groups, each beside the best by its protocol."""
    if math.comb(len(own), 2) <= MOST:
        yield from itertools.combinations(own, 2)
        return
    alike = collections.defaultdict[str, list[scoring.Cell]](list)
    for cell in own:
        alike[cell.protocol].append(cell)
    for cells in alike.values():
        best = _best(cells, better)
        yield from ((best, cell) for cell in cells if cell is not best)


def _best(cells: Sequence[scoring.Cell], better: str) -> scoring.Cell:
    """Of the best mean (the highest, where no direction is known), of enough runs for a verdict if one has them."""
    sign = -1 if better == "lower" else 1

    def place(cell: scoring.Cell) -> tuple[bool, float]:
        return len(cell.values) >= statistics.LEAST, sign * cell.summary.mean if cell.summary else -math.inf

    return max(cells, key=place)


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
