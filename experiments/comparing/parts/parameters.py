"""A metric against each setting that differs: its values at each level, and how much of its variance that explains.

All other settings are marginal: each level pools whatever else its runs differ in. The share of variance is ε², the
share η² of a one-way analysis of variance less what as many levels explain by chance (Kelley 1935), at least 0. It is
of each setting alone: shares of several need not add up to that of all together, and settings that move together
cannot be told apart.
"""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.comparing import groups, scoring
from experiments.comparing.numbers import statistics
from experiments.comparing.runs import rows

ALL = "all of them together"  # the key of the row whose levels are the combinations of all settings
LEVELS, BINS = 8, 4  # numbers with more levels are put into so many bins of about equal counts
SPARE = 3  # runs that there are more than levels, at least, for a share of variance
TOGETHER = 0.5  # Cramér's V from which settings are said to move together
MOST = 60  # settings of which that is looked at


@dataclasses.dataclass(frozen=True, kw_only=True)
class Level:
    """The runs of one value, or of one bin of values."""

    value: str
    number: float | None  # the value, or the middle of its bin; None where it is no number
    n: int
    mean: float
    interval: statistics.Interval  # Student's, 95 %
    median: float
    minimum: float
    maximum: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parameter:
    """One setting against one metric on one task, by one protocol."""

    metric: str
    which: str  # last or at
    task: str
    protocol: str
    key: str
    also: tuple[str, ...]  # settings of the same values in every run
    together: tuple[str, ...]  # settings that change with it, if not always
    runs: int
    levels: tuple[Level, ...]
    share: float | None  # ε²; None where there are too few runs
    raw: float | None  # η²
    told: str


def make(
    cells: Sequence[scoring.Cell],
    differences: Sequence[groups.Difference],
    members: Sequence[scoring.Member],
) -> list[Parameter]:
    """Of the values that the tables show. `differences` have their values in the order of `members`."""
    place = {member.folder: number for number, member in enumerate(members)}
    which = scoring.AT if any(cell.which == scoring.AT for cell in cells) else scoring.LAST
    values: dict[tuple[str, str, str], list[tuple[int, float]]] = {}
    for cell in cells:
        if cell.which == which:
            own = values.setdefault((cell.metric, cell.task, cell.protocol), [])
            own += [(place[folder], value) for _, folder, value in cell.values]
    found = []
    for (metric, task, protocol), pairs in values.items():
        numbers, scores = [number for number, _ in pairs], np.asarray([value for _, value in pairs])
        every = [(each, _levels([each.values[number] for number in numbers])) for each in differences]
        swept = [(each, own) for each, own in every if len(own[0]) > 1]
        near = _near([(each.key, codes) for each, (_, _, codes) in swept])
        head = {"metric": metric, "which": which, "task": task, "protocol": protocol}
        found += [
            _parameter(scores, own, key=each.key, also=each.also, together=near.get(each.key, ()), **head)
            for each, own in swept
        ]
        if len(swept) > 1:
            columns = np.stack([codes for _, (*_, codes) in swept])
            _, codes = np.unique(columns, axis=1, return_inverse=True)
            count = int(codes.max()) + 1
            own = ([""] * count, list[float | None]([None] * count), codes.ravel())
            found.append(_parameter(scores, own, key=ALL, also=(), together=(), **head))
    return found


def tables(found: Sequence[Parameter]) -> list[tuple[str, str, tuple[str, ...], tuple[tuple[Any, ...], ...]]]:
    """What `tables.Table` takes: the levels, and the shares of variance."""
    head = lambda each: (each.metric, each.task, each.protocol, each.key)
    levels = [
        (*head(each), own.value, own.n, own.mean, own.interval, own.median, own.minimum, own.maximum)
        for each in found
        if each.key != ALL
        for own in each.levels
    ]
    columns = ("metric", "task", "protocol", "setting", "value", "n", "mean", "95 % interval", "median")
    order = sorted(found, key=lambda each: (each.key == ALL, -(each.share if each.share is not None else -1)))
    order.sort(key=lambda each: (each.metric, each.task, each.protocol))
    sides = lambda each: (", ".join(each.also), ", ".join(each.together), each.told)
    shares = [(*head(each), each.share, each.raw, len(each.levels), each.runs, *sides(each)) for each in order]
    heads = ("metric", "task", "protocol", "setting", "share of variance (ε²)", "η²", "levels", "runs")
    title = "Values of each setting, all others pooled"
    return [
        ("parameters", title, (*columns, "minimum", "maximum"), tuple(levels)),
        (
            "importance",
            "Share of variance that each setting explains alone: ε²; those that move together cannot be told apart",
            (*heads, "likewise", "moves with", "to know"),
            tuple(shares),
        ),
    ]


_Levels = tuple[list[str], list[float | None], np.ndarray]  # name and number of each level, level of each run [n]


