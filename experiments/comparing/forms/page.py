"""The report as one HTML file that opens from disk: `page/` holds its template, style and scripts, embedded here.

What comes from the runs reaches the page in two ways only: as text that jinja2 escapes, and as data that the scripts
read (JSON and arrays, compressed, as base64) and show as text. The page's policy forbids any other script or request.
"""

import base64
import gzip
import hashlib
import math
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import orjson

from experiments.comparing import groups, report, scoring
from experiments.comparing.forms import tables, writing
from experiments.comparing.parts import curves, published, suites
from experiments.comparing.runs import reading, rows

_FOLDER = Path(__file__).parent / "page"
_STYLES = ("uPlot.min.css", "report.css")
# One script; each file uses what those before it define.
_SCRIPTS = (
    "uPlot.iife.min.js",
    "dom.js",
    "data.js",
    "plot.js",
    "tables.js",
    "curves.js",
    "profiles.js",
    "runs.js",
    "report.js",
)


def render(
    found: report.Report,
    every: Sequence[tables.Table],
    *,
    command: str = "",
    written: str = "",
    files: Sequence[str] = (),
    beside: str = "",
    media: Sequence[Mapping[str, Any]] = (),
) -> str:
    """The whole page. `files` are linked; they lie in the folder `beside` (a relative URL that ends in /, or empty).

    `media` are blocks as `media.blocks` makes them.
    """
    style, script = ("\n".join((_FOLDER / name).read_text("utf-8") for name in names) for names in (_STYLES, _SCRIPTS))
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    states = [member.state for member in found.members]
    return templates.get_template("report.html.j2").render(
        style=style,
        script=script,
        style_hash=_hash(style),
        script_hash=_hash(script),
        data=packed(content(found, every, files=files, beside=beside, media=media)),
        found=found,
        counts={name: states.count(name) for name in dict.fromkeys(states)},
        short=[(member.folder, scoring.ended(member)) for member in found.members if member.state != reading.DONE],
        licence=(_FOLDER / "uPlot.LICENSE").read_text("utf-8"),
        method=writing.method(found, text=str),
        command=command,
        written=written,
        files=files,
        beside=beside,
    )


