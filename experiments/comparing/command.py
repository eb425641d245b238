"""What `experiments.compare` does with a composed config: reads the runs, and writes and prints what they say."""

import dataclasses
import datetime
import os
import sys
import time
from collections.abc import Callable, Sequence
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
    cache: bool = True
    out: str

    def __post_init__(self):
        if not self.runs and not self.sweep:
            raise ValueError("runs: missing; runs=[<folder or pattern>,...] or sweep=<folder> says what to compare")
        if self.at is not None and self.at < 1:
            raise ValueError(f"at={self.at}: must be at least 1 frame or image")
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
    every = [*dict.fromkeys([*folders, *of_sweep])]
    read = reading.read_all(every, metrics, keep=wanted.cache, say=_progress(len(every)))
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
    )
    found = report.make(runs, left_out, asked)
    every, out = tables.tables(found), Path(wanted.out)
    write(found, every, out)
    _say(writing.markdown(found, every, brief=True))
    _say(f"written: {out}/ with {', '.join(_OWN)} and a .csv of each table")


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
            "command": overrides.command().encode(errors="backslashreplace").decode(),
            "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }
        text = orjson.dumps({**head, **writing.content(found)}, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS)
        (out / "report.json").write_bytes(text + b"\n")
    except OSError as error:
        raise build.ConfigError("out", f"={out}: {error.strerror}") from error


def _progress(count: int) -> Callable[[int], None]:
    """Tells on the console how many runs are read: every second on a terminal, else every ten."""
    terminal = sys.stderr.isatty()
    told = time.monotonic()

    def say(done: int) -> None:
        nonlocal told
        if time.monotonic() - told > (1.0 if terminal else 10.0):
            told = time.monotonic()
            end = "\n" if not terminal or done == count else "\r"
            print(f"{done:,} of {count:,} runs are read", end=end, file=sys.stderr, flush=True)

    return say


def _say(text: str) -> None:
    """Prints, also to a reader such as `head` that leaves before the end."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _several(value: Sequence[str] | str | None) -> tuple[str, ...] | None:
    return (value,) if isinstance(value, str) else tuple(value) if value else None
