"""Where a run's numbers and pictures go: the record (`core/record.py`), which Weights & Biases mirrors.

The mirror is a daemon thread that reads the record back, so that nothing W&B does, its import and `init` included, can
stop, block or slow a run, and no queue can overflow: rows wait in the file. W&B takes rows in rising order and never
gives one back, while a resumed run goes back to its checkpoint. So a row is mirrored once a checkpoint covers it
(`commit`), or at the run's end, and W&B never shows what the record drops. `live=True` shows rows at once, and pays
with a second W&B run where a resume has to go back. A resumed run first sends what a SIGKILL kept from W&B.
"""

import contextlib
import dataclasses
import json
import math
import os
import pathlib
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any, Literal, Protocol

import numpy as np
import psutil

from core import provenance, ranges, record, types

# What W&B's servers take, in characters; its client checks some of it, and tells it when the run goes already.
LONGEST = {"project": 128, "entity": 128, "group": 128, "name": 128, "job_type": 64, "tags": 64}
_FORBIDDEN = {"project": "/\\#?%:", "entity": "/"}

Scalars = Mapping[str, Any]  # name -> anything that float() takes

_BINS = 64  # of a histogram
_PATIENCE = 1.0  # seconds that W&B's own process has for its end, once it is given up
_SILENCE = 60.0  # seconds without an answer from W&B, of which the run tells
_WAITING = 256  # reports whose media and histograms may wait for a checkpoint; the oldest go first