def _levels(values: Sequence[Any]) -> _Levels:
    """By size where they are numbers, many of them in bins; else in order of their names, null last."""
    names, codes = np.unique([groups.canonical(value) for value in values], return_inverse=True)
    first = [values[int(np.argmax(codes == code))] for code in range(len(names))]
    numeric = [_number(value) for value in first]
    if len(names) > LEVELS and all(number is not None for number in numeric):
        return _bins(np.asarray([numeric[code] for code in codes], np.float64))
    key = lambda code: (numeric[code] is None, numeric[code] or 0.0, first[code] is None, groups.shown(first[code]))
    order = sorted(range(len(names)), key=key)
    return [groups.shown(first[c]) for c in order], [numeric[c] for c in order], np.argsort(order)[codes]


def _bins(numbers: np.ndarray) -> _Levels:
    """Two bins or more, of about equal counts; a value that fills one has it for itself."""
    count = max(2, min(BINS, len(numbers) // 3))
    quantiles = np.quantile(numbers, np.linspace(0, 1, count + 1)[1:-1], method="higher")
    edges, often = np.unique(quantiles, return_counts=True)
    full = edges[(often > 1) | (edges == numbers.min())]
    above = [numbers[numbers > value].min() for value in full if value < numbers.max()]
    edges = np.unique([*edges, *above])
    codes = np.searchsorted(edges, numbers, "right")
    _, codes = np.unique(codes, return_inverse=True)
    inside = [numbers[codes == code] for code in range(int(codes.max()) + 1)]
    names = [" to ".join(dict.fromkeys([f"{own.min():.4g}", f"{own.max():.4g}"])) for own in inside]
    return names, [float(np.median(own)) for own in inside], codes


def _number(value: Any) -> float | None:
    number = rows.number(value)
    return number if number is not None and math.isfinite(number) else None


@np.errstate(over="ignore", invalid="ignore")  # of vast scores
def _parameter(scores: np.ndarray, own: _Levels, **head: Any) -> Parameter:
    names, numbers, codes = own
    inside = [scores[codes == code] for code in range(len(names))]
    levels = [
        Level(
            value=name,
            number=number,
            n=len(each),
            mean=float(each.mean()),
            interval=statistics.mean_interval(each),
            median=float(np.median(each)),
            minimum=float(each.min()),
            maximum=float(each.max()),
        )
        for name, number, each in zip(names, numbers, inside, strict=True)
    ]
    needed, share, raw, told = len(levels) + SPARE, None, None, ""
    if len(scores) < needed:
        told = f"needs {needed} runs for {len(levels)} levels, {SPARE} more than levels; there are {len(scores)}"
    elif np.ptp(scores) == 0:
        told = "all runs score the same"
    else:
        share, raw = explained(inside)
        if not math.isfinite(raw):
            share, raw, told = None, None, "the scores are too far apart for a variance"
    return Parameter(runs=len(scores), levels=tuple(levels), share=share, raw=raw, told=told, **head)


def explained(levels: Sequence[np.ndarray]) -> tuple[float, float]:
    """ε² (at least 0) and η² of scores [n] of each level; more scores than levels, and not all the same."""
    every = np.concatenate(levels)
    total = float(((every - every.mean()) ** 2).sum())
    within = float(sum(((own - own.mean()) ** 2).sum() for own in levels))
    between, free = total - within, len(every) - len(levels)
    return max(0.0, float((between - (len(levels) - 1) * within / free) / total)), float(between / total)


def _near(swept: Sequence[tuple[str, np.ndarray]]) -> Mapping[str, tuple[str, ...]]:
    """For each setting those that change with it: Cramér's V at least `TOGETHER`."""
    found: dict[str, list[str]] = {}
    if len(swept) > MOST:
        return {key: (f"not looked at, of more than {MOST} settings",) for key, _ in swept}
    for (one, first), (two, second) in itertools.combinations(swept, 2):
        strength = cramer(first, second)
        if strength >= TOGETHER:
            found.setdefault(one, []).append(f"{two} (V {strength:.2g})")
            found.setdefault(two, []).append(f"{one} (V {strength:.2g})")
    return {key: tuple(names) for key, names in found.items()}


def cramer(first: np.ndarray, second: np.ndarray) -> float:
    """Cramér's V of two columns of levels [n], each from 0 on without gaps: 0 crossed, 1 one follows from the other."""
    rows, columns = int(first.max()) + 1, int(second.max()) + 1
    seen = np.bincount(first * columns + second, minlength=rows * columns).reshape(rows, columns)
    expected = seen.sum(1, keepdims=True) * seen.sum(0, keepdims=True) / len(first)
    return math.sqrt(((seen - expected) ** 2 / expected).sum() / len(first) / (min(rows, columns) - 1))
