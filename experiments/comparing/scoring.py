"""A value for each run, and a cell for each group of runs on one task: its values and what they say."""

import collections
import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from agents import scores
from experiments.comparing.numbers import statistics
from experiments.comparing.runs import reading

LAST, BEST, AT = "last", "best", "at"
AT_X = "at_x"  # the frames or images of the value at `at`
UNKNOWN = "unknown"  # of a metric: whether higher or lower is better
RETURN = "eval/episode_return"  # which the published scores of random play and of a human tester go with


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
    """How to compare."""

    group: tuple[str, ...] | None = None  # None: by all that differs but the seed
    metrics: tuple[str, ...] | None = None  # names or patterns; None: what the runs keep their best checkpoint by
    at: int | None = None  # frames or images
    better: Literal["higher", "lower"] | None = None  # None: as the runs' checkpoint.better, or by the metric's name
    protocols: Literal["apart", "any"] = "apart"
    unfinished: Literal["apart", "counted"] = "apart"
    paired: bool = False
    published: tuple[str, ...] = ()  # names of `agents.scores.CURVES`
    reach: float | None = None  # the score whose cost is told; None: the least good of the groups' means


@dataclasses.dataclass(frozen=True, kw_only=True)
class Member:
    """One run with its place in the comparison."""

    folder: Path
    seed: Any
    group: str
    task: str
    protocol: str  # hash
    pool: str  # the runs averaged together have one: the protocol's hash, or any
    state: str
    reason: str
    unit: str
    reached: int
    budget: int
    resumed: tuple[int, ...]
    requeued: int
    lost_steps: int | None  # None: not known
    hours: float | None
    device_hours: float | None
    retry: str
    notes: tuple[str, ...]
    values: Mapping[str, Mapping[str, float | None]]  # metric -> last, best, at, at_x


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """One group of runs on one task, by one protocol: a metric's values and what they say."""

    metric: str
    which: str  # last, best or at
    group: str
    task: str
    protocol: str
    values: tuple[tuple[Any, Path, float], ...]  # seed, folder, value
    missing: tuple[tuple[Path, str], ...]  # runs of this group that have no value here, and why
    summary: statistics.Summary | None  # None: no run has a value
    human_normalised: float | None
    warnings: tuple[str, ...]


def member(
    run: reading.Run, *, group: str, task: str, protocol: str, metrics: Mapping[str, str], asked: Asked
) -> Member:
    return Member(
        folder=run.folder,
        seed=run.seed,
        group=group,
        task=task,
        protocol=protocol,
        pool=protocol if asked.protocols == "apart" else "any",
        state=run.state,
        reason=run.reason,
        unit=run.unit,
        reached=run.reached,
        budget=run.budget,
        resumed=run.resumed,
        requeued=run.requeued,
        lost_steps=run.lost_steps,
        hours=_finite(run.hours),
        device_hours=_finite(run.device_hours),
        retry=run.retry,
        notes=run.notes,
        values={name: _values(run.metrics.get(name), better, asked.at) for name, better in metrics.items()},
    )


def _values(series: reading.Series | None, better: str, at: int | None) -> dict[str, float | None]:
    """The last, the best, and the first at `at` or later, where the loop evaluates; None where there is none."""
    found: dict[str, float | None] = dict.fromkeys([LAST, BEST] + [AT, AT_X] * (at is not None))
    if series is None or not len(series.x):
        return found
    finite = series.values[np.isfinite(series.values)]
    found[LAST] = _finite(series.values[-1])
    if len(finite) and better != UNKNOWN:
        found[BEST] = float(finite.max() if better == "higher" else finite.min())
    if at is not None and (index := int(np.searchsorted(series.x, at))) < len(series.x):
        found[AT], found[AT_X] = _finite(series.values[index]), int(series.x[index])
    return found


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def cells(members: Sequence[Member], metrics: Mapping[str, str], asked: Asked) -> list[Cell]:
    together = collections.defaultdict[tuple[str, str, str], list[Member]](list)
    for member in members:
        together[member.group, member.task, member.pool].append(member)
    ways = [LAST, BEST] + [AT] * (asked.at is not None)
    return [
        _cell(inside, metric=metric, which=which, asked=asked)
        for metric in metrics
        for inside in together.values()
        for which in ways
        if which != BEST or metrics[metric] != UNKNOWN
        if any(value is not None for member in inside for value in member.values[metric].values())
    ]


def of_verdicts(asked: Asked) -> str:
    """Which values groups are compared by."""
    return LAST if asked.at is None else AT


def _cell(inside: Sequence[Member], *, metric: str, which: str, asked: Asked) -> Cell:
    values, missing = [], []
    for member in inside:
        value = member.values[metric][which]
        if reason := _apart(member, value, which, asked):
            missing.append((member.folder, reason))
        else:
            values.append((member.seed, member.folder, value))
    numbers = np.asarray([value for *_, value in values], np.float64)
    summary = statistics.summary(numbers) if len(numbers) else None
    first = inside[0]
    far = [x for member in inside if (x := member.values[metric].get(AT_X)) and x > 1.05 * (asked.at or x)]
    warnings = [f"first values from there on lie at up to {int(max(far)):,}"] if far and which == AT else []
    warnings += [*(summary.warnings if summary else ("no run has a value",)), *_of_members(inside, values)]
    normal = scores.human_normalised(first.task, summary.mean) if summary and metric == RETURN else None
    return Cell(
        metric=metric,
        which=which,
        group=first.group,
        task=first.task,
        protocol=first.pool,
        values=tuple(values),
        missing=tuple(missing),
        summary=summary,
        human_normalised=normal,
        warnings=tuple(warnings),
    )


def _apart(member: Member, value: float | None, which: str, asked: Asked) -> str:
    """Why a run's value is not among its group's; empty where it is."""
    told = ended(member)
    if which == AT and member.reached < (asked.at or 0):
        return told
    if which != AT and member.state != reading.DONE and asked.unfinished == "apart":
        return told
    if value is None:
        return "the value is not finite, or there is none" + f"; {told}" * (member.state != reading.DONE)
    return ""


def ended(member: Member) -> str:
    """How and where a run stands, and why."""
    where = f"{member.reached:,} of {member.budget:,} {member.unit}"
    return f"{member.state} at {where}{': ' * bool(member.reason)}{member.reason}"


def _of_members(inside: Sequence[Member], values: Sequence[tuple[Any, Path, float]]) -> list[str]:
    told = []
    counts = collections.Counter(str(seed) for seed, *_ in values)
    if again := [seed for seed, count in counts.items() if count > 1]:
        told.append(f"seed {', '.join(again)} more than once: such runs may not be independent, and n counts each")
    budgets = sorted({member.budget for member in inside})
    if len(budgets) > 1:
        told.append(f"budgets from {budgets[0]:,} to {budgets[-1]:,}: at=<number> compares at one")
    return told
