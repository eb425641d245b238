"""Curves as SVG, drawn by matplotlib, and `curves.csv` with every band's numbers.

One figure for each metric and task; where there are more tasks than `APART`, one figure a metric with a small panel for
each task. The same report gives the same bytes.
"""

import collections
import contextlib
import dataclasses
import hashlib
import itertools
import math
import re
import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agents import scores
from experiments.comparing import report
from experiments.comparing.forms import tables, writing
from experiments.comparing.forms.colours import COLOURS, PUBLISHED
from experiments.comparing.parts import curves, published

APART = 6  # tasks that have a figure each
COLUMNS = 6  # of panels
VAST = 1e100  # matplotlib fails beyond
BEYOND = 1.2  # times our last x: up to there published values are drawn; the table has all
NAMED = 8  # unfinished runs named below a figure; curves.csv and the table of runs have all
LINE, PANEL_LINE = 400, 60  # points of a seed's line, alone and in a small panel
_DASHES = ("-", "-.", ":")  # of the first eight groups, of the next, of those after; published curves are "--"
_PLAIN = {
    "svg.hashsalt": "jaxcade",
    "svg.fonttype": "none",  # text stays text
    "text.parse_math": False,  # a $ in a name is no formula
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": False,
    "font.size": 9.0,
}


def write(found: report.Report, out: Path) -> list[tuple[str, str]]:
    """Writes all of them into the folder `out`: (title, file name) of each figure, in the order of the report."""
    if not found.curves:
        return []
    (out / "curves.csv").write_text(writing.as_csv(table(found.curves)), encoding="utf-8", errors="surrogateescape")
    named = dict[str, str]()
    colours = {group: number for number, group in enumerate(found.labels)}
    written = []
    with _quiet():
        for title, panels in _figures(found):
            name = _file(title, named)
            _draw(title, panels, colours, out / name)
            written.append((title, name))
    return written


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


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Matplotlib's own defaults, whatever the user's are, without a word on missing glyphs or vast numbers."""
    from matplotlib import style  # here, as it costs a second

    with warnings.catch_warnings(), style.context(["default", _PLAIN]), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield


@dataclasses.dataclass
class _Key:
    """One line of a figure's legend."""

    handle: Any
    text: str
    n: list[int] = dataclasses.field(default_factory=list)  # seeds at the places of a group's curves

    @property
    def whole(self) -> str:
        seen = [n for n in self.n if n]
        return self.text + (f", n = {' to '.join(map(str, sorted({min(seen), max(seen)})))}" if seen else "")