class Tracker(Protocol):
    """What the loop writes to."""

    def log(
        self, *, step: int, examples: int, seconds: float, scalars: Scalars, report: types.Report | None = None
    ) -> None:
        """One row at learner step `step`, `examples` frames or images and `seconds` into the run."""
        ...

    def commit(self, step: int) -> None:
        """A checkpoint covers the rows up to `step`: no resume takes them back."""
        ...

    def finish(self, status: str) -> None:
        """The end: "finished", "stopped", "diverged" or "failed". Waits a stated time for W&B, and no longer.

        After "failed" W&B keeps to the rows of the last checkpoint, from where a resume goes on.
        """
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Nothing:
    """The record alone."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wandb:
    """Weights & Biases. Offline needs no login and no network; `wandb sync <run>/wandb/offline-run-*` uploads it."""

    mode: Literal["offline", "online"] = "offline"
    project: str = "jaxcade"
    entity: str | None = None
    group: str | None = None
    name: str | None = None  # default: the run folder's name
    job_type: str | None = None
    tags: tuple[str, ...] = ()
    notes: str | None = None
    live: bool = False  # mirror rows at once instead of with each checkpoint
    init_seconds: ranges.PositiveFloat = 10.0  # a server that does not answer for so long: the run is written offline
    finish_seconds: ranges.PositiveFloat = 20.0  # how long the end of a run waits for W&B, and a second to end it

    def __post_init__(self):
        if self.mode not in ("offline", "online"):
            raise ValueError(f"mode={self.mode}: must be offline or online (tracker=none for no W&B)")
        for name, longest in LONGEST.items():
            value = getattr(self, name)
            for text in value if name == "tags" else [value]:
                _check_text(name, text, longest)
        ranges.check(self)


def _check_text(name: str, text: str | None, longest: int) -> None:
    if text is None:
        return
    shown = f"{name}={text if len(text) <= 40 else text[:30] + '...' + text[-7:]}"
    if not text.strip():
        raise ValueError(f"{shown}: is empty, which W&B refuses; leave it out")
    if len(text) > longest:
        each = "a tag has" if name == "tags" else "W&B takes"
        raise ValueError(f"{shown}: {len(text)} characters; {each} at most {longest}")
    if found := [character for character in _FORBIDDEN.get(name, "") if character in text]:
        remedy = "; the team goes into tracker.entity" if "/" in found and name == "project" else ""
        raise ValueError(f"{shown}: W&B allows none of {' '.join(_FORBIDDEN[name])} in it{remedy}")


def open(
    folder: str | os.PathLike,
    *,
    unit: str,
    config: Mapping[str, Any],
    backend: Nothing | Wandb,
    resume_step: int | None = None,
    parameters: int | None = None,
    say: record.Say = print,
) -> Tracker:
    """Begins or goes on with the record of the run in `folder`; for one process only, the others take `Muted`.

    `unit` is what the x-axis counts, "frames" or "images". `config` is plain (dicts, lists, numbers, strings). Rows
    later than `resume_step` are removed (None or 0: all of them). Each attempt adds a line to `provenance.jsonl`: the
    step that it begins at, the steps that were lost since (as far as rows tell), the number of `parameters` where that
    is given, and where it runs.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    step = resume_step or 0
    removed = record.rewind(folder / "metrics.jsonl", step)
    if removed.rows:
        say(f"metrics.jsonl: went back to step {step:,}; rows removed: {removed.rows}")
    origin = provenance.gather() | ({} if parameters is None else {"parameters": parameters})
    with (folder / "provenance.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"step": step, "lost_steps": removed.steps, **origin}) + "\n")
    rows = record.Record(folder, unit, say)
    if isinstance(backend, Nothing):
        return _Recorder(rows, None)
    return _Recorder(rows, _Mirror(backend, folder, unit, {**config, "provenance": origin}, resume_step=step, say=say))


class Muted:
    """The tracker of every process but the first."""

    def log(self, **_: Any) -> None: ...

    def commit(self, step: int) -> None: ...

    def finish(self, status: str) -> None: ...


class _Recorder:
    """The record, with or without a mirror."""

    def __init__(self, rows: record.Record, mirror: "_Mirror | None"):
        self._record, self._mirror = rows, mirror

    def log(
        self, *, step: int, examples: int, seconds: float, scalars: Scalars, report: types.Report | None = None
    ) -> None:
        if report:
            scalars = {**scalars, **report.scalars}
            extras = {**self._record.keep(report.media, examples), **_histograms(report.arrays)}
            if self._mirror and extras:
                self._mirror.attach(step, extras)  # before the row, which fetches them
        self._record.write(step=step, examples=examples, seconds=seconds, scalars=scalars)
        if self._mirror:
            self._mirror.wake()

    def commit(self, step: int) -> None:
        if self._mirror:
            self._mirror.commit(step)

    def finish(self, status: str) -> None:
        self._record.close()
        if self._mirror:
            self._mirror.finish(status)


class _Mirror:
    """Copies the record to W&B, from a thread of its own. Its public methods return at once; `finish` waits."""

    def __init__(
        self, settings: Wandb, folder: pathlib.Path, unit: str, config: Mapping, *, resume_step: int, say: record.Say
    ):
        self._settings, self._folder, self._unit, self._config = settings, folder, unit, config
        self._path, self._resume_step, self._say = folder / "metrics.jsonl", resume_step, say
        self._limit = math.inf if settings.live else resume_step  # rows up to this step may be shown
        self._held = -1  # the last step that W&B has
        self._offset = 0  # bytes of the record that were read
        self._before = self._path.stat().st_size  # bytes of earlier attempts
        self._waiting: dict[int, dict[str, Any]] = {}  # media and histograms by step
        self._dropped, self._lock = 0, threading.Lock()
        self._complaints: set[str] = set()
        self._ending: str | None = None
        self._left = False  # finish() timed out; later errors in the thread are ignored.
        self._since: float | None = time.monotonic()  # since when W&B has been asked something
        self._wake, self._done = threading.Event(), threading.Event()
        self._wake.set()
        threading.Thread(target=self._work, name="wandb-mirror", daemon=True).start()

    def attach(self, step: int, extras: Mapping) -> None:
        with self._lock:
            self._waiting.setdefault(step, {}).update(extras)
            if len(self._waiting) > _WAITING:
                self._waiting.pop(next(iter(self._waiting)))
                self._dropped += 1

    def wake(self) -> None:
        if self._settings.live:
            self._wake.set()

    def commit(self, step: int) -> None:
        self._limit = max(self._limit, step)
        self._wake.set()
        since = self._since
        if since is not None and time.monotonic() - since > _SILENCE:
            self._complain("rows wait", TimeoutError(f"no answer for {_SILENCE:g} s"))

    def finish(self, status: str) -> None:
        if status != "failed":
            self._limit = math.inf
        self._ending = status
        self._wake.set()
        if not self._done.wait(self._settings.finish_seconds):
            self._say(f"W&B: not done after {self._settings.finish_seconds:g} s, left behind; {self._path} is complete")
            self._left = True
            _end_service()
        if self._dropped:
            self._say(f"W&B: media of {self._dropped} reports were not sent; they lie in {self._folder / 'media'}")

    def _work(self) -> None:
        try:
            wandb, run = self._connect()
            while True:
                self._since = None
                self._wake.wait()
                self._wake.clear()
                self._since = time.monotonic()
                ending = self._ending  # before the rows: what was written before the end is sent
                for row in self._rows():
                    self._send(wandb, run, row)
                if ending is not None:
                    run.summary["status"] = ending
                    return run.finish(exit_code=0 if ending in ("finished", "stopped") else 1)
        except Exception as error:
            self._complain("stopped mirroring", error)
            _end_service()  # so that the next run of this process begins with a sound one
        finally:
            self._since = None
            self._done.set()

    def _connect(self) -> tuple[Any, Any]:
        """The module and the run, with `_held` set. Without a server the run is written offline."""
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # its own telemetry wants a network and two threads
        if "wandb" not in sys.modules:  # W&B's process of whoever started this one ends with them, or is elsewhere
            os.environ.pop("WANDB_SERVICE", None)
        import wandb  # here, because it takes half a second

        wandb.setup(settings=wandb.Settings(mode=self._settings.mode, silent=True))
        identity = _identity(self._folder)
        run = None
        if self._settings.mode == "online":
            try:
                if not wandb.login(prompt=False, verify=False):
                    raise PermissionError("no API key; run `wandb login`, or set WANDB_API_KEY")
                run = self._init(wandb, identity, "online")
                self._held = run.starting_step - 1
            except Exception as error:
                self._complain("no server, so this run is written offline (`wandb sync` uploads it)", error)
                _end_service()  # it holds on to the id
                wandb.setup(settings=wandb.Settings(mode="offline", silent=True))
        if run is None:
            self._held = self._sent_before(identity)
        if self._held > self._resume_step:
            self._say(f"W&B: run {identity} shows rows that were since removed; a new one begins")
            identity, self._held = _identity(self._folder, fresh=True), -1
            if run is not None:
                run.finish()
                run = self._init(wandb, identity, "online")
        run = run or self._init(wandb, identity, "offline")
        run.define_metric(self._unit)
        run.define_metric("*", step_metric=self._unit)
        if run.url:
            self._say(f"W&B: {run.url}")
        return wandb, run

    def _init(self, wandb: Any, identity: str, mode: str) -> Any:
        chosen = self._settings
        if self._left:
            raise TimeoutError("the run ended first")
        return wandb.init(
            mode=mode,
            id=identity,
            resume="allow",
            reinit="create_new",
            dir=str(self._folder),
            config=dict(self._config),
            name=chosen.name or self._folder.resolve().name[-LONGEST["name"] :],
            tags=list(chosen.tags),
            **{key: getattr(chosen, key) for key in ("project", "entity", "group", "job_type", "notes")},
            settings=wandb.Settings(
                silent=True,
                console="off",  # wrapping stdout would break the progress bar
                disable_git=True,  # the revision is in the config, under provenance
                disable_code=True,
                disable_job_creation=True,
                init_timeout=chosen.init_seconds,
                finish_timeout=0.8 * chosen.finish_seconds,
            ),
        )

    def _sent_before(self, identity: str) -> int:
        """The last step in the files of this run's earlier attempts, -1 where there is none."""
        last = -1
        try:
            for log in sorted(self._folder.glob(f"wandb/*run-*-{identity}/*.wandb")):
                command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(log)]
                shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
                sent = (json.loads(line) for line in shown.splitlines() if '"type":"history"' in line)
                last = max([last, *(int(row["history"]["item"].get("_step", 0)) for row in sent)])
        except Exception as error:
            self._complain("an earlier attempt cannot be read; its rows are taken to be there", error)
            return self._resume_step
        return last

    def _rows(self) -> Iterator[dict[str, Any]]:
        """The rows that are new and may be shown."""
        for row, offset in record.read(self._path, offset=self._offset):
            if row["step"] > self._limit:
                return
            self._offset = offset
            # A resumed run first makes evaluations that a stop has cut short: at a step that W&B has rows of already.
            if row["step"] > self._held or offset > self._before:
                yield row

    def _send(self, wandb: Any, run: Any, row: dict[str, Any]) -> None:
        step = row.pop("step")
        try:
            with self._lock:
                waiting = self._waiting.pop(step, {})
            extras = {name: _item(wandb, item) for name, item in waiting.items()}
            shown = {name: value for name, value in row.items() if value is not None} | extras
            run.log(shown, step=max(step, self._held + 1))  # W&B takes rows in rising order
        except Exception as error:  # W&B's service process dies with a SIGTERM to the whole job, say
            self._complain("a row was not sent", error)

    def _complain(self, what: str, error: Exception) -> None:
        """Once for each kind."""
        kind = f"{what} {type(error).__name__}"
        if kind not in self._complaints and not self._left:
            self._complaints.add(kind)
            reason = (str(error) or type(error).__name__).splitlines()[0]
            self._say(f"W&B: {what}: {reason}; {self._path} is complete")


