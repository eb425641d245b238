"""Run folders for tests of comparisons: settings and rows as a run writes them, without the run."""

import copy
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from core import record
from experiments.comparing import report, scoring
from experiments.comparing.runs import reading
from experiments.config import command_line, saved

METRIC = "eval/episode_return"


def settings(*overrides: str) -> dict[str, Any]:
    return command_line.compose(*overrides)


def write(
    folder: pathlib.Path,
    config: Mapping[str, Any],
    values: Sequence[float | None] | Mapping[str, Sequence[float | None]],
    *,
    protocol: Any = None,
    every: Any = 100,
    unit: Any = "frames",
    origin: Any = None,
    **changes: Any,
) -> pathlib.Path:
    """A run of budget `every` × rows (unless `changes` says another), with these values of its metrics in its rows.

    `changes`: {"seed": 1, "learner.batch": 8} on top of `config`.
    """
    metrics = values if isinstance(values, Mapping) else {METRIC: values}
    rows = max(len(column) for column in metrics.values())
    config = copy.deepcopy({**config, "budget": every * rows})
    for key, value in changes.items():
        *outer, last = key.split(".")
        node = config
        for name in outer:
            node = node[name]
        node[last] = value
    saved.save(folder, config, protocol=protocol if protocol is not None else {"sticky": 0.0})
    book = record.Record(folder, unit, print)
    for number in range(rows):
        scalars = {
            name: float("nan") if c[number] is None else c[number] for name, c in metrics.items() if number < len(c)
        }
        book.write(step=number + 1, examples=every * (number + 1), seconds=float(number), scalars=scalars)
    book.close()
    if origin is not None:
        (folder / "provenance.jsonl").write_text(json.dumps({"step": 0, **origin}) + "\n")
    return folder


def compared(*places: pathlib.Path, **asked: Any) -> report.Report:
    """The report of the runs in these folders; `asked` are fields of `scoring.Asked`."""
    read = [reading.read(place, asked.get("metrics")) for place in places]
    return report.make([run for run in read if isinstance(run, reading.Run)], [], scoring.Asked(**asked))
