"""The rows of a `metrics.jsonl` as columns. Imports little, as processes that read do."""

import array
import dataclasses
import fnmatch
import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np
import orjson

from core import files

UNITS = ("frames", "images")
_HEAD = {"step", "seconds", *UNITS}  # of a row; the rest are metrics
_BLOCK = 1 << 20  # bytes read at once
_BATCH = 64  # lines parsed at once: their values are still in the processor's cache when they are gathered
_LONGEST = 64 << 20  # bytes of a line; a longer one is no row
_LARGEST = 2**63 - 1  # of frames, images and steps

Column = tuple[np.ndarray, np.ndarray]  # [m] int64 numbers of rows, [m] float64 values, NaN where not finite


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rows:
    """All rows in the order of the file; columns of unlike length, since a row need not have each metric."""

    unit: str  # frames or images
    names: tuple[str, ...]  # of all metrics, sorted
    x: np.ndarray  # [n] int64, frames or images
    steps: np.ndarray  # [n] int64, 0 where the row does not say
    seconds: np.ndarray  # [n] float64, NaN where the row does not say
    columns: Mapping[str, Column]  # of the metrics that were asked for, sorted
    problem: str  # what could not be read
    digest: str  # of the file


def matching(names: Iterable[str], patterns: Sequence[str]) -> list[str]:
    """Those of `names` that one of the patterns matches, or is."""
    return sorted(name for name in names if any(name == p or fnmatch.fnmatchcase(name, p) for p in patterns))


def read(path: str | os.PathLike, wanted: Sequence[str]) -> Rows:
    """Of a file as it is now, which may be growing. Raises OSError."""
    with files.open_regular(path) as file:
        return _Reader(wanted).read(file)


