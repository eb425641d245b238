"""What `experiments.compare` does with a composed config: reads the runs, and writes and prints what they say."""

import dataclasses
import datetime
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import orjson

from core import ranges
from experiments.comparing import report, scoring
from experiments.comparing.forms import figures, media, page, tables, writing
from experiments.comparing.parts import costs, published
from experiments.comparing.runs import reading
from experiments.config import build, command_line, overrides

PAGE = "report.html"  # unless `out` names another
_OWN = ("report.json", "report.md", "tables.tex")  # and the page, and a .csv for each table


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
    cache: bool = True
    published: tuple[str, ...] | str | bool | None = None
    media: Literal["beside", "inside", "none"] = "beside"
    media_limit: ranges.PositiveInt = 200_000_000  # bytes
    out: str

    def __post_init__(self):
        if not self.runs and not self.sweep:
            raise ValueError("runs: missing; runs=[<folder or pattern>,...] or sweep=<folder> says what to compare")
        published.names(self.published)
        if self.at is not None and self.at < 1:
            raise ValueError(f"at={self.at}: must be at least 1 frame or image")
        if self.reach is not None and not math.isfinite(self.reach):
            raise ValueError(f"reach={self.reach}: must be a finite score")
        if Path(self.out).suffix in (".md", ".csv", ".json", ".tex"):
            raise ValueError(f"out={self.out}: names the page (.html) or a folder; leave {Path(self.out).suffix} out")
        if self.place.exists() and not self.place.is_file():
            raise ValueError(f"out={self.out}: {self.place} is a folder; name a file that ends in .html, or its folder")
        if self.place.parent.exists() and not self.place.parent.is_dir():
            raise ValueError(f"out={self.out}: {self.place.parent} is a file; name a folder")

    @property
    def place(self) -> Path:
        """Of the page; the other files lie beside it."""
        return Path(self.out) if Path(self.out).suffix == ".html" else Path(self.out) / PAGE


def task(settings: command_line.Config, _: Path) -> None:
    """Compares the runs; what cannot be read is left out and said."""
    places = {key: _named(settings[key]) for key in ("runs", "sweep", "out")}
    wanted: Wanted = build.objects({**settings, **places, "_target_": f"{__name__}.Wanted"})
    folders, left_out = reading.find(_several(wanted.runs) or (), key="runs")
    of_sweep, more = reading.find(_several(wanted.sweep) or (), key="sweep")
    metrics = _several(wanted.metric)
    every = [*dict.fromkeys([*folders, *of_sweep])]
    wider = metrics and (*metrics, *costs.FIGURES)  # beside an FID its precision and recall
    read = reading.read_all(every, wider, keep=wanted.cache, say=_progress(len(every)))
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
        published=published.names(wanted.published),
        reach=wanted.reach,
    )
    found = report.make(runs, left_out, asked)
    shown = tables.tables(found)
    seen = write(found, shown, wanted.place, mode=wanted.media, limit=wanted.media_limit)
    _say(writing.valid(writing.markdown(found, shown, brief=True)))
    for line in seen:
        _say(line)
    _say(f"written: {wanted.place}, and beside it {', '.join(_OWN)}, a .csv of each table and curves as .svg")


def write(
    found: report.Report,
    every: Sequence[tables.Table],
    place: Path,
    *,
    mode: media.Mode = "beside",
    limit: int = media.LIMIT,
) -> list[str]:
    """The page at `place`, all other forms of the report beside it; files that only an earlier report had go.

    Returns what pictures and films take, or what of them is left out, in lines.
    """
    out = place.parent
    head = {
        "command": overrides.command(),
        "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    texts = {f"{table.name}.csv": writing.as_csv(table) for table in every} | {"tables.tex": writing.latex(every)}
    try:
        out.mkdir(parents=True, exist_ok=True)
        media.remove(out)
        for name in _earlier(out):
            (out / name).unlink(missing_ok=True)
        blocks, seen = media.blocks(found, out, mode, limit=limit)
        drawn = figures.write(found, out)
        texts["report.md"] = writing.markdown(found, every, brief=False) + figures.links(drawn) + media.links(blocks)
        for name, text in texts.items():
            (out / name).write_text(text, encoding="utf-8", errors="surrogateescape")  # names of files as they are
        files = ["report.json", *sorted(texts), *(["curves.csv"] if drawn else []), *(name for _, name in drawn)]
        content = {**head, "files": files, **writing.content(found), "media": media.content(blocks)}
        text = writing.as_json(content, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS)
        (out / "report.json").write_bytes(text + b"\n")
        text = page.render(found, every, command=head["command"], written=head["written"], files=files, media=blocks)
        place.write_text(text, encoding="utf-8", errors="replace")
    except OSError as error:
        raise build.ConfigError("out", f"={out}: {error.strerror}") from error
    return seen


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


def _earlier(out: Path) -> list[str]:
    """The tables and figures of the report that lies in `out`."""
    try:
        names = orjson.loads((out / "report.json").read_bytes()).get("files", ())
    except (OSError, ValueError, AttributeError):
        return []
    return [
        name for name in names if isinstance(name, str) and name == Path(name).name and name.endswith((".csv", ".svg"))
    ]


def _named(value: Any) -> Any:
    """Folders whose names are numbers, as a sweep's are, as text."""
    if isinstance(value, list):
        return [_named(each) for each in value]
    return str(value) if type(value) is int else value


def _several(value: Sequence[str] | str | None) -> tuple[str, ...] | None:
    return (value,) if isinstance(value, str) else tuple(value) if value else None
