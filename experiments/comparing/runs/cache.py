"""What was read of a run, kept beside it in `.compare-cache`: its settings, and the columns that were asked for.

It counts as long as `config.yaml` and `metrics.jsonl` are the files that were read. Where it cannot be written, or
either file has only just been changed, there is none.
"""

import contextlib
import dataclasses
import functools
import itertools
import os
import struct
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from core import files
from experiments.comparing.runs import rows as reader

FILE = ".compare-cache"
VERSION = b"jxc1"  # of this file, and of what `rows.py` makes of a metrics.jsonl
SETTLED = 3.0  # seconds: a file that was changed so recently may change again within one tick of its clock

_START = struct.Struct("<4sIQ")  # version, checksum of the rest, length of its head, which is JSON; then come arrays

Stamps = list[list[int]]  # of config.yaml and metrics.jsonl


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """A run whose rows have to be read from its metrics.jsonl."""

    folder: Path
    wanted: tuple[str, ...]  # names of metrics, or patterns
    stamps: Stamps | None  # of before anything was read; None: nothing is kept
    settings: bytes  # what config.yaml holds, as JSON


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kept:
    """What lies beside a run."""

    settings: dict[str, Any] | None = None
    names: tuple[str, ...] = ()  # of the columns
    rows: Callable[[list[str]], reader.Rows | None] = lambda wanted: None  # None where one of them is not kept


def stamps(folder: Path) -> Stamps | None:
    """What changes when config.yaml or metrics.jsonl does; None where one is missing."""
    with contextlib.suppress(OSError):
        found = [(folder / name).stat() for name in ("config.yaml", "metrics.jsonl")]
        return [[each.st_size, each.st_mtime_ns, each.st_ctime_ns, each.st_ino] for each in found]
    return None


def load(folder: Path, now: Stamps | None) -> Kept:
    """What was kept of these very files; damaged, of another version or of others it is nothing."""
    with _harmless():
        content = files.read(folder / FILE, most=1 << 34)
        version, check, length = _START.unpack_from(content)
        body = memoryview(content)[_START.size :]
        if version == VERSION and zlib.crc32(body) == check:
            head = orjson.loads(body[:length])
            if head["stamps"] == now:
                return Kept(
                    settings=head["settings"],
                    names=tuple(head["columns"]),
                    rows=lambda wanted: _rows(head, body[length:], wanted),
                )
    return Kept()


def read(job: Job) -> reader.Rows:
    """The rows, from their file, and keeps them. Raises OSError where the file cannot be read."""
    found = reader.read(job.folder / "metrics.jsonl", job.wanted)
    if job.stamps is not None and len(found.x):
        with _harmless():
            _save(job.folder, job.stamps, job.settings, found)
    return found


def as_json(settings: dict[str, Any]) -> bytes:
    """`null` where JSON would give back something else."""
    with contextlib.suppress(TypeError):  # keys that are no text, say
        text = orjson.dumps(settings)
        if orjson.loads(text) == settings:
            return text
    return b"null"


def _rows(head: dict[str, Any], numbers: memoryview, wanted: list[str]) -> reader.Rows | None:
    names = reader.matching(head["names"], wanted)
    if not {*names} <= head["columns"].keys():
        return None

    @functools.cache
    def array(place: int) -> np.ndarray:
        begin, count, kind = head["arrays"][place]
        return np.frombuffer(numbers, kind, count, begin)

    return reader.Rows(
        **{key: head[key] for key in ("unit", "problem", "digest")},
        names=tuple(head["names"]),
        x=array(0),
        steps=array(1),
        seconds=array(2),
        columns={name: (array(at), array(values)) for name in names for at, values in [head["columns"][name]]},
    )


def _save(folder: Path, then: Stamps, settings: bytes, found: reader.Rows) -> None:
    """Whole or not at all, whoever else reads or writes it."""
    handle, name = tempfile.mkstemp(dir=folder, prefix=FILE, suffix=".tmp")
    try:
        with open(handle, "wb") as file:
            latest = os.fstat(handle).st_mtime_ns - int(SETTLED * 1e9)  # by the clock of the file system
            if any(max(mtime, ctime) > latest for _, mtime, ctime, _ in then):
                return
            every = [found.x, found.steps, found.seconds, *itertools.chain(*found.columns.values())]
            arrays = list({id(own): own for own in every}.values())
            places = {id(own): number for number, own in enumerate(arrays)}
            begins = [0, *itertools.accumulate(own.nbytes for own in arrays)]
            head = {
                "stamps": then,
                "settings": orjson.Fragment(settings),
                **{key: getattr(found, key) for key in ("unit", "problem", "digest", "names")},
                "columns": {n: (places[id(at)], places[id(values)]) for n, (at, values) in found.columns.items()},
                "arrays": [(begin, len(own), own.dtype.str) for begin, own in zip(begins, arrays, strict=False)],
            }
            text = orjson.dumps(head)
            body = b"".join([text, *(own.tobytes() for own in arrays)])
            file.write(_START.pack(VERSION, zlib.crc32(body), len(text)) + body)
        os.chmod(name, (folder / "metrics.jsonl").stat().st_mode & 0o666)
        os.replace(name, folder / FILE)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


def _harmless() -> contextlib.AbstractContextManager:
    """Around what only costs time where it fails: no such file, none that can be written, one that is damaged."""
    return contextlib.suppress(OSError, MemoryError, struct.error)