class _Reader:
    """Gathers the columns of one file."""

    def __init__(self, wanted: Sequence[str]):
        self._wanted, self._unit, self._names = wanted, "", {*_HEAD}
        self._x, self._steps, self._seconds = array.array("q"), array.array("q"), array.array("d")
        self._columns = dict[str, tuple[array.array, array.array]]()
        self._digest, self._bad, self._count, self._torn = hashlib.sha256(), list[int](), 0, False

    def read(self, file: BinaryIO) -> Rows:
        for lines in self._blocks(file):
            for start in range(0, len(lines), _BATCH):
                batch = lines[start : start + _BATCH]
                if not self._add_all(batch):
                    numbered = enumerate(batch, start=self._count + 1)
                    self._bad += [number for number, line in numbered if line.strip() and not self._add(line)]
                self._count += len(batch)
        known: list[np.ndarray] = []
        return Rows(
            unit=self._unit,
            names=tuple(sorted(self._names - _HEAD)),
            x=np.array(self._x, np.int64),
            steps=np.array(self._steps, np.int64),
            seconds=np.array(self._seconds, np.float64),
            columns={name: (_shared(known, at), np.array(v)) for name, (at, v) in sorted(self._columns.items())},
            problem=self._problem(),
            digest=self._digest.hexdigest(),
        )

    def _blocks(self, file: BinaryIO) -> Iterator[list[bytes]]:
        """Lines without their ends, about a MB of them at once; of a file that grows, up to where it ends now."""
        size = os.fstat(file.fileno()).st_size
        while file.tell() < size and (block := file.read(min(_BLOCK, size - file.tell()))):
            if not block.endswith(b"\n"):
                block += file.readline(_LONGEST)
            self._digest.update(block)
            *lines, end = block.split(b"\n")
            self._torn = bool(end)
            if len(end) >= _LONGEST:
                end = end[:9]
                while self._torn and (rest := file.readline(_BLOCK)):
                    self._digest.update(rest)
                    self._torn = not rest.endswith(b"\n")
            yield lines + [end] * bool(end)

    def _add_all(self, lines: Sequence[bytes]) -> bool:
        """Lines that are rows throughout. False, with nothing added, where one is not, or lacks or repeats anything."""
        try:
            rows = list(map(orjson.loads, lines))
            if {*map(type, rows)} != {dict}:
                return False
            unit = self._unit or next(unit for unit in UNITS if unit in rows[0])
            x, steps, seconds = ([row[name] for row in rows] for name in (unit, "step", "seconds"))
        except (orjson.JSONDecodeError, KeyError, StopIteration):
            return False
        regular = {*map(type, x), *map(type, steps)} == {int} and {*map(type, seconds)} <= {int, float}
        if not regular or min(*x, *steps) < 0 or max(*x, *steps) > _LARGEST:
            return False
        fresh = set[str]().union(*rows) - self._names
        found = {name: _column(rows, name) for name in (*self._columns, *matching(fresh, self._wanted))}
        if None in found.values():
            return False
        self._unit, begin = unit, len(self._x)
        self._names |= fresh
        self._x.extend(x)
        self._steps.extend(steps)
        self._seconds.extend(seconds)
        for name, (at, values) in ((name, column) for name, column in found.items() if column):
            own = self._columns.setdefault(name, (array.array("q"), array.array("d")))
            own[0].extend([begin + number for number in at])
            own[1].extend(values)
        return True

    def _add(self, line: bytes) -> bool:
        """One line of any kind; False where it is no row."""
        row = parsed(line)
        unit = next((unit for unit in ([self._unit] if self._unit else UNITS) if unit in (row or ())), None)
        if row is None or unit is None or not _counts(row[unit]):
            return False
        step = row.get("step")
        if isinstance(step, int) and not _counts(step):
            return False
        self._unit = unit
        self._x.append(row[unit])
        self._steps.append(step if isinstance(step, int) and _counts(step) else 0)
        seconds = number(row.get("seconds"))
        self._seconds.append(math.nan if seconds is None else seconds)
        fresh = row.keys() - self._names
        self._names |= fresh
        self._columns |= {name: (array.array("q"), array.array("d")) for name in matching(fresh, self._wanted)}
        for name, (at, values) in self._columns.items():
            if name in row and (value := number(row[name])) is not None:
                at.append(len(self._x) - 1)
                values.append(value)
        return True

    def _problem(self) -> str:
        torn = self._torn and bool(self._bad) and self._bad[-1] == self._count
        bad = self._bad[:-1] if torn else self._bad
        shown = ", ".join(map(str, bad[:5])) + (", …" if len(bad) > 5 else "")
        told = [f"{len(bad)} of {self._count} lines cannot be read (line {shown})"] if bad else []
        told += ["the last line is torn"] if torn else []  # without its end: still being written, or a kill
        return f"metrics.jsonl: {'; '.join(told)}" if told else ""


def parsed(line: bytes) -> dict[str, Any] | None:
    """The mapping in a line of JSON, NaN and Infinity included, which others write; None where there is none."""
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError:
        try:
            row = json.loads(line)
            json.dumps(row, ensure_ascii=False).encode()  # half a surrogate pair is no text
        except (ValueError, RecursionError):
            return None
    return row if isinstance(row, dict) else None


def number(value: Any) -> float | None:
    """NaN for null and whatever is not finite; None for what is no number."""
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else math.nan
    except OverflowError:  # of an integer
        return math.nan


def _counts(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LARGEST


def _column(rows: Sequence[Mapping[str, Any]], name: str) -> tuple[list[int], list[float]] | None:
    """Of rows as orjson reads them, all of whose numbers are finite; None where it holds what is no number."""
    at = [number for number, row in enumerate(rows) if name in row]
    values = [rows[number][name] for number in at]
    kinds = {*map(type, values)}
    if not kinds <= {int, float, type(None)}:
        return None
    return at, [math.nan if value is None else value for value in values] if type(None) in kinds else values


def _shared(known: list[np.ndarray], at: array.array) -> np.ndarray:
    """One array for all columns that are in the same rows."""
    own = np.array(at, np.int64)
    for other in known:
        if np.array_equal(own, other):
            return other
    known.append(own)
    return own
