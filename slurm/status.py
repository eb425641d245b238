"""How the runs of a launch are, from their folders and from Slurm's queue."""

import contextlib
import dataclasses
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from core import files, watchdog
from slurm import jobs, scheduler

PENDING, RUNNING, DONE, FAILED = "pending", "running", "done", "failed"
CANCELLED, MISSING, UNKNOWN = "cancelled", "missing", "unknown"
ENDED_BADLY = (FAILED, CANCELLED, MISSING)

# Slurm's names.
_WAITING = ("PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "SUSPENDED", "RESV_DEL_HOLD")
_GOING = ("RUNNING", "CONFIGURING", "COMPLETING", "STAGE_OUT", "SIGNALING", "STOPPED")
_LINES = 4  # of a log, as the reason of a failure
_NOISE = re.compile(r"\s*$|\s+@ +0x|\*\*\* Check failure|.*: line \d+: +\d+ Aborted")  # where JAX aborts
_STATUSES = {137: "killed (SIGKILL: out of memory?)", 130: "interrupted", 139: "crashed (SIGSEGV)", 134: "aborted"}
_STATUSES |= {watchdog.EXIT_STATUS: "a process waited in vain for another"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class State:
    """One run of a launch, at this moment."""

    state: str
    job: str | None = None
    detail: str = ""  # Slurm's reason, or how it ended
    progress: str = ""
    lines: tuple[str, ...] = ()  # the last ones of its log, where it failed
    log: Path | None = None


def look(launch: jobs.Launch, *, budget: Callable[[Path], int]) -> list[State]:
    """The runs' states, in their order. `budget` is that of the run in a folder, or raises LookupError."""
    attempts = [_attempts(launch.run(member)) for member in launch.members]
    submitted = [_submitted(lines) for lines in attempts]
    try:
        queue = scheduler.queued(job for job in submitted if job)
    except scheduler.Unavailable:
        queue = None
    return [
        State(state=MISSING)
        if job is None
        else _state(launch.run(member), {"job": job, "progress": _progress(launch.run(member), budget)}, lines, queue)
        for member, job, lines in zip(launch.members, submitted, attempts, strict=True)
    ]


def failure(run: Path) -> str | None:
    """Why the newest job of the run in this folder failed, in a line and without asking Slurm; None where none has."""
    attempts = _attempts(run)
    job = _submitted(attempts)
    last = next((line for line in reversed(attempts) if line["job"] == job and line["event"] != "submitted"), {})
    if last.get("event") != "failed":
        return None
    code = last.get("status", 1)
    state = _failed(run, _STATUSES.get(code, f"exit status {code}"), {"job": job})
    return ": ".join([state.detail, *state.lines[-1:]])


def requeued(run: Path) -> int:
    """How often a job of the run in this folder was started again: by Slurm, not as a new submission."""
    return sum(line["event"] == "started" and bool(line.get("restart")) for line in _attempts(run))


def table(launch: jobs.Launch, states: Sequence[State]) -> str:
    """A line a run, with the reason below those that failed."""
    names = [state.state for state in states]
    counts = ", ".join(f"{names.count(name)} {name}" for name in dict.fromkeys(names))
    lines = [f"{launch.name} in {shown(launch.folder)}: {counts}"]
    width = max(len(member.label) for member in launch.members)
    for member, state in zip(launch.members, states, strict=True):
        what = [state.job and f"job {state.job}", state.detail, state.progress]
        number = f"{member.folder:>3}  {member.label:{width}}  " if launch.sweep else ""
        lines.append(f"  {number}{state.state:9}  {'  '.join(part for part in what if part)}".rstrip())
        lines += [f"         | {line}" for line in state.lines]
        if state.lines and state.log is not None:
            lines.append(f"         `- {shown(state.log)}")
    return "\n".join(lines)


def shown(path: Path) -> str:
    """As people would type it from here."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _submitted(attempts: Sequence[Mapping[str, Any]]) -> str | None:
    """The newest job."""
    return next((line["job"] for line in reversed(attempts) if line["event"] == "submitted"), None)


def _state(
    run: Path, known: Any, attempts: Sequence[Mapping[str, Any]], queue: Mapping[str, scheduler.Queued] | None
) -> State:
    job = known["job"]
    # By job, not by place: a job may start before its submission is written down.
    last = next((line for line in reversed(attempts) if line["job"] == job and line["event"] != "submitted"), {})
    event = last.get("event")
    queued = None if queue is None else queue.get(job)
    if queued is not None and queued.state in _WAITING:
        return State(state=PENDING, detail=f"({queued.reason}{_again(queued.restarts)})", **known)
    if queued is not None and queued.state in _GOING and last.get("restart") != queued.restarts:
        return State(state=RUNNING, detail=_again(queued.restarts).removeprefix(", "), **known)  # it only begins
    if event == "done":
        return State(state=DONE, **known)
    if event == "failed":
        return _failed(run, _STATUSES.get(last["status"], f"exit status {last['status']}"), known)
    if queued is not None and queued.state in _GOING:
        return State(state=RUNNING, detail=f"on {last['node']}{_again(queued.restarts)}" if last else "", **known)
    if queued is not None and queued.state == "COMPLETED":
        return State(state=DONE, **known)  # a full disk took no last line
    if queued is not None and queued.state == "CANCELLED":
        return State(state=CANCELLED, **known)
    if queue is None:
        return State(state=UNKNOWN, detail="Slurm does not answer", **known)
    if queued is not None:
        return _failed(run, queued.state, known)
    if event == "terminated":
        return _failed(run, "ended from outside: cancelled, or out of time", known)
    return _failed(run, "ended without a word: killed, or its node was lost", known)


def _failed(run: Path, detail: str, known: Mapping[str, Any]) -> State:
    """With the last lines of the process that says what went wrong, or else of the first, or of the script."""
    script = run / "slurm" / f"{known['job']}.log"
    logs = [*sorted((run / "slurm").glob(f"{known['job']}-rank*.log")), script]
    ends = {log: _tail(log) for log in logs}
    spoken = [log for log in logs if any(line.strip() for line in ends[log])]
    first = _first_failure(ends[script]) if len(logs) > 2 else None  # of several processes
    of_rank = lambda rank: [log for log in spoken if log.name == f"{known['job']}-rank{rank}.log"]
    of_first = of_rank(first[1]) if first else []
    if of_first and (told := _failure_told(ends[of_first[0]])) is not None and of_rank(told):
        of_first, first = of_rank(told), None  # srun saw one end that only heard of it
    raised = [log for log in spoken if any(_raised(line) for line in ends[log])]
    chosen = next(iter([*of_first, *raised, *spoken]), None)
    lines = [line for line in ends[chosen] if not _NOISE.match(line)][-_LINES:] if chosen else []
    lines += [first[0]] if first else []
    if ends[script] and ends[script][-1].startswith("job ") and chosen != script:
        lines.append(ends[script][-1])  # why it was not started again
    return State(state=FAILED, detail=detail, lines=tuple(lines), log=chosen, **known)


def _first_failure(lines: Sequence[str]) -> re.Match[str] | None:
    """What srun says of the process that failed first, in the last attempt that the script's log tells of."""
    ended = [number for number, line in enumerate(lines) if re.search(r"\*\*\* JOB .* CANCELLED", line)]
    found = (re.match(r"srun: error: .*: tasks? (\d+).*", line) for line in lines[ended[-1] if ended else 0 :])
    return next((match for match in found if match), None)


def _failure_told(lines: Sequence[str]) -> str | None:
    """The rank of the process whose failure ended this one (`core.watchdog`)."""
    found = re.match(r"jaxcade: process (\d+) failed: ", next((line for line in reversed(lines) if line), ""))
    return found[1] if found else None


def _raised(line: str) -> bool:
    return line.startswith("Traceback (most recent call last)")


def _attempts(run: Path) -> list[dict[str, Any]]:
    lines = []
    for line in files.lines(run / "slurm" / "attempts.jsonl"):
        with contextlib.suppress(ValueError):
            lines.append(json.loads(line))
    return [line for line in lines if isinstance(line, dict) and {"event", "job"} <= line.keys()]


def _progress(run: Path, budget_of: Callable[[Path], int]) -> str:
    """120,000/2,000,000 frames (6%)  350 frames/s  01:29:31 left."""
    rows = []
    for line in _tail(run / "metrics.jsonl"):
        with contextlib.suppress(ValueError):
            rows.append(json.loads(line))
    try:
        budget = budget_of(run)
        unit = next(name for name in ("frames", "images") if name in rows[-1])
        done = rows[-1][unit]
    except (LookupError, StopIteration):
        return ""
    parts = [f"{done:,}/{budget:,} {unit} ({done / budget:.0%})"]
    newest = lambda name: next((row[name] for row in reversed(rows) if name in row), None)
    if (speed := newest(f"time/{unit}_per_second")) and done < budget:
        overall = newest(f"time/{unit}_per_second_overall") or speed  # with evaluations and checkpoints
        parts += [f"{speed:,.0f} {unit}/s", f"{scheduler.shown((budget - done) / overall)} left"]
    return "  ".join(parts)


def _again(restarts: int) -> str:
    return f", restarts: {restarts}" if restarts else ""


def _tail(path: Path) -> list[str]:
    """The last lines of a file, as far as 64 KB reach; none where there is no such file."""
    try:
        with files.open_regular(path) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 65_536))
            return file.read().decode(errors="replace").splitlines()
    except OSError:
        return []
