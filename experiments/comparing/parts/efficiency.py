"""How soon the runs of a group reach a score: in frames or images, hours and device-hours.

A run has reached it at its first row that is as good. A run that never was is not left out: it counts as later than
all others, so a median over seeds is none where half of the seeds or more have not been there.
"""

import collections
import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.comparing import scoring
from experiments.comparing.parts import curves
from experiments.comparing.runs import reading


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reach:
    """One group of runs on one task, by one protocol."""

    metric: str
    group: str
    task: str
    protocol: str
    threshold: float
    asked: bool  # else it is the least good of the groups' means
    n: int
    reached: int
    # frames, images, hours or device hours -> over seeds (median, the soonest, the latest); None: never
    costs: Mapping[str, tuple[float | None, float, float | None]]
    never: tuple[tuple[Any, Path, str], ...]  # seed, folder, how far it came


def make(
    runs: Sequence[reading.Run],
    members: Sequence[scoring.Member],
    metrics: Mapping[str, str],
    cells: Sequence[scoring.Cell],
    asked: scoring.Asked,
) -> list[Reach]:
    """`runs[i]` is the run of `members[i]`; of metrics whose direction is known."""
    together = collections.defaultdict[tuple[str, str, str, str], list[int]](list)
    for number, member in enumerate(members):
        for metric, better in metrics.items():
            if better != scoring.UNKNOWN:
                together[metric, member.task, member.pool, member.group].append(number)
    found = []
    for (metric, task, pool, group), numbers in together.items():
        threshold = asked.reach
        if threshold is None:
            threshold = _least(cells, metric=metric, task=task, protocol=pool, better=metrics[metric], asked=asked)
        if threshold is None or not any(curves.has(runs[number], metric) for number in numbers):
            continue
        own = [(runs[number], members[number]) for number in numbers]
        reach = lambda run, metric=metric, least=threshold: first(run.metrics[metric].values, least, metrics[metric])
        at = [reach(run) if curves.has(run, metric) else None for run, _ in own]
        found.append(
            Reach(
                metric=metric,
                group=group,
                task=task,
                protocol=pool,
                threshold=threshold,
                asked=asked.reach is not None,
                n=len(own),
                reached=sum(index is not None for index in at),
                costs=_costs([run for run, _ in own], metric, at),
                never=tuple(
                    (member.seed, member.folder, scoring.ended(member))
                    for (_, member), index in zip(own, at, strict=True)
                    if index is None
                ),
            )
        )
    return found


def first(values: np.ndarray, threshold: float, better: str) -> int | None:
    """Of which row of [n] is the first as good as `threshold`."""
    good = values >= threshold if better == "higher" else values <= threshold  # NaN is neither
    return int(np.argmax(good)) if good.any() else None


def _least(
    cells: Sequence[scoring.Cell], *, metric: str, task: str, protocol: str, better: str, asked: scoring.Asked
) -> float | None:
    """The least good of the groups' means, by last values or those at `at`; None where there is none."""
    of = (metric, task, protocol, scoring.of_verdicts(asked))
    own = [cell for cell in cells if (cell.metric, cell.task, cell.protocol, cell.which) == of]
    means = [cell.summary.mean for cell in own if cell.summary is not None]
    return (min(means) if better == "higher" else max(means)) if means else None


def _costs(
    runs: Sequence[reading.Run], metric: str, at: Sequence[int | None]
) -> dict[str, tuple[float | None, float, float | None]]:
    """By axis; without those that a run which was there lacks, and without all where no run was there."""
    found = {}
    every = [curves.axes(run, metric) if k is not None else {} for run, k in zip(runs, at, strict=True)]
    there = [own for own in every if own]
    for name in there[0] if there else ():
        if name != curves.UPDATES and all(name in own for own in there):
            costs = [math.inf if k is None else float(own[name][k]) for own, k in zip(every, at, strict=True)]
            if math.isfinite(min(costs)):
                found[name] = (_finite(float(np.median(costs))), min(costs), _finite(max(costs)))
    return found


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
