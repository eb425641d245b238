"""How long `experiments.compare` takes and how much memory, on many runs: `suite=compare`.

Run folders are made in a temporary folder: a real config, and made-up rows from one seed that have the compared metric
in each of them. Each size is compared by the command in a process of its own, with nothing kept beside the runs and
then with what the first left there. The page cache stays as it is: the files were just written, so most of them are
read from memory.
"""

import dataclasses
import importlib
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import yaml

from agents import scores
from experiments.benchmarks import results
from experiments.comparing.runs import cache
from experiments.config import command_line, identity, saved

METRIC = "eval/episode_return"
OTHERS = ("loss/td", "grad/norm", "q/mean", "time/frames_per_second", "time/evaluate", "replay/size", "train/episodes")
LIMITS = {"cold": 60.0, "warm": 10.0}  # seconds, on two cores of an AMD EPYC of family 25 or 26
LONGEST = 1800.0  # seconds for one report, after which it counts as stuck
_BYTES = 500  # of a row, at most
_TAILS = 997  # different ends of rows


@dataclasses.dataclass(frozen=True, kw_only=True)
class Size:
    """`rates` × `seeds` runs on each of `games` games."""

    games: int
    rates: int
    seeds: int
    rows: int

    @property
    def runs(self) -> int:
        return self.games * self.rates * self.seeds

    @property
    def bytes(self) -> int:
        return self.runs * self.rows * _BYTES


SIZES = {
    "sweep": Size(games=1, rates=50, seeds=20, rows=10_000),
    "games": Size(games=57, rates=6, seeds=5, rows=1_000),
}


def run(wanted: Any) -> results.Results:
    rows, targets = list[results.Row](), list[results.Target]()
    for name in wanted.only or SIZES:
        found = of_size(SIZES[name], rounds=wanted.rounds, overrides=wanted.overrides)
        rows += [
            results.Row(name=f"{name}: {what}", unit=unit, values=values) for (what, unit), values in found.items()
        ]
        targets += _targets(name, found)
    return results.Results(rows=rows, targets=targets)


def of_size(
    size: Size, *, rounds: int, overrides: tuple[str, ...] = (), parent: Path | None = None
) -> dict[tuple[str, str], tuple[float, ...]]:
    """(what, unit) -> its values by round. The runs lie in a new folder in `parent`, and go at the end.

    Raises: OSError where the disk has no room for them; RuntimeError with the end of what a failed command said.
    """
    with tempfile.TemporaryDirectory(prefix="jaxcade-compare-", dir=parent) as place:
        folder = Path(place)
        free = shutil.disk_usage(folder).free
        results.say(f"{size.runs:,} runs of {size.rows:,} rows in {folder}: {size.bytes / 1e9:.2g} GB for a while")
        if free < 1.2 * size.bytes:
            raise OSError(f"{folder}: {free / 1e9:.2g} GB are free; TMPDIR=<folder> makes the runs elsewhere")
        make(folder / "runs", size)
        found = dict[tuple[str, str], list[float]]()
        for _ in range(rounds):
            for kept in (folder / "runs").glob(f"*/{cache.FILE}"):
                kept.unlink()
            for state in LIMITS:
                results.say(f"compares them, {state}")
                for what, value in _measured(folder, overrides).items():
                    found.setdefault((f"{state}, {what[0]}", what[1]), []).append(value)
        page = next((folder / "report").glob("*.html"), None)
        for what, value in (_browsed(page) if page else {}).items():
            found[what] = [value]
        return {what: tuple(values) for what, values in found.items()}


def make(folder: Path, size: Size) -> None:
    """The runs, all done; their files are as old as a finished run's."""
    base = command_line.compose("experiment=dqn/pong", "tracker=none") | {"budget": 100 * size.rows}
    random = np.random.default_rng(0)
    tails = [_tail(random) for _ in range(_TAILS)]
    games = list(scores.published())[: size.games]
    then = time.time() - 3_600
    for number in range(size.runs):
        game, rest = divmod(number, size.rates * size.seeds)
        rate, seed = divmod(rest, size.seeds)
        own = folder / f"{number:04}"
        own.mkdir(parents=True)
        text = yaml.dump(_changed(base, games[game], 1e-5 * (rate + 1), seed), Dumper=yaml.CSafeDumper, sort_keys=False)
        (own / saved.FILE).write_text(text)
        level = rate + random.standard_normal()
        values = level * (1 - np.exp(-np.arange(size.rows) / size.rows * 5)) + 0.1 * random.standard_normal(size.rows)
        with (own / "metrics.jsonl").open("w") as file:
            file.writelines(_lines(values, tails, seconds=random.uniform(0.4, 0.6)))
        for name in (saved.FILE, "metrics.jsonl"):
            os.utime(own / name, (then, then))


