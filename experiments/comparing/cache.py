"""What was read of a run, kept beside it in `.compare.npz`: its settings, and the columns that reports have asked for.

It counts as long as `config.yaml` and `metrics.jsonl` are the files that were read. Where it cannot be written, or
either file has only just been changed, there is none.
"""

import contextlib
import dataclasses
import io
import os
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from core import files
from experiments.comparing import rows as reader

FILE = ".compare.npz"
VERSION = 1  # of this file, and of what `rows.py` makes of a metrics.jsonl
SETTLED = 3.0  # seconds: a file that was changed so recently may change again within one tick of its clock

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
        arrays = np.load(io.BytesIO(files.read(folder / FILE, most=1 << 34)))
        head = orjson.loads(arrays["head"].tobytes())
        if head["version"] == VERSION and head["stamps"] == now:
            return Kept(
                settings=head["settings"],
                names=tuple(head["columns"]),
                rows=lambda wanted: _rows(head, arrays, wanted),
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


def _rows(head: dict[str, Any], arrays: Any, wanted: list[str]) -> reader.Rows | None:
    names = reader.matching(head["names"], wanted)
    if not {*names} <= head["columns"].keys():
        return None
    with _harmless():
        places = [head["columns"][name] for name in names]
        at = {place: arrays[f"at{place}"] for place in {place for place, _ in places}}
        return reader.Rows(
            **{key: head[key] for key in ("unit", "problem", "digest")},
            **{key: arrays[key] for key in ("x", "steps", "seconds")},
            names=tuple(head["names"]),
            columns={
                n: (at[place], arrays[f"values{number}"]) for n, (place, number) in zip(names, places, strict=True)
            },
        )
    return None


def _save(folder: Path, then: Stamps, settings: bytes, found: reader.Rows) -> None:
    """Whole or not at all, whoever else reads or writes it."""
    handle, name = tempfile.mkstemp(dir=folder, prefix=".compare-", suffix=".tmp")
    try:
        with open(handle, "wb") as file:
            latest = os.fstat(handle).st_mtime_ns - int(SETTLED * 1e9)  # by the clock of the file system
            if any(max(mtime, ctime) > latest for _, mtime, ctime, _ in then):
                return
            different = list({id(at): at for at, _ in found.columns.values()}.values())
            place = {id(at): number for number, at in enumerate(different)}
            head = {
                "version": VERSION,
                "stamps": then,
                "settings": orjson.Fragment(settings),
                **{key: getattr(found, key) for key in ("unit", "problem", "digest", "names")},
                "columns": {name: (place[id(at)], n) for n, (name, (at, _)) in enumerate(found.columns.items())},
            }
            arrays: dict[str, Any] = {f"at{number}": at for number, at in enumerate(different)}
            arrays |= {f"values{n}": values for n, (_, values) in enumerate(found.columns.values())}
            arrays |= {"head": np.frombuffer(orjson.dumps(head), np.uint8)}
            np.savez(file, x=found.x, steps=found.steps, seconds=found.seconds, **arrays)
        os.chmod(name, (folder / "metrics.jsonl").stat().st_mode & 0o666)
        os.replace(name, folder / FILE)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


def _harmless() -> contextlib.AbstractContextManager:
    """Around what only costs time where it fails: no such file, none that can be written, one that is damaged."""
    damaged = (ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError)
    return contextlib.suppress(OSError, MemoryError, NotImplementedError, *damaged)
