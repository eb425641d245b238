"""What `experiments.compare` does with a composed config: reads the runs, and writes and prints what they say."""

import dataclasses
import datetime
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import orjson

from experiments.comparing import reading, report, scoring, tables, writing
from experiments.config import build, command_line, overrides

_OWN = ("report.json", "report.md", "tables.tex")  # and a .csv for each table


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wanted:
    """`conf/compare.yaml` as an object."""

    runs: tuple[str, ...] | str | None = None
    sweep: str | None = None
    group: tuple[str, ...] | str | None = None
    metric: tuple[str, ...] | str | None = None
    at: int | None = None
    better: Literal["higher", "lower"] | None = None
    protocols: Literal["apart", "any"] = "apart"
    unfinished: Literal["apart", "counted"] = "apart"
    paired: bool = False
    reach: float | None = None
    out: str

    def __post_init__(self):
        if not self.runs and not self.sweep:
            raise ValueError("runs: missing; runs=[<folder or pattern>,...] or sweep=<folder> says what to compare")
        if self.at is not None and self.at < 1:
            raise ValueError(f"at={self.at}: must be at least 1 frame or image")
        if self.reach is not None and not math.isfinite(self.reach):
            raise ValueError(f"reach={self.reach}: must be a finite score")
        if Path(self.out).suffix in (".html", ".md", ".csv", ".json", ".tex"):
            raise ValueError(f"out={self.out}: is a folder for several files; leave {Path(self.out).suffix} out")
        if Path(self.out).exists() and not Path(self.out).is_dir():
            raise ValueError(f"out={self.out}: is a file; name a folder")


def task(settings: command_line.Config, _: Path) -> None:
    """Compares the runs; what cannot be read is left out and said."""
    wanted: Wanted = build.objects(settings | {"_target_": f"{__name__}.Wanted"})
    folders, left_out = reading.find(_several(wanted.runs) or (), key="runs")
    of_sweep, more = reading.find(_several(wanted.sweep) or (), key="sweep")
    metrics = _several(wanted.metric)
    read = [reading.read(folder, metrics) for folder in dict.fromkeys([*folders, *of_sweep])]
    runs = [run for run in read if isinstance(run, reading.Run)]
    left_out += [*more, *(run for run in read if isinstance(run, reading.LeftOut))]
    if not runs:
        told = "".join(f"\n  {each.folder}: {each.reason}" for each in left_out)
        raise build.ConfigError("sweep" if wanted.sweep else "runs", f": no run that can be read{told}")
    asked = scoring.Asked(
        group=_several(wanted.group),
        metrics=metrics,
        at=wanted.at,
        better=wanted.better,
        protocols=wanted.protocols,
        unfinished=wanted.unfinished,
        paired=wanted.paired,
        reach=wanted.reach,
    )
    found = report.make(runs, left_out, asked)
    every, out = tables.tables(found), Path(wanted.out)
    write(found, every, out)
    print(writing.markdown(found, every, brief=True))
    print(f"written: {out}/ with {', '.join(_OWN)} and a .csv of each table")


def write(found: report.Report, every: Sequence[tables.Table], out: Path) -> None:
    """All forms of the report into the folder `out`; what an earlier one left there goes."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        for old in out.glob("*.csv") if (out / "report.json").exists() else ():
            old.unlink()
        for table in every:
            (out / f"{table.name}.csv").write_text(writing.as_csv(table))
        (out / "report.md").write_text(writing.markdown(found, every, brief=False))
        (out / "tables.tex").write_text(writing.latex(every))
        head = {
            "command": overrides.command(),
            "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }
        text = orjson.dumps({**head, **writing.content(found)}, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS)
        (out / "report.json").write_bytes(text + b"\n")
    except OSError as error:
        raise build.ConfigError("out", f"={out}: {error.strerror}") from error


def _several(value: Sequence[str] | str | None) -> tuple[str, ...] | None:
    return (value,) if isinstance(value, str) else tuple(value) if value else None
