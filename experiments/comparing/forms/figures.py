"""Curves as SVG, which `drawing.py` draws, and `curves.csv` with every band's numbers.

One figure for each metric and task; where there are more tasks than `APART`, one figure a metric with a small panel for
each task. The same report gives the same bytes.
"""

import collections
import contextlib
import hashlib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent import futures
from concurrent.futures import process
from pathlib import Path

import numpy as np

from agents import scores
from experiments.comparing import report
from experiments.comparing.forms import drawing, tables, writing
from experiments.comparing.forms.colours import COLOURS
from experiments.comparing.parts import curves, published, suites
from experiments.comparing.runs import beside

APART = 6  # tasks that have a figure each
VAST = 1e100  # matplotlib fails beyond
BEYOND = 1.2  # times our last x: up to there published values are drawn; the table has all
NAMED = 8  # unfinished runs named below a figure; curves.csv and the table of runs have all
MANY = 200  # runs whose report takes so long that a process to draw beside pays
_PARTS = {"mean": "center", "low": "low", "high": "high"}
LINE, PANEL_LINE = 400, 60  # points of a seed's line, alone and in a small panel


@contextlib.contextmanager
def drawer(runs: int) -> Iterator[futures.Executor | None]:
    """A process that draws beside this one, and begins to import; None, to draw in this one, for few runs."""
    if runs < MANY or beside.cores() < 2:
        yield None
        return
    with beside.pool(1) as pool:
        pool.submit(drawing.draw, ())
        yield pool


@contextlib.contextmanager
def written(found: report.Report, out: Path, pool: futures.Executor | None = None) -> Iterator[list[tuple[str, str]]]:
    """Writes all of them into the folder `out`: (title, file name) of each figure, in the order of the report.

    They are there at the end of the block, drawn meanwhile by the process of `pool` or before it by this one.
    """
    if not found.curves:
        yield []
        return
    every = _drawings(found, out)
    drawn = None
    with contextlib.suppress(process.BrokenProcessPool):
        drawn = pool and pool.submit(drawing.draw, every)
    if drawn is None:
        drawing.draw(every)
    text = writing.as_csv(table(found.curves))
    (out / "curves.csv").write_text(text, encoding="utf-8", errors="surrogateescape")
    yield [(each.title, each.path.name) for each in every]
    try:
        _ = drawn and drawn.result()
    except process.BrokenProcessPool:
        drawing.draw(every)


def links(drawn: Sequence[tuple[str, str]]) -> str:
    """The figures in Markdown."""
    shown = (f"\n![{writing.escaped(title)}]({name})\n" for title, name in drawn)
    return "\n## Curves\n" + "".join(shown) if drawn else ""


def table(every: Sequence[curves.Curve]) -> tables.Table:
    """A row for each place of each band."""
    columns = ("metric", "task", "group", "protocol", "axis", "x", "n")
    columns += ("mean", "mean", "median", "median", "IQM", "IQM")  # each with its interval
    rows = []
    for curve in every:
        head = (curve.metric, curve.task, curve.group, curve.protocol)
        for axis, band in curve.bands.items():
            parts = [(band.center[name], band.low[name], band.high[name]) for name in ("mean", "median", "iqm")]
            figures = np.stack([column for part in parts for column in part], axis=1).tolist()
            for x, n, row in zip(band.x.tolist(), band.n.tolist(), figures, strict=True):
                center, low, high = ([None if v != v else v for v in row[start::3]] for start in range(3))
                spread = zip(center, zip(low, high, strict=True), strict=True)
                rows.append((*head, axis, int(x) if x == int(x) else x, n, *itertools.chain(*spread)))
    return tables.Table("curves", "Curves", columns, tuple(rows))


_Panel = tuple[str, list[curves.Curve], list[published.Published]]  # title, ours, others'


def _drawings(found: report.Report, out: Path) -> list[drawing.Figure]:
    named = dict[str, str]()
    colours = {group: number for number, group in enumerate(found.labels)}
    made = []
    for title, panels in _figures(found):
        every = [curve for _, own, _ in panels for curve in own]
        points = PANEL_LINE if len(panels) > 1 else LINE
        made.append(
            drawing.Figure(
                title=title,
                unit=next(axis for curve in every for axis in curve.bands),
                caption=tuple(_caption(every)),
                panels=tuple(_panel(*each, colours, points=points) for each in panels),
                path=out / _file(title, named),
            )
        )
    return [*made, *_profiles(found, colours, out)]


def _profiles(found: report.Report, colours: Mapping[str, int], out: Path) -> list[drawing.Figure]:
    """One figure, a panel for each set of games and protocol."""
    together = suites.together(found.profiles)
    empty = (np.empty(0), np.empty(0))
    panels = [
        drawing.Panel(
            title=f"{len(own[0].games)} games" * (len(together) > 1),
            others=(),
            curves=tuple(
                drawing.Curve(
                    name=each.group,
                    place=colours[each.group],
                    seeds=empty,
                    seams=empty,
                    n=(),
                    x=each.tau,
                    mean=each.share,
                    low=each.low,
                    high=each.high,
                )
                for each in own
            ),
        )
        for own in together
    ]
    told = "Share of runs above each score, every game with the same weight, and its 95 % bootstrap interval."
    head = {"title": "Performance profiles", "unit": "human-normalised score", "path": out / "profiles.svg"}
    return [drawing.Figure(**head, caption=(told,), panels=tuple(panels))] if panels else []


