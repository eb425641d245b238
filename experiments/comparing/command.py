"""What `experiments.compare` does with a composed config: reads the runs, and writes and prints what they say."""

import dataclasses
import datetime
import math
import os
import sys
import time
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
from pathlib import Path
from typing import Any, Literal

import orjson

from core import files, ranges
from experiments.comparing import report, scoring
from experiments.comparing.forms import figures, media, page, tables, writing
from experiments.comparing.parts import costs, published
from experiments.comparing.runs import reading
from experiments.config import build, command_line, overrides

PAGE = "report.html"  # unless `out` names another
_PAGES = (".html", ".htm")  # what `out` ends in where it names the page
_OTHERS = (".md", ".csv", ".json", ".tex", ".txt", ".xhtml", ".pdf", ".svg", ".png", ".jpg", ".jpeg", ".gif", ".mp4")
_OWN = ("report.json", "report.md", "tables.tex")  # and the page, and a .csv for each table
_MARK = "jaxcade compare"  # in report.json: only what such a file names is ever deleted
_MOST = 4 << 30  # bytes of an earlier report.json


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
    media_limit: ranges.PositiveInt  # bytes
    out: str

    def __post_init__(self):
        if not self.runs and not self.sweep:
            raise ValueError("runs: missing; runs=[<folder or pattern>,...] or sweep=<folder> says what to compare")
        published.names(self.published)
        if self.at is not None and self.at < 1:
            raise ValueError(f"at={self.at}: must be at least 1 frame or image")
        if self.reach is not None and not math.isfinite(self.reach):
            raise ValueError(f"reach={self.reach}: must be a finite score")
        if Path(self.out).suffix.lower() in _OTHERS:
            raise ValueError(f"out={self.out}: names the page (.html) or a folder; leave {Path(self.out).suffix} out")
        if self.place.exists() and not self.place.is_file():
            raise ValueError(f"out={self.out}: {self.place} is a folder; name a file that ends in .html, or its folder")
        there = next(place for place in (self.folder, *self.folder.parents) if place.exists())
        if not there.is_dir():
            raise ValueError(f"out={self.out}: {there} is a file; name a folder")
        _earlier(self.place, self.folder)

    @property
    def place(self) -> Path:
        """Of the page."""
        return Path(self.out) if Path(self.out).suffix.lower() in _PAGES else Path(self.out) / PAGE

    @property
    def folder(self) -> Path:
        """Of the other files: the page's own, or beside a page that `out` names one of its name without the suffix."""
        return self.place.with_suffix("") if self.place == Path(self.out) else self.place.parent


def task(settings: command_line.Config, _: Path) -> None:
    """Compares the runs; what cannot be read is left out and said."""
    places = {key: _folders(settings[key]) for key in ("runs", "sweep", "out")}
    wanted: Wanted = build.objects({**settings, **places, "_target_": f"{__name__}.Wanted"})
    folders, left_out = reading.find(_several(wanted.runs) or (), key="runs")
    of_sweep, more = reading.find(_several(wanted.sweep) or (), key="sweep")
    metrics = _several(wanted.metric)
    every = [*dict.fromkeys([*folders, *of_sweep])]
    wider = metrics and (*metrics, *costs.FIGURES)  # beside an FID its precision and recall
    with figures.drawer(len(every)) as drawer:
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
        seen = write(
            found, shown, wanted.place, wanted.folder, mode=wanted.media, limit=wanted.media_limit, drawer=drawer
        )
    _say(writing.valid(writing.markdown(found, shown, brief=True)))
    for line in seen:
        _say(line)
    where = "beside it" if wanted.folder == wanted.place.parent else f"in {wanted.folder}"
    _say(f"written: {wanted.place}, and {where} {', '.join(_OWN)}, a .csv of each table and curves as .svg")


def write(
    found: report.Report,
    every: Sequence[tables.Table],
    place: Path,
    out: Path,
    *,
    mode: media.Mode = "beside",
    limit: int,
    drawer: futures.Executor | None = None,
) -> list[str]:
    """The page at `place`, all other forms of the report in the folder `out`; files that only an earlier report had go.

    Returns what pictures and films take, or what of them is left out, in lines.
    """
    beside = "" if out == place.parent else f"{urllib.parse.quote(os.fsencode(out.name))}/"
    head = {
        "made_by": _MARK,
        "page": _named(place, out),
        "command": overrides.command(),
        "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    texts = {f"{table.name}.csv": writing.as_csv(table) for table in every} | {"tables.tex": writing.latex(every)}
    try:
        out.mkdir(parents=True, exist_ok=True)
        earlier = _earlier(place, out)
        media.remove(out, earlier.get("media"))
        for name in _tables_and_figures(earlier):
            (out / name).unlink(missing_ok=True)
        blocks, seen = media.blocks(found, out, mode, limit=limit)
        with figures.written(found, out, drawer) as drawn:
            texts["report.md"] = (
                writing.markdown(found, every, brief=False) + figures.links(drawn) + media.links(blocks)
            )
            for name, text in texts.items():
                (out / name).write_text(text, encoding="utf-8", errors="surrogateescape")  # names of files as they are
            names = ["report.json", *sorted(texts), *(["curves.csv"] if drawn else []), *(name for _, name in drawn)]
            content = {**head, "files": names, **writing.content(found), "media": media.content(blocks)}
            text = writing.as_json(content, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS)
            (out / "report.json.part").write_bytes(text + b"\n")
            (out / "report.json.part").replace(out / "report.json")  # one that is cut short would have no mark
            told = {"command": head["command"], "written": head["written"], "files": names, "beside": beside}
            text = page.render(found, every, **told, media=blocks)
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


def _earlier(place: Path, out: Path) -> dict[str, Any]:
    """The report.json in `out`, empty if there is none. Raises ConfigError for another tool's or another page's."""
    try:
        found = orjson.loads(files.read(out / "report.json", most=_MOST))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict) or found.get("made_by") != _MARK:
        raise build.ConfigError("out", f": {out} holds a report.json that compare did not write; name another folder")
    if (other := found.get("page")) != _named(place, out):
        raise build.ConfigError("out", f": {out} holds the files of the page {other}; name another")
    return found


def _named(place: Path, out: Path) -> str:
    """The page as seen from the folder of the other files."""
    return writing.valid(os.path.relpath(place, out))


def _tables_and_figures(earlier: Mapping[str, Any]) -> list[str]:
    names = earlier.get("files")
    plain = (name for name in names if isinstance(name, str)) if isinstance(names, list) else ()
    return [name for name in plain if name == Path(name).name and name.endswith((".csv", ".svg"))]


def _folders(value: Any) -> Any:
    """Also those whose names are numbers, as a sweep's are, as text."""
    if isinstance(value, list):
        return [_folders(each) for each in value]
    return str(value) if type(value) is int else value


def _several(value: Sequence[str] | str | None) -> tuple[str, ...] | None:
    return (value,) if isinstance(value, str) else tuple(value) if value else None