def _identity(folder: pathlib.Path, *, fresh: bool = False) -> str:
    """The W&B run that belongs to a run folder, kept in `wandb/run_id`."""
    path = folder / "wandb" / "run_id"
    if fresh or not path.exists():
        path.parent.mkdir(exist_ok=True)
        path.write_text(uuid.uuid4().hex[:12] + "\n")
    return path.read_text().strip()


def _histograms(arrays: Mapping[str, np.ndarray]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    finite = {name: np.asarray(values, np.float64)[np.isfinite(values)] for name, values in arrays.items()}
    return {name: np.histogram(values, bins=_BINS) for name, values in finite.items() if values.size}


def _item(wandb: Any, item: pathlib.Path | tuple[np.ndarray, np.ndarray]) -> Any:
    if isinstance(item, tuple):
        return wandb.Histogram(np_histogram=item)
    return wandb.Image(str(item)) if item.suffix == ".png" else wandb.Video(str(item), format=item.suffix[1:])


def _end_service() -> None:
    """Ends W&B's own process within a second; at exit W&B would wait for it, however long a server takes to answer."""
    killer = threading.Timer(_PATIENCE, _kill_service)
    killer.start()
    # In a thread: W&B deadlocks within itself where its process died while it was starting.
    ender = threading.Thread(target=_teardown, name="wandb-teardown", daemon=True)
    ender.start()
    ender.join(2 * _PATIENCE)
    killer.cancel()
    _kill_service()  # one that was only starting


def _teardown() -> None:
    # Nothing to end: not imported yet, or killed by someone else. A process that had to be killed is no reason for ours
    # to exit with its status, as W&B would.
    with contextlib.suppress(Exception, SystemExit):
        sys.modules["wandb"].teardown()


def _kill_service() -> None:
    with contextlib.suppress(psutil.Error):
        for child in psutil.Process().children():
            if child.name().startswith("wandb-core"):
                child.kill()
