"""Published learning curves laid beside the runs' own: never averaged with them, never tested against them."""

import collections
import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from agents import scores
from experiments.comparing import groups, scoring
from experiments.comparing.numbers import statistics
from experiments.comparing.runs import reading
from experiments.config import build

REACH = 0.9  # a run stands beside a published value if it has a value at this share of its frames or later


@dataclasses.dataclass(frozen=True, kw_only=True)
class Beside:
    """One group: each run's last evaluation that is not beyond the published frames."""

    group: str
    pool: str  # as `scoring.Member.pool`
    at: int  # published frames
    x: int  # least and most of ours
    most: int
    summary: statistics.Summary
    missing: int  # runs of the group that have no value from `REACH` on
    differs: tuple[str, ...]  # in which the protocols differ


@dataclasses.dataclass(frozen=True, kw_only=True)
class Published:
    """One agent's curve on one task; raw scores."""

    metric: str
    task: str
    name: str  # it is asked for by
    label: str
    protocol: str  # in words
    source: str
    axis: str  # of x
    x: np.ndarray  # [n] int64
    mean: np.ndarray  # [n] over runs
    std: np.ndarray | None  # [n] over runs; None of one run
    runs: int
    beside: tuple[Beside, ...]


def names(asked: Sequence[str] | str | bool | None) -> tuple[str, ...]:
    """What `published=` asks for. Raises ValueError for a name that is none of `scores.CURVES`."""
    if isinstance(asked, bool) or asked is None:
        return tuple(scores.CURVES) if asked else ()
    asked = [asked] if isinstance(asked, str) else asked
    for name in asked:
        if name not in scores.CURVES:
            raise ValueError(f"published={name}: no such curve; {build.nearest(name, scores.CURVES)}")
    return tuple(dict.fromkeys(asked))


def make(
    runs: Sequence[reading.Run],
    members: Sequence[scoring.Member],
    metrics: Collection[str],
    protocols: Mapping[str, Mapping[str, Any]],
    asked: Sequence[str],
) -> tuple[list[Published], list[str]]:
    """Those of the tasks that there are, and what is missing. `runs[i]` is the run of `members[i]`."""
    if not asked:
        return [], []
    if scoring.RETURN not in metrics:
        return [], [f"published curves are of {scoring.RETURN}, which this report does not show"]
    by_task = collections.defaultdict[str, list[int]](list)
    for number, member in enumerate(members):
        by_task[member.task].append(number)
    found, notes = [], []
    for task, numbers in by_task.items():
        known = {name: curve for name in asked if (curve := scores.curve(name, task)) is not None}
        if missing := [name for name in asked if name not in known]:
            notes.append(f"no published curve on {task} of {', '.join(missing)}")
        inside = [(runs[number], members[number]) for number in numbers if members[number].unit == "frames"]
        found += [_published(name, curve, task, _groups(inside), protocols) for name, curve in known.items()]
    return found, notes


def table(found: Sequence[Published]) -> tuple[str, str, tuple[str, ...], tuple[tuple[Any, ...], ...]]:
    """What `tables.Table` takes: every published value, with the groups that come near it."""
    columns = ("task", "published", "frames", "its mean", "its std", "its runs", "its protocol", "group", "protocol")
    columns += ("mean", "95 % interval", "n", "at frames", "to frames", "runs without a value")
    columns += ("protocols differ in", "source")
    rows = []
    for each in found:
        for place, x in enumerate(map(int, each.x)):
            std = None if each.std is None else float(each.std[place])
            head = (each.task, each.label, x, float(each.mean[place]), std, each.runs, each.protocol)
            ours = [own for own in each.beside if own.at == x]
            for own in ours:
                s = own.summary
                at = (own.x, own.most if own.most > own.x else None, own.missing or None)
                figures = (s.mean, s.mean_interval, s.n, *at, "; ".join(own.differs))
                rows.append((*head, own.group, own.pool, *figures, each.source))
            if not ours:
                rows.append((*head, *[None] * 9, each.source))
    title = f"Published curves beside {scoring.RETURN}: neither averaged nor tested with these runs"
    return "published", title, columns, tuple(rows)


_Group = tuple[scoring.Member, list[str], list[reading.Series | None]]  # one of it, protocols, the returns of each run


def _groups(inside: Sequence[tuple[reading.Run, scoring.Member]]) -> list[_Group]:
    """The runs of one task by group and protocol."""
    together = collections.defaultdict[tuple[str, str], list[tuple[reading.Run, scoring.Member]]](list)
    for run, member in inside:
        together[member.group, member.pool].append((run, member))
    return [
        (
            own[0][1],
            sorted({member.protocol for _, member in own}),
            [run.metrics.get(scoring.RETURN) for run, _ in own],
        )
        for own in together.values()
    ]


def _last(series: reading.Series | None, frames: int) -> tuple[int, float] | None:
    """(x, value) of the last row at or before `frames`; None where that is too early, or not finite."""
    if series is None:
        return None
    place = int(np.searchsorted(series.x, frames, "right")) - 1
    if place < 0 or series.x[place] < REACH * frames or not np.isfinite(series.values[place]):
        return None
    return int(series.x[place]), float(series.values[place])


def _published(
    name: str, curve: scores.Curve, task: str, every: Sequence[_Group], protocols: Mapping[str, Mapping[str, Any]]
) -> Published:
    study, several = curve.study, curve.runs > 1
    shown = lambda value: f"{value:g}" if value < 1e4 else f"{value:,}"
    played = ", ".join(f"{name} {shown(value)}" for name, value in study.protocol.items())
    beside = []
    for frames in curve.frames:
        for member, hashes, runs in every:
            last = [each for each in (_last(series, frames) for series in runs) if each]
            if last:
                at, values = zip(*last, strict=True)
                differs = tuple(dict.fromkeys(told for each in hashes for told in _differs(study, protocols[each])))
                beside.append(
                    Beside(
                        group=member.group,
                        pool=member.pool,
                        at=frames,
                        x=min(at),
                        most=max(at),
                        summary=statistics.summary(np.asarray(values)),
                        missing=len(runs) - len(last),
                        differs=differs,
                    )
                )
    return Published(
        metric=scoring.RETURN,
        task=task,
        name=name,
        label=curve.label,
        protocol=f"{study.score}; {played}; {f'mean of {curve.runs} runs' if several else 'one run'}",
        source=study.source,
        axis="frames",
        x=np.asarray(curve.frames, np.int64),
        mean=np.asarray(curve.mean),
        std=None if curve.std is None else np.asarray(curve.std),
        runs=curve.runs,
        beside=tuple(beside),
    )


def _differs(study: scores.Study, protocol: Mapping[str, Any]) -> list[str]:
    """In which a published protocol differs from that of our evaluations, as far as both say."""
    told = [] if study.score.startswith("evaluation") else ["training scores there, evaluations here"]
    for name, there in study.protocol.items():
        of_evaluators = [key for key in protocol if key.startswith("evaluators.") and key.endswith(f".{name}")]
        here = protocol.get(of_evaluators[0] if of_evaluators else name)
        if here is None:
            told.append(f"{name} {there:,} there, not said here")
        elif here != there:
            told.append(f"{name} {there:,} there, {groups.shown(here)} here")
    return told
