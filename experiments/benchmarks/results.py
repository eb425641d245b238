"""What a suite found: rows of measurements, and how far they are from the limits that the project sets itself."""

import dataclasses
import datetime
import importlib.metadata
import json
import platform as python_platform
import shlex
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from core import platform
from experiments.benchmarks import processes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One quantity, measured once a round; the median speaks for it."""

    name: str
    unit: str
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target:
    """A limit that a quantity keeps or does not. Values are by round, so that drift of the machine falls out."""

    name: str
    values: tuple[float, ...]
    must: Literal["at most", "at least"]
    limit: float
    aim: float | None = None
    unit: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def met(self) -> bool:
        return self.median <= self.limit if self.must == "at most" else self.median >= self.limit


@dataclasses.dataclass(frozen=True, kw_only=True)
class Results:
    rows: Sequence[Row]
    targets: Sequence[Target]

    def content(self) -> dict[str, Any]:
        """As it goes to JSON."""
        return {
            "rows": [{**dataclasses.asdict(row), "median": row.median} for row in self.rows],
            "targets": [{**dataclasses.asdict(t), "median": t.median, "met": t.met} for t in self.targets],
        }

    def table(self) -> str:
        measured = [
            (row.name, number(row.median), f"{number(min(row.values))} - {number(max(row.values))}", row.unit)
            for row in self.rows
        ]
        judged = [
            (
                target.name,
                f"{number(target.median)} {target.unit}".strip(),
                f"{target.must} {number(target.limit)}" + (f", aim {number(target.aim)}" if target.aim else ""),
                "met" if target.met else "MISSED",
            )
            for target in self.targets
        ]
        tables = [aligned([("measured", "median", "lowest - highest", "unit"), *measured])]
        if judged:
            tables.append(aligned([("target", "median", "limit", ""), *judged]))
        return "\n\n".join(tables)


def ratios(numerator: Iterable[float], denominator: Iterable[float]) -> tuple[float, ...]:
    """Round by round."""
    return tuple(above / below for above, below in zip(numerator, denominator, strict=True))


class Found(Protocol):
    """What a suite found."""

    def content(self) -> dict[str, Any]: ...

    def table(self) -> str: ...


def write(wanted: Any, found: Found) -> dict[str, Any]:
    """What a suite found as it goes to `wanted.out`, written whole or not at all; `wanted` is a `command.Wanted`."""
    content = {
        "command": f"python -m experiments.benchmark {shlex.join(sys.argv[1:])}",
        "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "environments": {name: processes.shown(name) for name in processes.KINDS},
        "settings": dataclasses.asdict(wanted),
        **found.content(),
    }
    path = Path(wanted.out)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.part")
    beside.write_text(json.dumps(content, indent=2) + "\n")
    beside.replace(path)
    return content


def say(line: str) -> None:
    """What is being measured, for a person who waits."""
    print(line, file=sys.stderr, flush=True)


def machine() -> Mapping[str, Any]:
    """What a figure must be read with."""
    packages = ("jax", "jaxlib", "flax", "optax", "numpy", "ale-py")
    return {
        "cpu": platform.cpu(),
        "system": python_platform.platform(),
        "python": python_platform.python_version(),
        "packages": " ".join(f"{package} {importlib.metadata.version(package)}" for package in packages),
    }


def number(value: float) -> str:
    """Three or four digits that mean something."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}" if abs(value) >= 100 else f"{value:.3g}"


def aligned(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
