"""What models of images reached for what they cost: FID, KID, precision and recall beside hours, updates and images."""

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.comparing import groups, scoring
from experiments.comparing.numbers import statistics
from experiments.comparing.runs import reading

FIGURES = ("eval/fid", "eval/kid", "eval/precision", "eval/recall")
_STEPS = ("evaluators.quality.sampler.steps", "learner.sampler.steps")  # the first that says a number counts


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cost:
    """One group of runs on one task, by one protocol."""

    group: str
    task: str
    protocol: str
    n: int  # runs that count
    missing: int  # runs that are not done and do not
    figures: Mapping[str, tuple[float, statistics.Interval]]  # metric -> mean of last values, 95 % t interval
    hours: float | None  # means over the runs, at the last row of these figures; None where one does not say
    device_hours: float | None
    updates: float
    images: float
    sampler_steps: tuple[int, ...]  # of the runs; () where there is no sampler


def make(runs: Sequence[reading.Run], members: Sequence[scoring.Member], asked: scoring.Asked) -> list[Cost]:
    """Of the groups whose runs have one of `FIGURES` at least. `runs[i]` is the run of `members[i]`."""
    together = collections.defaultdict[tuple[str, str, str], list[int]](list)
    for number, (run, member) in enumerate(zip(runs, members, strict=True)):
        if any(name in run.metrics and len(run.metrics[name].x) for name in FIGURES):
            together[member.group, member.task, member.pool].append(number)
    found = []
    for (group, task, pool), numbers in together.items():
        counted = [n for n in numbers if members[n].state == reading.DONE or asked.unfinished == "counted"]
        if counted:
            kept = [runs[n] for n in counted]
            left = len(numbers) - len(counted)
            found.append(_cost(kept, group=group, task=task, protocol=pool, missing=left))
    return found


def table(found: Sequence[Cost]) -> tuple[str, str, tuple[str, ...], tuple[tuple[Any, ...], ...]]:
    """What `tables.Table` takes."""
    names = [name.removeprefix("eval/") for name in FIGURES]
    intervals = [f"its interval{' ' * place}" for place in range(len(names))]
    columns = (
        "group",
        "task",
        "protocol",
        "n",
        *(each for both in zip(names, intervals, strict=True) for each in both),
    )
    columns += ("hours", "device hours", "updates", "images", "sampler steps", "not counted")
    rows = []
    for each in found:
        figures = [part for name in FIGURES for part in each.figures.get(name, (None, None))]
        steps = ", ".join(map(str, each.sampler_steps))
        left = f"{each.missing} runs that are not done" if each.missing else ""
        costs = (each.hours, each.device_hours, each.updates, each.images, steps, left)
        rows.append((each.group, each.task, each.protocol, each.n, *figures, *costs))
    return "costs", "What models of images reached, and at what cost: means of last values", columns, tuple(rows)


def _cost(runs: Sequence[reading.Run], *, missing: int, **head: str) -> Cost:
    figures = {}
    for name in FIGURES:
        last = [run.metrics[name].values[-1] for run in runs if name in run.metrics and len(run.metrics[name].x)]
        values = np.asarray(last, np.float64)
        values = values[np.isfinite(values)]
        if len(values):
            figures[name] = float(values.mean()), statistics.mean_interval(values)
    ends = [
        next(run.metrics[name] for name in FIGURES if name in run.metrics and len(run.metrics[name].x)) for run in runs
    ]
    mean = lambda each: float(np.mean([float(column[-1]) for column in each]))
    known = lambda value: value if np.isfinite(value) else None
    flat = [groups.flatten(dict(run.config)) for run in runs]
    steps = {next((own[key] for key in _STEPS if isinstance(own.get(key), int)), None) for own in flat}
    return Cost(
        **head,
        n=len(runs),
        missing=missing,
        figures=figures,
        hours=known(mean(end.hours for end in ends)),
        device_hours=known(mean(end.device_hours for end in ends)),
        updates=mean(end.steps for end in ends),
        images=mean(end.x for end in ends),
        sampler_steps=tuple(sorted(each for each in steps if each is not None)),
    )