def _lines(values: np.ndarray, tails: list[str], *, seconds: float) -> Iterator[str]:
    for row, value in enumerate(values.tolist(), start=1):
        head = f'{{"step": {row}, "frames": {100 * row}, "seconds": {seconds * row:.3f}, "{METRIC}": {value!r}, '
        yield f"{head}{tails[row % _TAILS]}\n"


def _tail(random: np.random.Generator) -> str:
    """The rest of a row: other metrics, up to its length."""
    text = ", ".join(
        f'"{name}": {value!r}' for name, value in zip(OTHERS, random.random(len(OTHERS)).tolist(), strict=True)
    )
    number = 0
    while len(text) < _BYTES - 150:
        number += 1
        text += f', "part/{number}": {float(random.standard_normal())!r}'
    return text + "}"


def _changed(base: Mapping[str, Any], game: str, rate: float, seed: int) -> dict[str, Any]:
    source = {**base["source"], "game": game, "seed": seed}
    optimizer = {**base["optimizer"], "learning_rate": rate}
    told = {"game": game, "sticky": 0.25}
    return {**base, "seed": seed, "source": source, "optimizer": optimizer, "protocol": told}


def _measured(folder: Path, overrides: tuple[str, ...]) -> dict[tuple[str, str], float]:
    """One report, by the command."""
    command = [sys.executable, "-m", "experiments.compare", f"runs={folder}/runs", f"out={folder}/report", *overrides]
    said, peak, began, used = folder / "said.txt", 0, time.monotonic(), _processor()
    with said.open("w") as file:
        process = subprocess.Popen(
            command, cwd=identity.ROOT, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT
        )
        try:
            while process.poll() is None:
                peak = max(peak, _resident(process.pid))
                if time.monotonic() - began > LONGEST:
                    raise RuntimeError(f"{' '.join(command)} took longer than {LONGEST:,.0f} s")
                time.sleep(0.05)
        finally:
            process.kill()
    seconds = time.monotonic() - began
    if process.returncode:
        told = said.read_text(errors="replace")[-2000:]
        raise RuntimeError(f"{' '.join(command)} ended with status {process.returncode}:\n{told}")
    written = sum(path.stat().st_size for path in (folder / "report").glob("*.html"))
    page = {("page", "MB"): written / 1e6} if written else {}
    used = _processor() - used
    return {
        ("the whole report", "s"): seconds,
        ("processor time of all processes", "s"): used,
        ("peak memory of all processes", "GB"): peak / 1e9,
        **page,
    }


def _processor() -> float:
    """Seconds of all processes that have ended below this one."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _resident(pid: int) -> int:
    """Bytes of a process and all below it; what they share is counted for each."""
    total = 0
    try:
        for process in (parent := psutil.Process(pid), *parent.children(recursive=True)):
            total += process.memory_info().rss
    except psutil.Error:  # one that just ended
        pass
    return total


def _browsed(page: Path) -> dict[tuple[str, str], float]:
    """What a browser takes with the page, where one is installed."""
    try:
        measure: Callable[[Path], Mapping[str, float]] = importlib.import_module(
            "experiments.benchmarks.browser"
        ).measure
        found = measure(page)
    except (ImportError, OSError, RuntimeError) as error:
        results.say(f"no browser's figures: {error}")
        return {}
    units = {"usable_seconds": ("page, usable after", "s"), "pan_fps": ("page, panning", "frames/s")}
    units |= {"hover_fps": ("page, hovering", "frames/s")}
    return {units[name]: float(value) for name, value in found.items() if name in units}


def _targets(name: str, found: Mapping[tuple[str, str], tuple[float, ...]]) -> list[results.Target]:
    limits: dict[tuple[str, str], tuple[Any, float]] = {
        **{(f"{state}, the whole report", "s"): ("at most", seconds) for state, seconds in LIMITS.items()},
        **{(f"{state}, peak memory of all processes", "GB"): ("at most", 4.0) for state in LIMITS},
        **{(f"{state}, page", "MB"): ("at most", 10.0) for state in LIMITS},
        ("page, usable after", "s"): ("at most", 2.0),
        ("page, panning", "frames/s"): ("at least", 30.0),
        ("page, hovering", "frames/s"): ("at least", 30.0),
    }
    return [
        results.Target(name=f"{name}: {what}", values=found[what, unit], must=must, limit=limit, unit=unit)
        for (what, unit), (must, limit) in limits.items()
        if (what, unit) in found
    ]
