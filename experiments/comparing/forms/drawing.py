"""Draws figures of curves as SVG by matplotlib, of plain arrays: imports little, as processes do that draw beside."""

import contextlib
import dataclasses
import math
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.comparing.forms.colours import COLOURS, PUBLISHED

COLUMNS = 6  # of panels
DASHES = ("-", "-.", ":")  # of the first eight groups, of the next, of those after; published curves are "--"
_PLAIN = {
    "svg.hashsalt": "jaxcade",
    "svg.fonttype": "none",  # text stays text
    "text.parse_math": False,  # a $ in a name is no formula
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": False,
    "font.size": 9.0,
}

Points = tuple[np.ndarray, np.ndarray]  # x and y, NaN between lines


@dataclasses.dataclass(frozen=True, kw_only=True)
class Curve:
    """One group; arrays [points]."""

    name: str
    place: int  # among the groups, which gives its colour
    seeds: Points
    x: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    n: tuple[int, ...]  # the least and the most seeds
    seams: Points  # where a run was resumed


@dataclasses.dataclass(frozen=True, kw_only=True)
class Other:
    """A published curve."""

    name: str
    told: str
    place: int  # among all of them, which gives its marker
    x: np.ndarray
    mean: np.ndarray
    std: np.ndarray | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Panel:
    title: str
    curves: tuple[Curve, ...]
    others: tuple[Other, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figure:
    title: str
    unit: str
    caption: tuple[str, ...]
    panels: tuple[Panel, ...]
    path: Path


def draw(every: Sequence[Figure]) -> None:
    """Writes each to its path; of none, imports what that takes. Raises OSError."""
    with _quiet():
        for each in every:
            _draw(each)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Matplotlib's own defaults, whatever the user's are, without a word on missing glyphs or vast numbers."""
    from matplotlib import figure, style, ticker  # noqa: F401 - here, as they cost a second
    from matplotlib.backends import backend_svg  # noqa: F401

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


def _draw(own: Figure) -> None:
    """One figure: panels, below them the legend, below that the caption; the figure is as high as these need."""
    from matplotlib import figure, ticker

    panels = own.panels
    columns = min(len(panels), COLUMNS)
    rows = math.ceil(len(panels) / columns)
    wide, high = (2.4 * columns, 2.0 * rows) if len(panels) > 1 else (7.0, 4.0)
    picture = figure.Figure(figsize=(wide, high))
    grid = picture.add_gridspec(rows, columns)
    keys = dict[str, _Key]()
    for place, panel in enumerate(panels):
        axes = picture.add_subplot(grid[place // columns, place % columns])
        _panel(axes, panel, keys)
        axes.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
        axes.ticklabel_format(axis="y", style="sci", scilimits=(-4, 5))
        if panel.title:
            axes.set_title(_text(panel.title), fontsize=8, y=1.0)  # else its place is sought, which takes long
            axes.tick_params(labelsize=6)
            axes.locator_params(nbins=4)
            axes.yaxis.get_offset_text().set_fontsize(6)
    if "|" in keys:
        keys["|"] = keys.pop("|")  # last
    wrap = lambda text: "\n".join(textwrap.wrap(_text(text), int(15 * wide))) or " "
    texts = [wrap(key.whole) for key in keys.values()]
    caption = "\n".join(map(wrap, own.caption))
    legend, told = 0.17 * "\n".join(texts).count("\n") + 0.35, 0.13 * caption.count("\n") + 0.25
    height = 0.55 + high + 0.5 + legend + told
    picture.set_size_inches(wide, height)
    below = lambda inches: inches / height
    sides = {"left": 0.7 / wide, "right": 1 - 0.15 / wide, "top": 1 - below(0.55), "bottom": below(told + legend + 0.5)}
    picture.subplots_adjust(**sides, wspace=0.3, hspace=0.4)
    picture.suptitle(_text(own.title), y=1 - below(0.08), va="top", fontsize=10)
    picture.text(0.5, below(told + legend + 0.02), own.unit, ha="center", va="bottom")
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
    picture.savefig(own.path, format="svg", metadata={"Date": None, "Creator": None}, facecolor="white")


def _panel(axes: Any, own: Panel, keys: dict[str, _Key]) -> None:
    """Bands, seeds, seams and published curves; `keys` gathers what the legend shows."""
    from matplotlib import collections

    areas = list[tuple[np.ndarray, Any]]()
    for curve in own.curves:
        colour, dash = COLOURS[curve.place % len(COLOURS)], DASHES[curve.place // len(COLOURS) % len(DASHES)]
        axes.plot(*curve.seeds, color=colour, linewidth=0.5, alpha=0.45)
        areas += [(area, (colour, 0.18)) for area in _areas(curve.x, curve.low, curve.high)]
        dot = "o" if len(curve.x) == 1 else ""
        (line,) = axes.plot(curve.x, curve.mean, dash, color=colour, linewidth=1.6, marker=dot, markersize=4)
        keys.setdefault(curve.name, _Key(line, curve.name)).n.extend(curve.n)
        if len(curve.seams[0]):
            (mark,) = axes.plot(*curve.seams, "|", color=colour, markersize=8, markeredgewidth=1.2)
            keys.setdefault("|", _Key(mark, "a run was resumed"))
    for each in own.others:
        if each.std is not None:
            low, high = each.mean - each.std, each.mean + each.std
            areas += [(area, (PUBLISHED, 0.15)) for area in _areas(each.x, low, high)]
        marker = "os^vDP*"[each.place % 7]
        (line,) = axes.plot(each.x, each.mean, "--", color=PUBLISHED, linewidth=1, marker=marker, markersize=3.5)
        keys.setdefault(f"published {each.name}", _Key(line, each.told))
    filled = collections.PolyCollection([area for area, _ in areas], facecolors=[ink for _, ink in areas], linewidths=0)
    axes.add_collection(filled)  # all at once: one by one they take a sixth of the drawing
    axes.autoscale_view()
    _frame(axes, [line.get_ydata() for line in axes.get_lines()])
    axes.grid(color="#dddddd", linewidth=0.5)


def _areas(x: np.ndarray, low: np.ndarray, high: np.ndarray) -> Iterator[np.ndarray]:
    """The corners [n, 2] of what lies between `low` and `high`, for each stretch where both are known."""
    known = np.isfinite(low) & np.isfinite(high)
    for part in np.split(np.arange(len(x)), np.flatnonzero(np.diff(known)) + 1):
        if len(part) and known[part[0]]:
            back = part[::-1]
            yield np.stack([x[np.append(part, back)], np.append(low[part], high[back])], axis=1)


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


def _text(text: str) -> str:
    """Without what no XML holds."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
