"""The report as tables of text and numbers."""

import collections
import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.comparing import groups, report, scoring
from experiments.comparing.parts import costs, finals, pairs, parameters, published, suites

SEEDS = 10  # of a group that are listed beside its mean; more are in a table of their own


@dataclasses.dataclass(frozen=True)
class Table:
    """`rows` hold text, numbers, None, and tuples of two numbers, which are intervals."""

    name: str  # of its file
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]

    def head(self, count: int) -> "Table":
        """The first rows, the title saying so where there are more."""
        if len(self.rows) <= count:
            return self
        told = f"{self.title}; the first {count} of {len(self.rows)}, all are in {self.name}.csv"
        return dataclasses.replace(self, title=told, rows=self.rows[:count])


def tables(found: report.Report) -> list[Table]:
    """Every table that has rows, in the order of the report."""
    every = [
        _differences(found),
        *_scores(found),
        *_pivots(found),
        _suites(found),
        _contests(found),
        _profiles(found),
        _verdicts(found),
        _efficiency(found),
        _without_empty(Table(*published.table(found.published))),
        _without_empty(Table(*finals.table(found.finals))),
        _without_empty(Table(*costs.table(found.costs))),
        *(_without_empty(Table(*each)) for each in parameters.tables(found.parameters)),
        _seeds(found),
        _protocols(found),
        _environments(found),
        _runs(found),
        _left_out(found),
    ]
    return _named_apart([table for table in every if table.rows])


def _named_apart(every: Sequence[Table]) -> list[Table]:
    """`eval/a-b` and `eval/a_b` would share a file."""
    seen = collections.Counter[str]()
    found = []
    for table in every:
        seen[name := table.name.lower()] += 1
        found.append(dataclasses.replace(table, name=table.name + f"-{seen[name]}" * (seen[name] > 1)))
    return found


def shown(cell: Any) -> str:
    """For a reader: four digits, no more than whole numbers have."""
    if cell is None:
        return ""
    if isinstance(cell, tuple):
        return f"[{shown(cell[0])}, {shown(cell[1])}]"
    if isinstance(cell, bool) or not isinstance(cell, int | float):
        return str(cell)
    if isinstance(cell, int):
        return f"{cell:,}"
    return f"{cell:,.0f}" if abs(cell) >= 1e4 and abs(cell) < 1e15 else f"{cell:.4g}"


def _differences(found: report.Report) -> Table:
    count = len(found.members)
    rows = []
    for each in (*found.chosen, *found.differences):
        counts = collections.Counter(map(groups.shown, each.values))
        listed = [f"{value} ({number})" for value, number in counts.items()]
        rows.append((each.key, ", ".join(listed), ", ".join(each.also)))
    title = f"What differs between the {count} runs, seeds and bookkeeping apart (number of runs)"
    return Table("differences", title, ("setting", "values", "likewise"), tuple(rows))


def _scores(found: report.Report) -> list[Table]:
    columns = ("group", "task", "protocol", "n", "mean", "95 % interval", "standard error", "median", "its interval")
    columns += ("IQM", "its interval ", "minimum", "maximum", "human-normalised", "seeds", "to know")
    made = []
    for metric in found.metrics:
        for which in dict.fromkeys(cell.which for cell in found.cells if cell.metric == metric):
            cells = [cell for cell in found.cells if (cell.metric, cell.which) == (metric, which)]
            where = f" {found.asked.at:,}" if which == scoring.AT and found.asked.at is not None else ""
            name = f"scores-{re.sub('[^A-Za-z0-9]+', '-', metric)}-{which}"
            made.append(Table(name, f"{metric}, {which}{where}", columns, tuple(_score(cell) for cell in cells)))
    return [_without_empty(table) for table in made]


def _score(cell: scoring.Cell) -> tuple[Any, ...]:
    told = list(cell.warnings)
    told += [f"not in it: {folder}, {why}" for folder, why in cell.missing]
    head = (cell.group, cell.task, cell.protocol)
    s = cell.summary
    if s is None:
        return (*head, 0, *[None] * 11, "; ".join(told))
    spread = (s.median, s.median_interval, s.iqm, s.iqm_interval, s.minimum, s.maximum)
    few = s.n <= SEEDS
    seeds = ", ".join(f"{seed}: {shown(value)}" for seed, _, value in cell.values) if few else "in seeds.csv"
    middle = (s.n, s.mean, s.mean_interval, s.standard_error, *spread, cell.human_normalised, seeds)
    return (*head, *middle, "; ".join(told))


