"""The report as Markdown, CSV, LaTeX and plain values for JSON. No setting or file name becomes markup or a formula."""

import csv
import dataclasses
import functools
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from experiments.comparing import groups, report, scoring
from experiments.comparing.forms import tables
from experiments.comparing.numbers import differences, statistics

SHOWN = 20  # rows of a table on the console; the files have all
_LATEX = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
}


def markdown(found: report.Report, every: Sequence[tables.Table], *, brief: bool) -> str:
    """The whole report, or with `brief` its first rows, for a console."""
    state = [member.state for member in found.members]
    counts = ", ".join(f"{state.count(name)} {name}" for name in dict.fromkeys(state))
    keys = ", ".join(map(escaped, found.keys)) or "nothing: they differ in seeds and tasks at most"
    lines = [
        f"# {len(found.members)} runs in {len(found.labels)} groups",
        "",
        f"{counts}. Left out: {len(found.left_out)} folders. Groups by {keys}.",
        "",
        *(f"- {escaped(note)}" for note in found.notes),
    ]
    skipped = ("seeds", "runs", "published", "parameters") if brief else ()
    for table in every:
        if table.name not in skipped:
            shown = table.head(SHOWN) if brief else table
            lines += ["", f"## {escaped(shown.title)}", "", *_markdown(shown)]
    lines += ["", "## How the numbers are made", "", *(f"- {line}" for line in method(found))]
    return "\n".join(lines).replace("\n\n\n", "\n\n") + "\n"


@functools.lru_cache(maxsize=10_000)
def escaped(text: str) -> str:
    """Text that Markdown shows as it is."""
    plain = re.sub(r"\s+", " ", text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*\[\]|#~]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|!(?=\[))", r"\\\1", plain)


def method(found: report.Report, *, text: Callable[[str], str] = escaped) -> list[str]:
    """In a line each; `text` is how names are shown."""
    asked = found.asked
    ways = ["`last`: a run's last value", "`best`: its best, the better the more evaluations there were"]
    if asked.at is not None:
        ways.append(f"`at`: its first value at {asked.at:,} frames or images or later")
    test = (
        "Welch's test; where groups have unlike numbers of seeds, with fewer degrees of freedom, and Student's with "
        "a common spread: both must tell"
    )
    games = "both tests of the difference of means"
    if asked.paired:
        test = games = "Student's test of the differences of seeds that both groups have"
    directions = ", ".join(
        f"{name} ({better}{' is better' * (better != scoring.UNKNOWN)})" for name, better in found.metrics.items()
    )
    others = f" Not shown: {', '.join(found.others)}." * bool(found.others)
    return [
        f"Metrics: {text(directions)}.{text(others)}",
        f"{'; '.join(ways)}. Nothing is sampled: every row is read.",
        "Mean: 95 % interval by Student's t; over games with the games' variances added up and Satterthwaite's degrees "
        "of freedom. Median, IQM (mean of the middle half), optimality gap and profiles: 95 % percentile bootstrap, "
        f"{statistics.RESAMPLES} resamples of seeds within tasks.",
        f"Verdicts: {test}, p at most 0.05, {statistics.LEAST} seeds of each at least. Every pair is tested by itself: "
        "of 20 pairs that do not differ one may be called better or worse. `p by Holm` takes all of them together. "
        f"Over games: {games}, variances added up.",
        f"More seeds: for a chance of {differences.POWER:.0%} to tell, if the true difference and spread are those "
        "seen and scores are normal.",
        "P(better): the chance that a seed of the second group beats one of the first, ties half"
        + (", at the same seed." if asked.paired else "."),
        "What these intervals are worth: docs/comparing.md.",
    ]


def latex(every: Iterable[tables.Table]) -> str:
    """A tabular for each table; wants no package."""
    parts = []
    for table in every:
        rows = [" & ".join(_latex(tables.shown(cell)) for cell in row) + r" \\" for row in (table.columns, *table.rows)]
        head = f"% {' '.join(table.title.split())}\n\\begin{{tabular}}{{{'l' * len(table.columns)}}}\n\\hline"
        parts.append("\n".join([head, rows[0], r"\hline", *rows[1:], r"\hline", r"\end{tabular}"]))
    return "\n\n".join(parts) + "\n"


def as_csv(table: tables.Table) -> str:
    """With all digits; an interval is two columns. Text that a spreadsheet would compute is quoted with '."""
    columns = list(zip(*table.rows, strict=True))
    wide = [any(isinstance(cell, tuple) for cell in column) for column in columns]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    names = [name.strip() for name in table.columns]
    heads = [(f"{name} low", f"{name} high") if two else (name,) for name, two in zip(names, wide, strict=True)]
    writer.writerow(_harmless(name) for head in heads for name in head)
    for row in table.rows:
        parts = [_pair(cell) if two else (_harmless(cell),) for cell, two in zip(row, wide, strict=True)]
        writer.writerow(part for both in parts for part in both)
    return file.getvalue()


def as_json(values: Any, *, default: Callable[[Any], Any] = str, option: int = 0) -> bytes:
    """UTF-8, whatever names of files and settings hold."""
    try:
        return orjson.dumps(values, default=default, option=option)
    except TypeError:  # what `valid` mends
        return orjson.dumps(valid(values), default=default, option=option)


def valid(value: Any) -> Any:
    """With `?` for bytes of file names that are no UTF-8, and integers beyond 64 bits as text."""
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return str(value)
    if isinstance(value, dict):
        return {valid(key): valid(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [valid(item) for item in value]
    return value.encode(errors="replace").decode() if isinstance(value, str) else value


def content(found: report.Report) -> dict[str, Any]:
    """The report as plain values, for JSON."""
    return _plain(
        {
            **{field.name: getattr(found, field.name) for field in dataclasses.fields(found)},
            "chosen": _by_folder(found, found.chosen),
            "differences": _by_folder(found, found.differences),
            "environments": _by_folder(found, found.environments),
            "method": method(found),
        }
    )


def _markdown(table: tables.Table) -> list[str]:
    line = lambda cells: "| " + " | ".join(cells) + " |"
    rows = [
        line([escaped(cell) if isinstance(cell, str) else tables.shown(cell) for cell in row]) for row in table.rows
    ]
    return [line([escaped(name.strip()) for name in table.columns]), "|" + " --- |" * len(table.columns), *rows]


@functools.lru_cache(maxsize=10_000)
def _latex(text: str) -> str:
    return "".join(_LATEX.get(c, c) for c in re.sub(r"\s+", " ", text).strip())


def _harmless(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def _pair(cell: Any) -> tuple[Any, Any]:
    return cell if isinstance(cell, tuple) else (None, None)


def _by_folder(found: report.Report, every: Sequence[groups.Difference]) -> list[dict[str, Any]]:
    folders = [str(member.folder) for member in found.members]
    return [
        {"key": each.key, "also": each.also, "values": dict(zip(folders, each.values, strict=True))} for each in every
    ]


def _plain(value: Any) -> Any:
    if type(value) in (str, int, float, bool, type(None)):  # most of them
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return [None if item != item else item for item in value.tolist()]
    return str(value) if isinstance(value, Path) else value