def _panel(
    title: str,
    own: Sequence[curves.Curve],
    theirs: Sequence[published.Published],
    colours: Mapping[str, int],
    *,
    points: int,
) -> drawing.Panel:
    several = len({curve.group for curve in own}) < len(own)
    ours = []
    for curve in own:
        axis, band = next(iter(curve.bands.items()))
        kept = curves.thin(band.center["mean"], points)
        seen = band.n[band.n > 0]
        ours.append(
            drawing.Curve(
                name=curve.group + f" (protocol {curve.protocol})" * several,
                place=colours[curve.group],
                seeds=_seeds(curve, axis, points),
                x=band.x[kept],
                n=(int(seen.min()), int(seen.max())) if len(seen) else (),
                seams=_seams(curve, axis),
                **{part: _near(getattr(band, of)["mean"][kept]) for part, of in _PARTS.items()},
            )
        )
    end = max(float(next(iter(curve.bands.values())).x[-1]) for curve in own)
    return drawing.Panel(title=title, curves=tuple(ours), others=tuple(_other(each, end) for each in theirs))


def _other(each: published.Published, end: float) -> drawing.Other:
    near = each.x <= BEYOND * end  # later ones would squeeze ours
    return drawing.Other(
        name=each.label,
        told=f"{each.label}{'' if near.any() else ', only later'}: {each.protocol}",
        place=list(scores.CURVES).index(each.name),
        x=each.x[near],
        mean=each.mean[near],
        std=None if each.std is None else each.std[near],
    )


def _figures(found: report.Report) -> Iterator[tuple[str, list[_Panel]]]:
    """Title and panels of each figure."""
    for metric in found.metrics:
        ours = collections.defaultdict[str, list[curves.Curve]](list)
        for curve in found.curves:
            if curve.metric == metric:
                ours[curve.task].append(curve)
        others = lambda task, metric=metric: [p for p in found.published if (p.metric, p.task) == (metric, task)]
        panels = [(task, ours[task], others(task)) for task in found.tasks if task in ours]
        if len(panels) > APART:
            yield metric, panels
        else:
            for task, own, theirs in panels:
                yield f"{metric} {task}", [("", own, theirs)]


def _file(title: str, named: dict[str, str]) -> str:
    """curves-<title>.svg in plain letters; two titles never share one."""
    plain = re.sub("[^A-Za-z0-9]+", "-", title).strip("-")[:100]
    name = f"curves-{plain}.svg"
    if named.setdefault(name.lower(), title) != title:
        name = f"curves-{plain}-{hashlib.sha256(title.encode()).hexdigest()[:8]}.svg"
    return name


def _seeds(curve: curves.Curve, axis: str, points: int) -> tuple[np.ndarray, np.ndarray]:
    """All seeds' lines as one, with gaps between."""
    x, y = [], []
    for line in curve.lines:
        kept = curves.thin(line.values, points)
        x += [line.axes[axis][kept].astype(np.float64), np.full(1, np.nan)]
        y += [_near(line.values[kept]), np.full(1, np.nan)]
    return np.concatenate(x), np.concatenate(y)


def _seams(curve: curves.Curve, axis: str) -> tuple[np.ndarray, np.ndarray]:
    x = [np.asarray(line.seams[axis], np.float64) for line in curve.lines]
    y = [curves.interpolated(at, line.axes[axis], _near(line.values)) for at, line in zip(x, curve.lines, strict=True)]
    return np.concatenate(x), np.concatenate(y)


def _caption(every: Sequence[curves.Curve]) -> list[str]:
    """What the lines are, and which runs end early."""
    lines = ["Mean over n seeds and its 95 % t interval, cut where it is far wider than the lines; thin: single seeds."]
    short = [f"{folder}: {why}" for curve in every for folder, why in curve.short]
    if len({curve.group for curve in every}) > len(COLOURS) * len(drawing.DASHES):
        lines.append("There are more groups than kinds of lines: some look alike, curves.csv tells them apart.")
    if any(np.nanmax(np.abs(line.values), initial=0) > VAST for curve in every for line in curve.lines):
        lines.append(f"Values beyond {VAST:g} are drawn there.")
    if short:
        lines.append(f"{len(short)} of {sum(len(curve.lines) for curve in every)} runs are not done:")
        lines += short[:NAMED]
    if len(short) > NAMED:
        lines.append(f"and {len(short) - NAMED} more, which are in runs.csv")
    return lines


def _near(values: np.ndarray) -> np.ndarray:
    return np.clip(values, -VAST, VAST)
