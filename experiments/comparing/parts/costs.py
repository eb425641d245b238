"""What models of images reached for what they cost: FID, KID, precision and recall beside hours, updates and images."""

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
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
    n: int  # runs that count; 0 where none does
    missing: tuple[tuple[Path, str], ...]  # runs of this group that do not, and why
    figures: Mapping[str, tuple[float, statistics.Interval]]  # metric -> mean of last values, 95 % t interval
    fewer: Mapping[str, int]  # metric -> of how many of the n runs its mean is, where that is not all
    hours: float | None  # means over the runs, at the last row of these figures; None where one does not say
    device_hours: float | None
    updates: float | None  # None where n is 0
    images: float | None
    sampler_steps: tuple[int, ...]  # of the runs; () where there is no sampler
    parameters: tuple[int, ...]  # that gradients move, of a GAN both players'; () of runs of before that was noted


def make(runs: Sequence[reading.Run], members: Sequence[scoring.Member], asked: scoring.Asked) -> list[Cost]:
    """Of the groups whose runs have one of `FIGURES` at least. `runs[i]` is the run of `members[i]`."""
    together = collections.defaultdict[tuple[str, str, str], list[int]](list)
    for number, member in enumerate(members):
        together[member.group, member.task, member.pool].append(number)
    found = []
    for (group, task, pool), numbers in together.items():
        if any(_ends(runs[n]) for n in numbers):
            why = {n: _apart(runs[n], members[n], asked) for n in numbers}
            missing = tuple((members[n].folder, told) for n, told in why.items() if told)
            kept = [runs[n] for n, told in why.items() if not told]
            found.append(_cost(kept, group=group, task=task, protocol=pool, missing=missing))
    return found


def _ends(run: reading.Run) -> dict[str, reading.Series]:
    """Those of `FIGURES` of which it has a row."""
    return {name: run.metrics[name] for name in FIGURES if name in run.metrics and len(run.metrics[name].x)}


def _apart(run: reading.Run, member: scoring.Member, asked: scoring.Asked) -> str:
    """Why a run is not among its group's; empty where it is."""
    if member.state != reading.DONE and asked.unfinished == "apart":
        return scoring.ended(member)
    return "" if _ends(run) else "has no row of these figures"


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
    columns += (
        "hours",
        "device hours",
        "updates",
        "images",
        "parameters",
        "sampler steps",
        "mean of fewer",
        "not counted",
    )
    rows = []
    for each in found:
        figures = [part for name in FIGURES for part in each.figures.get(name, (None, None))]
        steps = ", ".join(map(str, each.sampler_steps))
        sizes = each.parameters[0] if len(each.parameters) == 1 else ", ".join(f"{n:,}" for n in each.parameters)
        left = "; ".join(f"{folder}, {why}" for folder, why in each.missing)
        fewer = ", ".join(f"{name.removeprefix('eval/')} {n} of {each.n} runs" for name, n in each.fewer.items())
        costs = (each.hours, each.device_hours, each.updates, each.images, sizes, steps, fewer, left)
        rows.append((each.group, each.task, each.protocol, each.n, *figures, *costs))
    return "costs", "What models of images reached, and at what cost: means of last values", columns, tuple(rows)


def _cost(runs: Sequence[reading.Run], *, missing: tuple[tuple[Path, str], ...], **head: str) -> Cost:
    ends, figures, fewer = [_ends(run) for run in runs], {}, {}
    for name in FIGURES:
        values = np.asarray([own[name].values[-1] for own in ends if name in own], np.float64)
        finite = values[np.isfinite(values)]
        if len(finite):
            figures[name] = float(finite.mean()), statistics.mean_interval(finite)
        if len(values) and len(finite) < len(runs):
            fewer[name] = len(finite)
    last = [next(iter(own.values())) for own in ends]

    def mean(columns: list[np.ndarray]) -> float | None:
        found = float(np.mean([column[-1] for column in columns])) if columns else np.nan
        return found if np.isfinite(found) else None

    flat = [groups.flatten(dict(run.config)) for run in runs]
    steps = {next((own[key] for key in _STEPS if isinstance(own.get(key), int)), None) for own in flat}
    sizes = {n for run in runs if type(n := run.origin.get("parameters")) is int}
    return Cost(
        **head,
        n=len(runs),
        missing=missing,
        figures=figures,
        fewer=fewer,
        hours=mean([end.hours for end in last]),
        device_hours=mean([end.device_hours for end in last]),
        updates=mean([end.steps for end in last]),
        images=mean([end.x for end in last]),
        sampler_steps=tuple(sorted(each for each in steps if each is not None)),
        parameters=tuple(sorted(sizes)),
    )
