"""The comparison as data: a value for each run, a cell for each group of runs, a verdict for each pair of groups."""

import collections
import contextlib
import dataclasses
import fnmatch
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from experiments.comparing import directions, groups, scoring
from experiments.comparing.parts import costs, curves, efficiency, finals, pairs, parameters, published, suites
from experiments.comparing.runs import reading
from experiments.config import build


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """All that the tables show."""

    asked: scoring.Asked
    keys: tuple[str, ...]  # that make the groups
    metrics: Mapping[str, str]  # name -> higher or lower is better, or unknown
    others: tuple[str, ...]  # metrics that the runs have and the report does not show
    labels: Mapping[str, Mapping[str, Any]]  # group -> its keys' values, in the order of the report
    tasks: tuple[str, ...]
    members: tuple[scoring.Member, ...]
    left_out: tuple[reading.LeftOut, ...]
    chosen: tuple[groups.Difference, ...]  # the choices of groups (`learner`) that differ
    differences: tuple[groups.Difference, ...]  # the settings that do
    environments: tuple[groups.Difference, ...]
    protocols: Mapping[str, Mapping[str, Any]]
    cells: tuple[scoring.Cell, ...]
    curves: tuple[curves.Curve, ...]
    published: tuple[published.Published, ...]
    costs: tuple[costs.Cost, ...]
    parameters: tuple[parameters.Parameter, ...]
    finals: tuple[finals.Final, ...]
    verdicts: tuple[pairs.Verdict, ...]
    contests: tuple[suites.Contest, ...]
    profiles: tuple[suites.Profile, ...]
    suites: tuple[suites.Suite, ...]
    efficiency: tuple[efficiency.Reach, ...]
    notes: tuple[str, ...]


def make(runs: Sequence[reading.Run], left_out: Sequence[reading.LeftOut], asked: scoring.Asked) -> Report:
    """Raises build.ConfigError for a group or a metric that no run has."""
    runs, copies = _without_copies(runs)
    table = groups.Table(runs)
    keys = table.default_keys() if asked.group is None else list(asked.group)
    every = table.labels(keys)
    names = [", ".join(f"{k}={groups.shown(v)}" for k, v in own.items()) or "all runs" for own in every]
    metrics = _metrics(runs, asked)
    protocols = [groups.protocol(run) for run in runs]
    members = [
        scoring.member(run, group=name, task=task, protocol=groups.digest(protocol), metrics=metrics, asked=asked)
        for run, name, task, protocol in zip(runs, names, table.tasks, protocols, strict=True)
    ]
    labels = dict(zip(names, every, strict=True))
    order = _order(members, labels)
    members = [members[number] for number in order]
    in_order = lambda found: tuple(
        dataclasses.replace(each, values=tuple(each.values[number] for number in order)) for each in found
    )
    every_cell, differences = scoring.cells(members, metrics, asked), in_order(table.differences())
    known = {groups.digest(protocol): protocol for protocol in protocols}
    ordered = [runs[number] for number in order]
    laid, missing = published.make(ordered, members, metrics, known, asked.published)
    verdicts = pairs.verdicts(every_cell, metrics, known, asked)
    normalised = suites.Scores(every_cell, known)
    shown = {*metrics} | {"step", "seconds"}
    evaluated, unreadable = finals.make(members, asked)
    return Report(
        asked=asked,
        keys=tuple(keys),
        metrics=metrics,
        others=tuple(sorted({name for run in runs for name in run.names} - shown)),
        labels={member.group: labels[member.group] for member in members},
        tasks=tuple(dict.fromkeys(member.task for member in members)),
        members=tuple(members),
        left_out=(*left_out, *copies),
        chosen=in_order(table.chosen()),
        differences=differences,
        environments=in_order(_environments(table)),
        protocols=known,
        cells=tuple(every_cell),
        curves=tuple(curves.make(ordered, members, tuple(metrics))),
        published=tuple(laid),
        costs=tuple(costs.make(ordered, members, asked)),
        finals=tuple(evaluated),
        parameters=tuple(parameters.make(every_cell, differences, members)),
        verdicts=tuple(verdicts),
        suites=tuple(normalised.suites()),
        contests=tuple(normalised.contests(scoring.of_verdicts(asked), paired=asked.paired)),
        profiles=tuple(normalised.profiles(scoring.of_verdicts(asked))),
        efficiency=tuple(efficiency.make(ordered, members, metrics, every_cell, asked)),
        notes=(
            *_notes(members, known, asked),
            *_of_verdicts(verdicts, metrics),
            *pairs.too_many(every_cell, metrics, asked),
            *normalised.notes(scoring.of_verdicts(asked), paired=asked.paired),
            *missing,
            *unreadable,
        ),
    )


def direction(metric: str, runs: Iterable[reading.Run]) -> str:
    """Higher, lower or unknown: as the runs keep their best checkpoint by it, or else by its name."""
    asked = [run.config.get("checkpoint") for run in runs]
    told = {node.get("better") for node in asked if isinstance(node, dict) and node.get("metric") == metric}
    if len(told) == 1 and told <= {"higher", "lower"}:
        return str(told.pop())
    return directions.of(metric)


