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
    summary: statistics.Summary


@dataclasses.dataclass(frozen=True)
class _Figure:
    """One number of one run's evaluation.json."""

    metric: str
    value: float
    protocol: Mapping[str, Any]  # flat, without the seed
    x: int


def make(members: Sequence[scoring.Member], asked: scoring.Asked) -> tuple[list[Final], list[str]]:
    """Of the runs that were evaluated; and what cannot be read, in lines."""
    together = collections.defaultdict[tuple[str, str, str, str], list[tuple[scoring.Member, _Figure]]](list)
    inside = collections.defaultdict[tuple[str, str], list[scoring.Member]](list)
    notes = []
    for member in members:
        inside[member.group, member.task].append(member)
        try:
            for figure in _read(member):
                pool = groups.digest(figure.protocol) if asked.protocols == "apart" else "any"
                together[figure.metric, member.group, member.task, pool].append((member, figure))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            notes.append(f"{member.folder / FILE}: cannot be read: {type(error).__name__}: {error}".partition("\n")[0])
    found = []
    for (metric, group, task, pool), pairs in together.items():
        apart = lambda member: member.state != reading.DONE and asked.unfinished == "apart"
        counted = [(member, figure) for member, figure in pairs if not apart(member)]
        if not counted:
            continue
        there = {member.folder for member, _ in pairs}
        missing = [(member.folder, scoring.ended(member)) for member, _ in pairs if apart(member)]
        missing += [(m.folder, "has no such evaluation") for m in inside[group, task] if m.folder not in there]
        seen = [figure.x for _, figure in counted]
        found.append(
            Final(
                metric=metric,
                group=group,
                task=task,
                protocol=pool,
                judged=counted[0][1].protocol,
                values=tuple((member.seed, member.folder, figure.value) for member, figure in counted),
                missing=tuple(missing),
                at=(min(seen), max(seen)),
                summary=statistics.summary(np.asarray([figure.value for _, figure in counted])),
            )
        )
    return found, notes


def table(found: Sequence[Final]) -> tuple[str, str, tuple[str, ...], tuple[tuple[Any, ...], ...]]:
    """What `tables.Table` takes."""
    columns = ("metric", "task", "group", "protocol", "n", "mean", "95 % interval", "median", "minimum", "maximum")
    columns += ("at", "judged by", "to know")
    rows = []
    for each in sorted(found, key=lambda each: (each.metric, each.task)):
        s = each.summary
        told = [*s.warnings, *(f"not in it: {folder}, {why}" for folder, why in each.missing)]
        at = " to ".join(f"{x:,}" for x in dict.fromkeys(each.at))
        judged = ", ".join(f"{name} {groups.shown(value)}" for name, value in each.judged.items())
        figures = (s.n, s.mean, s.mean_interval, s.median, s.minimum, s.maximum, at)
        rows.append((each.metric, each.task, each.group, each.protocol, *figures, judged, "; ".join(told)))
    return "evaluations", "Final evaluations, by experiments.evaluate", columns, tuple(rows)


def _read(member: scoring.Member) -> Iterator[_Figure]:
    """Raises OSError, ValueError and the like for a file that is none of ours."""
    try:
        content = orjson.loads((member.folder / FILE).read_bytes())
    except FileNotFoundError:
        return
    x = int(content[member.unit])
    if "agents" in content:
        trained = content["agents"]["trained"]
        parts = [({name: trained[key] for key, name in _AGENTS.items()}, trained["protocol"])]
    else:
        own = [part for part in content.values() if isinstance(part, dict) and "protocol" in part]
        parts = [
            ({name: value for name, value in part.items() if name != "protocol"}, part["protocol"]) for part in own
        ]
    for figures, protocol in parts:
        flat = {key: value for key, value in groups.flatten(protocol).items() if key.rpartition(".")[2] != "seed"}
        for name, value in figures.items():
            if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
                yield _Figure(f"final/{name}", float(value), flat, x)