def content(
    found: report.Report,
    every: Sequence[tables.Table],
    *,
    files: Sequence[str] = (),
    beside: str = "",
    media: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """What the scripts show; arrays stay arrays."""
    number = {name: index for index, name in enumerate(found.labels)}
    settings = [*found.chosen, *found.differences]
    return {
        "groups": list(found.labels),
        "names": _names(found),
        "tasks": found.tasks,
        "metrics": found.metrics,
        "curves": [_curve(curve, number) for curve in found.curves],
        "published": [_published(each) for each in found.published],
        "profiles": [
            {"games": own[0].games, "curves": [_profile(each, number) for each in own]}
            for own in suites.together(found.profiles)
        ],
        "runs": _runs(found, number),
        "settings": [{"key": each.key, "values": [_setting(value) for value in each.values]} for each in settings],
        "tables": [
            {
                "name": table.name,
                "title": table.title,
                "columns": table.columns,
                "rows": table.rows,
                "file": file if (file := f"{table.name}.csv") in files else None,
            }
            for table in every
        ],
        "beside": beside,
        "media": list(media),
    }


def packed(values: Mapping[str, Any]) -> str:
    """Base64 of gzip of: the length of the JSON (uint64), the JSON, the arrays' bytes.

    In the JSON an array is {"array": [kind, its first byte, its length]}: `float32` and `float64` as they are, `steps`
    the int32 differences of whole numbers, which compress best.
    """
    arrays = _Arrays()
    text = writing.as_json(values, default=arrays.taken, option=orjson.OPT_NON_STR_KEYS)
    text += b" " * (-len(text) % 8)
    raw = struct.pack("<Q", len(text)) + text + b"".join(arrays.parts)
    return base64.b64encode(gzip.compress(raw, compresslevel=6, mtime=0)).decode()


def _names(found: report.Report) -> list[str]:
    """Of the groups, shorter: of each key the last part where that is enough (learning_rate=0.001)."""
    ends = [key.rpartition(".")[2] for key in found.keys]
    short = {key: end if ends.count(end) == 1 else key for key, end in zip(found.keys, ends, strict=True)}
    return [
        ", ".join(f"{short.get(key, key)}={groups.shown(value)}" for key, value in own.items()) or name
        for name, own in found.labels.items()
    ]


def _curve(curve: curves.Curve, number: Mapping[str, int]) -> dict[str, Any]:
    return {
        "metric": curve.metric,
        "group": number[curve.group],
        "task": curve.task,
        "protocol": curve.protocol,
        "lines": [
            {
                "folder": line.folder,
                "seed": line.seed,
                "rows": line.rows,
                "axes": line.axes,
                "values": line.values,
                "seams": line.seams,
            }
            for line in curve.lines
        ],
        "bands": {
            axis: {
                "x": band.x,
                "n": band.n,
                "center": band.center,
                "low": band.low,
                "high": band.high,
                "places": band.places,
            }
            for axis, band in curve.bands.items()
        },
        "short": curve.short,
    }


def _published(each: published.Published) -> dict[str, Any]:
    names = ("metric", "task", "label", "protocol", "source", "axis", "x", "mean", "std")
    return {name: getattr(each, name) for name in names}


def _profile(each: suites.Profile, number: Mapping[str, int]) -> dict[str, Any]:
    return {"group": number[each.group], **{name: getattr(each, name) for name in ("tau", "share", "low", "high")}}


def _runs(found: report.Report, number: Mapping[str, int]) -> list[dict[str, Any]]:
    """What a run is drawn by as a point: its values, and how far it went along each axis."""
    reached: dict[Path, dict[str, float]] = {}
    for line in (line for curve in found.curves for line in curve.lines):
        ends = {axis: float(x.max()) for axis, x in line.axes.items() if len(x)}
        own = reached.setdefault(line.folder, {})
        own.update({axis: max(end, own.get(axis, end)) for axis, end in ends.items()})
    return [
        {
            "folder": member.folder,
            "group": number[member.group],
            "task": member.task,
            "seed": member.seed,
            "state": member.state,
            "protocol": member.protocol,
            "values": member.values,
            "reached": reached.get(member.folder, {}) | {member.unit: member.reached},
        }
        for member in found.members
    ]


def _setting(value: Any) -> Any:
    """A number as a number, all else as text."""
    number = rows.number(value)
    return number if number is not None and math.isfinite(number) else groups.shown(value)


class _Arrays:
    """The arrays of the page, one after the other, each from a multiple of 8 bytes on."""

    def __init__(self):
        self.parts, self.bytes = list[bytes](), 0
        self._places = dict[int, list[Any]]()  # of arrays by their id

    def taken(self, value: Any) -> Any:
        """What JSON has instead of a value that it does not know: of an array its place in here, of all else text."""
        if isinstance(value, np.ndarray):
            if id(value) not in self._places:
                self._places[id(value)] = self._add(*_as_bytes(value))
            return {"array": self._places[id(value)]}
        return dict(value) if isinstance(value, Mapping) else str(value)

    def _add(self, kind: str, array: np.ndarray) -> list[Any]:
        raw = array.tobytes()
        place = [kind, self.bytes, len(array)]
        self.parts.append(raw + bytes(-len(raw) % 8))
        self.bytes += len(self.parts[-1])
        return place


def _as_bytes(array: np.ndarray) -> tuple[str, np.ndarray]:
    """The smallest kind that moves no value by more than a millionth of what the array spans."""
    if len(array) and np.isfinite(array).all() and (array == np.rint(array)).all() and np.abs(array).max() < 2**30:
        return "steps", np.diff(array.astype(np.int64), prepend=0).astype("<i4")
    with np.errstate(over="ignore", invalid="ignore"):
        short = array.astype("<f4")
        moved, spanned = np.abs(short - array), np.ptp(array[np.isfinite(array)]) if np.isfinite(array).any() else 0.0
    small = np.nanmax(moved, initial=0.0) <= 1e-6 * spanned
    return ("float32", short) if small else ("float64", array.astype("<f8"))


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