def _without_copies(runs: Sequence[reading.Run]) -> tuple[list[reading.Run], list[reading.LeftOut]]:
    """Without folders whose settings and rows are those of another: had it run again, its seconds would differ."""
    first: dict[tuple[str, str], reading.Run] = {}
    digests = collections.Counter(run.digest for run in runs)
    copies = []
    for run in runs:
        settings = groups.canonical([run.config, run.protocol]) if digests[run.digest] > 1 else ""
        same = first.setdefault((run.digest, settings), run)
        if same is not run:
            copies.append(
                reading.LeftOut(folder=run.folder, reason=f"a copy of {same.folder}: the same settings and rows")
            )
    return list(first.values()), copies


def _metrics(runs: Sequence[reading.Run], asked: scoring.Asked) -> dict[str, str]:
    there = sorted({name for run in runs for name in run.names})
    if asked.metrics is None:
        nodes = [run.config.get("checkpoint") for run in runs]
        names = list(dict.fromkeys(node.get("metric") for node in nodes if isinstance(node, dict)))
        names = [name for name in names if name in there]
        names = names or [name for name in there if name.startswith("eval/")]
        if not names:
            raise build.ConfigError("metric", f": no evaluation is in these runs; name one of {', '.join(there)}")
    else:
        names = []
        for pattern in asked.metrics:
            found = fnmatch.filter(there, pattern)
            if not found:
                raise build.ConfigError("metric", f"={pattern}: no run has it; {build.nearest(pattern, there)}")
            names += [name for name in found if name not in names]
    return {name: asked.better or direction(name, runs) for name in names}


def _order(members: Sequence[scoring.Member], labels: Mapping[str, Mapping[str, Any]]) -> list[int]:
    """Of the members' numbers: groups nest in the order of their keys, numbers by size."""

    def place(value: Any) -> tuple[int, float, str]:
        with contextlib.suppress(OverflowError):  # of an integer
            if isinstance(value, int | float) and not isinstance(value, bool):
                return 0, float(value), ""
        return 1, 0.0, groups.shown(value)

    def key(number: int) -> tuple[Any, ...]:
        m = members[number]
        return [place(v) for v in labels[m.group].values()], m.task, m.protocol, place(m.seed), str(m.folder)

    return sorted(range(len(members)), key=key)


def _environments(table: groups.Table) -> list[groups.Difference]:
    """Code, hardware and packages, where they differ."""
    left = (
        "step",
        "parameters",
        "command",
        "git.branch",
        "hardware.host",
        "hardware.memory_bytes",
        "hardware.usable_cores",
    )
    keys = [key for key in table.keys if key.startswith(f"{groups.ORIGIN}.")]
    keys = [key for key in keys if not key.removeprefix(f"{groups.ORIGIN}.").startswith(left)]
    found = [groups.Difference(key.removeprefix(f"{groups.ORIGIN}."), table.values(key)) for key in keys]
    return [each for each in found if len(set(map(groups.canonical, each.values))) > 1]


def _of_verdicts(verdicts: Sequence[pairs.Verdict], metrics: Mapping[str, str]) -> list[str]:
    notes = []
    if (count := len(pairs.tested(verdicts))) > 1:
        sure, stand = pairs.standing(verdicts)
        notes.append(
            f"{sure} of {count} pairs are told apart, each tested by itself; {stand} of them with Holm's correction "
            f"for {count} pairs, which keeps the chance of any false one at 5 %"
        )
    if unclear := [name for name, better in metrics.items() if better == scoring.UNKNOWN]:
        notes.append(
            f"no direction is known of {', '.join(unclear)}: no best value, and verdicts say higher or lower. "
            "better=higher or better=lower says which is better"
        )
    return notes


def _notes(
    members: Collection[scoring.Member], protocols: Mapping[str, Mapping[str, Any]], asked: scoring.Asked
) -> list[str]:
    """What a reader has to know beside the tables."""
    notes = []
    together = collections.defaultdict[tuple[str, str], set[str]](set)
    for member in members:
        together[member.group, member.task].add(member.pool)
    for (group, task), hashes in together.items():
        if len(hashes) > 1:
            keys = groups.protocol_differences([protocols[each] for each in sorted(hashes)])
            values = "; ".join(f"{key}: {' / '.join(map(groups.shown, each))}" for key, each in keys.items())
            notes.append(
                f"{group} on {task}: {len(hashes)} protocols, not averaged together ({values}); protocols=any does"
            )
    if asked.protocols == "any" and len(protocols) > 1:
        notes.append("protocols=any: runs are averaged and compared though their protocols differ")
    going = [member for member in members if member.state != reading.DONE]
    if going and asked.unfinished == "apart":
        least = min(member.reached for member in members)
        notes.append(
            f"{len(going)} of {len(members)} runs have not reached their budget: their last and best values are apart, "
            "so the others' may flatter a group of which runs fail. unfinished=counted counts them; all runs have "
            f"reached at={least}"
        )
    if without := [m for m in members if not any(v is not None for own in m.values.values() for v in own.values())]:
        notes.append(f"no value of these metrics in {', '.join(str(member.folder) for member in without)}")
    if len({member.unit for member in members}) > 1:
        notes.append("some runs count frames, others images")
    return notes