def _pivots(found: report.Report) -> list[Table]:
    """Groups by tasks, where there are several tasks: mean, interval and n."""
    if len(found.tasks) < 2:
        return []
    made = []
    for metric in found.metrics:
        for which in dict.fromkeys(cell.which for cell in found.cells if cell.metric == metric):
            cells = [cell for cell in found.cells if (cell.metric, cell.which) == (metric, which)]
            rows = tuple(
                (group, *(_pivot([c for c in cells if (c.group, c.task) == (group, task)]) for task in found.tasks))
                for group in dict.fromkeys(cell.group for cell in cells)
            )
            name = f"pivot-{re.sub('[^A-Za-z0-9]+', '-', metric)}-{which}"
            made.append(Table(name, f"{metric}, {which}: mean, 95 % interval, n", ("group", *found.tasks), rows))
    return made


def _pivot(cells: Sequence[scoring.Cell]) -> str | None:
    """One cell for each protocol, since their numbers do not go together."""
    parts = []
    for cell in cells:
        if cell.summary is not None:
            interval = f" {shown(cell.summary.mean_interval)}" if cell.summary.mean_interval else ""
            by = f" (protocol {cell.protocol})" if len(cells) > 1 else ""
            parts.append(f"{shown(cell.summary.mean)}{interval} n={cell.summary.n}{by}")
    return "; ".join(parts) or None


def _suites(found: report.Report) -> Table:
    columns = ("group", "value", "games", "seeds a game", "median", "its interval", "IQM", "its interval ", "mean")
    columns += ("its interval  ", "optimality gap", "its interval   ", "over", "to know")
    rows = []
    for each in found.suites:
        f = each.figures
        seeds = str(f.fewest) if f.fewest == f.most else f"{f.fewest} to {f.most}"
        figures = (*f.median, *f.iqm, *f.mean, *f.optimality_gap)
        rows.append((each.group, each.which, f.tasks, seeds, *figures, ", ".join(each.games), "; ".join(f.warnings)))
    return _without_empty(Table("games", "Human-normalised, over games", columns, tuple(rows)))


def _contests(found: report.Report) -> Table:
    columns = (
        "group",
        "against",
        "games",
        "verdict",
        "difference of means",
        "95 % interval",
        "p",
        "difference of IQMs",
    )
    columns += ("its interval", "P(better)", "its interval ", "over", "games on one side")
    rows = []
    for each in found.contests:
        sides = [(each.second, each.only_second), (each.first, each.only_first)]
        alone = "; ".join(f"{', '.join(games)} ({name})" for name, games in sides if games)
        figures = (*each.mean, each.p, *each.iqm, *each.improvement)
        rows.append((each.second, each.first, len(each.games), each.told, *figures, ", ".join(each.games), alone))
    title = f"Verdicts over games, human-normalised, {_of_verdicts(found)}"
    return _without_empty(Table("games-verdicts", title, columns, tuple(rows)))


def _profiles(found: report.Report) -> Table:
    rows = []
    for each in found.profiles:
        over, alone = ", ".join(each.games), ", ".join(each.apart)
        for place in np.flatnonzero(np.isin(each.tau, suites.MARKS)):
            share = (float(each.share[place]), (float(each.low[place]), float(each.high[place])))
            rows.append((each.group, float(each.tau[place]), *share, over, alone))
    columns = ("group", "above", "share of runs", "95 % interval", "over", "games apart")
    title = f"Performance profiles: runs above a human-normalised score, {_of_verdicts(found)}"
    return _without_empty(Table("profiles", title, columns, tuple(rows)))


