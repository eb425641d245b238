"""Final evaluations: what `experiments.evaluate` left in the runs' folders, over seeds.

Its figures are not those of the rows: other numbers of episodes or samples, the test split, one checkpoint. So they
have names of their own, `final/<name>`, and protocols of their own; unlike ones are not averaged.
"""

import collections
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from core import files
from experiments.comparing import groups, scoring
from experiments.comparing.numbers import statistics
from experiments.comparing.runs import reading

FILE = "evaluation.json"  # as `experiments.evaluation.command` writes it
_AGENTS = {"mean": "episode_return", "human_normalised": "human_normalised"}  # of an agent's figures those that count


@dataclasses.dataclass(frozen=True, kw_only=True)
class Final:
    """One figure of one group of runs on one task, by one protocol."""

    metric: str
    group: str
    task: str
    protocol: str  # hash
    judged: Mapping[str, Any]  # the protocol of the first of them
    values: tuple[tuple[Any, Path, float], ...]  # seed, folder, value
    missing: tuple[tuple[Path, str], ...]  # runs of this group that have no value here, and why
    at: tuple[int, int]  # least and most frames or images that the judged checkpoints had seen
    summary: statistics.Summary | None  # None: no run counts


@dataclasses.dataclass(frozen=True)
class _Figure:
    """One number of one run's evaluation.json."""

    part: str  # trained, held_out, likelihood, quality
    name: str
    value: float
    protocol: Mapping[str, Any]  # flat, without the seed
    x: int


_Pair = tuple[scoring.Member, _Figure]


def make(members: Sequence[scoring.Member], asked: scoring.Asked) -> tuple[list[Final], list[str]]:
    """Of the runs that were evaluated; and what cannot be read, in lines.

    A name that several parts of the files have (`bits_per_dim`) has the part in it: `final/held_out/bits_per_dim`.
    """
    every, notes = list[_Pair](), []
    for member in members:
        try:
            every += [(member, figure) for figure in list(_read(member))]
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            told = error.strerror if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
            notes.append(f"{member.folder / FILE}: cannot be read: {told}".partition("\n")[0])
    parts = collections.defaultdict[str, set[str]](set)
    together = collections.defaultdict[tuple[str, str, str, str], list[_Pair]](list)
    for _, figure in every:
        parts[figure.name].add(figure.part)
    for member, figure in every:
        metric = f"{figure.part}/{figure.name}" if len(parts[figure.name]) > 1 else figure.name
        pool = groups.digest(figure.protocol) if asked.protocols == "apart" else "any"
        together[f"final/{metric}", member.group, member.task, pool].append((member, figure))
    inside = collections.defaultdict[tuple[str, str], list[scoring.Member]](list)
    for member in members:
        inside[member.group, member.task].append(member)
    return [_final(key, pairs, inside[key[1], key[2]], asked) for key, pairs in together.items()], notes


def _final(
    key: tuple[str, str, str, str], pairs: Sequence[_Pair], inside: Sequence[scoring.Member], asked: scoring.Asked
) -> Final:
    """Of all runs that have this figure by this protocol, among all `inside` their group."""
    metric, group, task, pool = key
    apart = lambda member: member.state != reading.DONE and asked.unfinished == "apart"
    counted = [(member, figure) for member, figure in pairs if not apart(member)]
    there = {member.folder for member, _ in pairs}
    missing = [(member.folder, scoring.ended(member)) for member, _ in pairs if apart(member)]
    missing += [(member.folder, "has no such evaluation") for member in inside if member.folder not in there]
    judged = [figure for _, figure in counted or pairs]
    values = np.asarray([figure.value for _, figure in counted])
    return Final(
        metric=metric,
        group=group,
        task=task,
        protocol=pool,
        judged=judged[0].protocol,
        values=tuple((member.seed, member.folder, figure.value) for member, figure in counted),
        missing=tuple(missing),
        at=(min(figure.x for figure in judged), max(figure.x for figure in judged)),
        summary=statistics.summary(values) if len(values) else None,
    )


def table(found: Sequence[Final]) -> tuple[str, str, tuple[str, ...], tuple[tuple[Any, ...], ...]]:
    """What `tables.Table` takes."""
    columns = ("metric", "task", "group", "protocol", "n", "mean", "95 % interval", "median", "minimum", "maximum")
    columns += ("at", "judged by", "to know")
    rows = []
    for each in sorted(found, key=lambda each: (each.metric, each.task)):
        s = each.summary
        told = [
            *(s.warnings if s else ["no run has a value"]),
            *(f"not in it: {folder}, {why}" for folder, why in each.missing),
        ]
        at = " to ".join(f"{x:,}" for x in dict.fromkeys(each.at))
        judged = ", ".join(f"{name} {groups.shown(value)}" for name, value in each.judged.items())
        figures = (s.n, s.mean, s.mean_interval, s.median, s.minimum, s.maximum) if s else (0, *[None] * 5)
        rows.append((each.metric, each.task, each.group, each.protocol, *figures, at, judged, "; ".join(told)))
    return "evaluations", "Final evaluations, by experiments.evaluate", columns, tuple(rows)


def _read(member: scoring.Member) -> Iterator[_Figure]:
    """Raises OSError, ValueError and the like for a file that is none of ours."""
    try:
        content = orjson.loads(files.read(member.folder / FILE))
    except FileNotFoundError:
        return
    x = int(content[member.unit])
    if "agents" in content:
        trained = content["agents"]["trained"]
        parts = {"trained": {"protocol": trained["protocol"]} | {name: trained[key] for key, name in _AGENTS.items()}}
    else:
        parts = {key: part for key, part in content.items() if isinstance(part, dict) and "protocol" in part}
    for part, figures in parts.items():
        flat = groups.flatten(figures["protocol"])
        flat = {key: value for key, value in flat.items() if key.rpartition(".")[2] != "seed"}
        for name, value in figures.items():
            if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
                yield _Figure(part, name, float(value), flat, x)