def _draw(title: str, panels: Sequence[_Panel], colours: Mapping[str, int], path: Path) -> None:
    """One figure: panels, below them the legend, below that the caption; the figure is as high as these need."""
    from matplotlib import figure, ticker

    columns = min(len(panels), COLUMNS)
    rows = math.ceil(len(panels) / columns)
    wide, high = (2.4 * columns, 2.0 * rows) if len(panels) > 1 else (7.0, 4.0)
    picture = figure.Figure(figsize=(wide, high))
    grid = picture.add_gridspec(rows, columns)
    keys = dict[str, _Key]()
    for place, (name, own, theirs) in enumerate(panels):
        axes = picture.add_subplot(grid[place // columns, place % columns])
        _panel(axes, own, theirs, colours, keys, points=PANEL_LINE if len(panels) > 1 else LINE)
        axes.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
        axes.ticklabel_format(axis="y", style="sci", scilimits=(-4, 5))
        if name:
            axes.set_title(_text(name), fontsize=8)
            axes.tick_params(labelsize=6)
            axes.locator_params(nbins=4)
            axes.yaxis.get_offset_text().set_fontsize(6)
    if "|" in keys:
        keys["|"] = keys.pop("|")  # last
    wrap = lambda text: "\n".join(textwrap.wrap(_text(text), int(15 * wide))) or " "
    texts = [wrap(key.whole) for key in keys.values()]
    caption = "\n".join(map(wrap, _caption([curve for _, own, _ in panels for curve in own])))
    legend, told = 0.17 * "\n".join(texts).count("\n") + 0.35, 0.13 * caption.count("\n") + 0.25
    height = 0.55 + high + 0.5 + legend + told
    picture.set_size_inches(wide, height)
    below = lambda inches: inches / height
    sides = {"left": 0.7 / wide, "right": 1 - 0.15 / wide, "top": 1 - below(0.55), "bottom": below(told + legend + 0.5)}
    picture.subplots_adjust(**sides, wspace=0.3, hspace=0.4)
    picture.suptitle(_text(title), y=1 - below(0.08), va="top", fontsize=10)
    unit = next(axis for _, own, _ in panels for curve in own for axis in curve.bands)
    picture.text(0.5, below(told + legend + 0.02), unit, ha="center", va="bottom")
    picture.legend(
        [key.handle for key in keys.values()],
        texts,
        loc="upper left",
        bbox_to_anchor=(0.01, below(told + legend)),
        fontsize=8,
        frameon=False,
        borderaxespad=0,
        labelspacing=0.25,
    )
    picture.text(0.01, below(0.08), caption, fontsize=7, color="#444444", va="bottom")
    picture.savefig(path, format="svg", metadata={"Date": None, "Creator": None}, facecolor="white")


def _panel(
    axes: Any,
    own: Sequence[curves.Curve],
    theirs: Sequence[published.Published],
    colours: Mapping[str, int],
    keys: dict[str, _Key],
    *,
    points: int,
) -> None:
    """Bands, seeds, seams and published curves; `keys` gathers what the legend shows."""
    several = len({curve.group for curve in own}) < len(own)
    for curve in own:
        axis = next(iter(curve.bands))
        place = colours[curve.group]
        colour, dash = COLOURS[place % len(COLOURS)], _DASHES[place // len(COLOURS) % len(_DASHES)]
        band = curve.bands[axis]
        axes.plot(*_seeds(curve, axis, points), color=colour, linewidth=0.5, alpha=0.45)
        kept = curves.thin(band.center["mean"], points)
        x, mean, low, high = band.x[kept], *(_near(part["mean"][kept]) for part in (band.center, band.low, band.high))
        axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
        (line,) = axes.plot(x, mean, dash, color=colour, linewidth=1.6, marker="o" if len(x) == 1 else "", markersize=4)
        name = curve.group + f" (protocol {curve.protocol})" * several
        keys.setdefault(name, _Key(line, name)).n.extend(band.n.tolist())
        seams = _seams(curve, axis)
        if len(seams[0]):
            (mark,) = axes.plot(*seams, "|", color=colour, markersize=8, markeredgewidth=1.2)
            keys.setdefault("|", _Key(mark, "a run was resumed"))
    end = max(float(curve.bands[next(iter(curve.bands))].x[-1]) for curve in own)
    for each in theirs:
        near = each.x <= BEYOND * end  # later ones would squeeze ours
        place = list(scores.CURVES).index(each.name)
        (line,) = axes.plot(
            each.x[near],
            each.mean[near],
            "--",
            color=PUBLISHED,
            linewidth=1,
            marker="os^vDP*"[place % 7],
            markersize=3.5,
        )
        keys.setdefault(
            f"published {each.label}",
            _Key(line, f"{each.label}{'' if near.any() else ', only later'}: {each.protocol}"),
        )
    _frame(axes, [line.get_ydata() for line in axes.get_lines()])
    axes.grid(color="#dddddd", linewidth=0.5)


def _frame(axes: Any, drawn: Sequence[Any]) -> None:
    """Of two or three seeds an interval is so wide that it would squeeze the lines: it is cut half their range off."""
    values = np.concatenate([np.asarray(each, np.float64) for each in drawn])
    if not np.isfinite(values).any():
        return
    least, most = np.nanmin(values), np.nanmax(values)
    room = 0.5 * (most - least)
    if room > 0:
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, least - room), min(high, most + room))


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
    if len({curve.group for curve in every}) > len(COLOURS) * len(_DASHES):
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


def _text(text: str) -> str:
    """Without what no XML holds."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