def _efficiency(found: report.Report) -> Table:
    """In every unit the median over seeds, with the soonest and the latest; empty where that is never."""
    units = list(dict.fromkeys(name for each in found.efficiency for name in each.costs))
    columns = ["metric", "task", "group", "protocol", "score", "reached", *units]
    columns += [f"{unit}: soonest and latest" for unit in units]
    rows = []
    for each in found.efficiency:
        costs = [each.costs.get(unit, (None, None, None)) for unit in units]
        head = (each.metric, each.task, each.group, each.protocol, each.threshold, f"{each.reached} of {each.n}")
        spans = [None if low is None else f"{shown(low)} to {shown(high) or 'never'}" for _, low, high in costs]
        never = "; ".join(f"seed {groups.shown(seed)} ({folder}): {told}" for seed, folder, told in each.never)
        rows.append((*head, *(median for median, *_ in costs), *spans, never))
    title = "How soon runs reach a score: medians over all seeds, empty where half of them never do"
    return _without_empty(Table("efficiency", title, (*columns, "never"), tuple(rows)))


def _verdicts(found: report.Report) -> Table:
    columns = (
        "metric",
        "task",
        "group",
        "against",
        "verdict",
        "difference",
        "95 % interval",
        "p",
        "p by Holm",
        "P(better)",
    )
    columns += ("its interval", "n", "n against", "test", "seeds on one side")
    rows, several = [], len(pairs.tested(found.verdicts)) > 1
    for each in found.verdicts:
        r, sides = each.result, []
        for name, seeds in ((each.second, each.only_second), (each.first, each.only_first)):
            sides += [f"{', '.join(map(str, seeds))} ({name})"] * bool(seeds)
        p = (r.p, each.holm if several else None) if r else (None, None)
        figures = (r.difference, r.interval, *p, r.improvement, r.improvement_interval) if r else (None,) * 6
        head = (each.metric, each.task, each.second, each.first, each.told)
        rows.append((*head, *figures, *each.n[::-1], r.test if r else None, "; ".join(sides)))
    return _without_empty(Table("verdicts", f"Verdicts, {_of_verdicts(found)}", columns, tuple(rows)))


def _of_verdicts(found: report.Report) -> str:
    return f"at {found.asked.at:,}" if found.asked.at is not None else "last values"


def _seeds(found: report.Report) -> Table:
    rows = [
        (cell.metric, cell.which, cell.group, cell.task, str(seed), value, str(folder))
        for cell in found.cells
        for seed, folder, value in cell.values
    ]
    return Table("seeds", "Every seed", ("metric", "value", "group", "task", "seed", "score", "folder"), tuple(rows))


def _environments(found: report.Report) -> Table:
    rows = []
    for each in found.environments:
        counts = collections.Counter(map(groups.shown, each.values))
        rows += [(each.key, value, number) for value, number in counts.items()]
    return Table(
        "environments", "Code, hardware and packages, where they differ", ("what", "value", "runs"), tuple(rows)
    )


def _protocols(found: report.Report) -> Table:
    """In what those of one task differ."""
    rows = []
    for task in found.tasks:
        counts = collections.Counter(member.protocol for member in found.members if member.task == task)
        for key in groups.protocol_differences([found.protocols[name] for name in counts]):
            rows += [
                (task, name, key, groups.shown(found.protocols[name].get(key)), number)
                for name, number in counts.items()
            ]
    columns = ("task", "protocol", "what", "value", "runs")
    return Table("protocols", "Protocols, where those of a task differ", columns, tuple(rows))


def _runs(found: report.Report) -> Table:
    columns = ("folder", "group", "task", "seed", "state", "why", "to go on", "reached", "budget", "unit", "hours")
    columns += ("device-hours", "resumed", "requeued", "steps lost", "protocol", "notes")
    rows = tuple(
        (
            *(str(m.folder), m.group, m.task, str(m.seed), m.state, m.reason, m.retry, m.reached, m.budget, m.unit),
            *(m.hours, m.device_hours, len(m.resumed), m.requeued, m.lost_steps, m.protocol, "; ".join(m.notes)),
        )
        for m in found.members
    )
    return Table("runs", "Runs", columns, rows)


def _left_out(found: report.Report) -> Table:
    rows = tuple((str(each.folder), each.reason, each.retry) for each in found.left_out)
    return _without_empty(Table("left_out", "Left out", ("folder", "why", "to go on"), rows))


def _without_empty(table: Table) -> Table:
    """Without columns that say nothing."""
    kept = [i for i in range(len(table.columns)) if any(row[i] not in (None, "") for row in table.rows)]
    pick = lambda row: tuple(row[i] for i in kept)
    return dataclasses.replace(table, columns=pick(table.columns), rows=tuple(map(pick, table.rows)))
