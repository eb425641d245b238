"""Slurm's own commands, as far as launching needs them: what there is, what is queued, submitting. No accounting."""

import dataclasses
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path


class Unavailable(RuntimeError):
    """A command of Slurm's is not there, or did not do what it was asked; the message is its own."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Partition:
    """A part of the cluster: its limits, and what its nodes have at most."""

    name: str
    is_default: bool
    seconds: float  # a job may take; inf where it may take any
    nodes: int
    cpus: int
    gpus: int
    features: frozenset[str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Queued:
    """A job in Slurm's memory, which forgets ended ones after some minutes."""

    state: str  # PENDING, RUNNING, COMPLETED, FAILED, CANCELLED, TIMEOUT, ...
    reason: str
    restarts: int


def partitions() -> dict[str, Partition]:
    """Those that take jobs, by name. Raises Unavailable."""
    found: dict[str, Partition] = {}
    for line in _ask("sinfo", "--noheader", "--format=%P|%a|%l|%D|%c|%G|%f").splitlines():
        name, up, limit, nodes, cpus, gres, features = line.split("|")
        if up != "up":
            continue
        one = Partition(
            name=name.rstrip("*"),
            is_default=name.endswith("*"),
            seconds=seconds(limit),
            nodes=int(nodes),
            cpus=int(cpus.rstrip("+")),
            gpus=_gpus(gres),
            features=frozenset(re.findall(r"[^,()]+", features.replace("(null)", ""))),
        )
        found[one.name] = _together(found[one.name], one) if one.name in found else one
    return found


def queued(jobs: Iterable[str]) -> dict[str, Queued]:
    """Those of these jobs that Slurm remembers; the members of an array are called 12_0, 12_1. Raises Unavailable."""
    numbers = sorted({job.partition("_")[0] for job in jobs})
    if not numbers:
        return {}
    columns = "ArrayJobID,ArrayTaskID,JobID,State,Reason,RestartCnt"
    fields = ",".join(f"{name}:|" for name in columns.split(","))
    wanted = f"--jobs={','.join(numbers)}"
    try:
        answer = _ask("squeue", wanted, "--states=all", "--array", "--noheader", f"--Format={fields}")
    except Unavailable as error:
        if "Invalid job id" in str(error):  # it has forgotten the only one asked for
            return {}
        raise
    found = {}
    for line in answer.splitlines():
        array, task, job, state, reason, restarts, *_ = line.split("|")
        name = job if task == "N/A" else f"{array}_{task}"
        found[name] = Queued(state=state, reason=reason, restarts=int(restarts))
    return found


def longest_array() -> int:
    """How many members a job array may have. Raises Unavailable."""
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", _ask("scontrol", "show", "config"), re.MULTILINE)
    return int(found[1]) if found else sys.maxsize


def submit(script: Path) -> str:
    """Hands a script to Slurm, returns the job's number. Raises Unavailable with Slurm's reason."""
    return _ask("sbatch", "--parsable", str(script)).strip().split(";")[0]


def seconds(limit: str) -> float:
    """1-12:30:00 -> 131400; forms as in sbatch's --time, but for a bare number. Raises ValueError."""
    if limit in ("infinite", "UNLIMITED"):
        return math.inf
    found = re.fullmatch(r"(\d+)-(\d+)(?::(\d+))?(?::(\d+))?|(?:(\d+):)?(\d+):(\d+)", limit)
    if found is None:
        raise ValueError("must be like 12:00:00 (hours), 30:00 (minutes), 2-0 or 1-12:00:00 (days); in YAML in quotes")
    days, *with_days = (int(part or 0) for part in found.groups()[:4])
    hours, minutes, rest = with_days if "-" in limit else (int(part or 0) for part in found.groups()[4:])
    return ((days * 24 + hours) * 60 + minutes) * 60 + rest


def shown(limit: float) -> str:
    """131400 -> 1-12:30:00."""
    if math.isinf(limit):
        return "infinite"
    hours, rest = divmod(int(limit), 3600)
    days, hours = divmod(hours, 24)
    return f"{f'{days}-' if days else ''}{hours:02}:{rest // 60:02}:{rest % 60:02}"


def _together(one: Partition, other: Partition) -> Partition:
    return dataclasses.replace(
        one,
        nodes=one.nodes + other.nodes,
        cpus=max(one.cpus, other.cpus),
        gpus=max(one.gpus, other.gpus),
        features=one.features | other.features,
    )


def _gpus(gres: str) -> int:
    """gpu:h100:8(S:0-1),gpu:1,shard:4 -> 9."""
    counts = re.findall(r"(?:^|,)gpu(?::[^:,()]+)?:(\d+)", gres)
    return sum(map(int, counts))


def _ask(*command: str) -> str:
    # Not inside of another job, whose variables would count as options; and Hydra's setting is for this process alone.
    leaks = [name for name in os.environ if name.startswith("SLURM_") and name not in ("SLURM_CONF", "SLURM_CLUSTERS")]
    environment = {name: value for name, value in os.environ.items() if name not in (*leaks, "HYDRA_FULL_ERROR")}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    except FileNotFoundError as error:
        raise Unavailable(f"{command[0]}: not found; this is no machine of a Slurm cluster") from error
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"{command[0]}: no answer within two minutes") from error
    if done.returncode:
        raise Unavailable("; ".join(done.stderr.strip().splitlines()) or f"{command[0]} failed")
    return done.stdout
