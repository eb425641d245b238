"""A run's own record: `metrics.jsonl` and `media/`.

One flushed line a row, `{"step": .., "frames": .., "seconds": .., "loss/td": ..}`, strict JSON: a number that is not
finite is written as null. A kill at any instant tears the last line at most. Images become PNG, videos MP4, named
`media/<name>-<frames or images>.<ending>`. Histograms (`Report.arrays`) are not kept here.
"""

import contextlib
import dataclasses
import json
import math
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TextIO

from core import types

Say = Callable[[str], None]


class Record:
    """Appends to the record of the run in `folder`; `unit` is what the x-axis counts, "frames" or "images"."""

    def __init__(self, folder: pathlib.Path, unit: str, say: Say):
        self._folder, self._unit, self._say = folder, unit, say
        self._file: TextIO = (folder / "metrics.jsonl").open("a", buffering=1, encoding="utf-8")  # flushed by the line

    def write(self, *, step: int, examples: int, seconds: float, scalars: Mapping[str, Any]) -> None:
        """One row. Raises ValueError for a metric that bears the name of one of a row's own columns."""
        head = {"step": int(step), self._unit: int(examples), "seconds": round(float(seconds), 3)}
        if taken := head.keys() & scalars.keys():
            raise ValueError(f"metric {sorted(taken)[0]}: that name is the row's own; call it some/thing else")
        self._file.write(json.dumps({**head, **{name: _number(value) for name, value in scalars.items()}}) + "\n")

    def keep(self, media: Mapping[str, types.Image | types.Video], examples: int) -> dict[str, pathlib.Path]:
        """Name -> file. A picture that cannot be written costs a line on the console, not the run."""
        written = {}
        for name, item in media.items():
            plain = re.sub(r"[^A-Za-z0-9._/-]", "_", name)
            path = self._folder / "media" / f"{plain}-{examples}{'.png' if isinstance(item, types.Image) else '.mp4'}"
            try:
                (self._folder / "media").mkdir(exist_ok=True)  # not the run's folder, should someone have deleted it
                path.parent.mkdir(parents=True, exist_ok=True)
                _write_item(path, item)
                written[name] = path
            except Exception as error:
                self._say(f"{path}: not written: {error}")
        return written

    def close(self) -> None:
        self._file.close()


def read(path: pathlib.Path, *, offset: int = 0) -> Iterator[tuple[dict[str, Any], int]]:
    """The whole rows of a `metrics.jsonl` from byte `offset` on, each with the offset behind it. Other lines end it."""
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            row = _row(line)
            if row is None:
                return
            offset += len(line)
            yield row, offset


@dataclasses.dataclass(frozen=True, kw_only=True)
class Removed:
    """What `rewind` took from a record."""

    rows: int  # torn lines included
    steps: int  # between the step that it went back to and the last row


def rewind(path: pathlib.Path, step: int) -> Removed:
    """Removes rows later than `step` from a `metrics.jsonl`, and torn lines. Atomic."""
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    steps = [-1 if (row := _row(line)) is None else row["step"] for line in lines]
    kept = [line for line, own in zip(lines, steps, strict=True) if 0 <= own <= step]
    if len(kept) < len(lines):
        fresh = path.with_name(path.name + ".tmp")
        with fresh.open("wb") as file:
            file.writelines(kept)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    return Removed(rows=len(lines) - len(kept), steps=max([*steps, step]) - step)


def _row(line: bytes) -> dict[str, Any] | None:
    """None for a line that a crash tore, or that is still being written."""
    if not line.endswith(b"\n"):
        return None
    with contextlib.suppress(ValueError):
        row = json.loads(line)
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            return row
    return None


def _number(value: Any) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None


def _write_item(path: pathlib.Path, item: types.Image | types.Video) -> None:
    from core import media  # here, because it brings Pillow, which most runs never need

    if isinstance(item, types.Image):
        media.write_png(path, item.pixels)
    else:
        media.write_mp4(path, item)
